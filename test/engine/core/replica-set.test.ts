import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  compareRecords,
  type MemberState,
  type MembershipChange,
  type MembershipRecord,
  ReplicaSet,
} from '../../../engine/core/replica-set.js';
import { SetHistory } from './set-history.js';

const member = (replicaId: string, state: MemberState = 'in-sync') => ({
  ...{ replicaId, address: '', state },
});
const fresh = (...ids: string[]): MembershipRecord => ({
  ...{ epoch: 7, generation: 1, engineId: 'e', era: 0 },
  members: ids.map((id) => member(id)),
});

/** The change that the set wants now. */
function propose(set: ReplicaSet): MembershipChange {
  const change = set.propose();
  if (change === undefined) throw new Error('no change is wanted');
  return change;
}

/** `a`, `b` in-sync; `c` has failed before this tenure. */
const degraded = (): ReplicaSet =>
  new ReplicaSet({
    ...fresh('a', 'b'),
    members: [member('a'), member('b'), member('c', 'failed')],
  });

const stateOf = (record: MembershipRecord, id: string): MemberState | undefined =>
  record.members.find((m) => m.replicaId === id)?.state;

describe('replica set: a member fails (P3, R3)', () => {
  it('it is out of use at once, and out of the record after that was stored', () => {
    const set = new ReplicaSet(fresh('a', 'b', 'c'));
    expect(set.settled).toBe(true);
    expect(set.fail('b', 'kill -9')).toBe(true);
    expect(set.fail('b', 'again')).toBe(false);
    expect(set.healthy()).toEqual(['a', 'c']);
    expect(set.settled).toBe(false);
    const change = propose(set);
    expect(change.storeOn).toEqual(['a', 'c']);
    expect(change.excluded).toEqual(['b']);
    expect(change.record.generation).toBe(2);
    expect(set.propose()).toBeUndefined();
    expect(set.settled).toBe(false);
    set.stored(change);
    expect(set.settled).toBe(true);
    expect(stateOf(set.record, 'b')).toBe('failed');
    expect(set.reasonOf('b')).toBe('kill -9');
    expect(set.roleOf('b')).toBe('out');
  });

  it('a second failure while the first is being stored needs another, later generation', () => {
    const set = new ReplicaSet(fresh('a', 'b', 'c'));
    set.fail('b', 'x');
    const first = propose(set);
    set.fail('c', 'y');
    set.stored(first);
    expect(set.settled).toBe(false);
    const second = propose(set);
    expect(second.record.generation).toBe(3);
    expect(second.storeOn).toEqual(['a']);
  });

  it('a generation that may have been stored somewhere is never proposed again', () => {
    const set = new ReplicaSet(fresh('a', 'b', 'c'));
    set.fail('b', 'x');
    set.notStored(propose(set), new Map([['c', 'timeout']]));
    const second = propose(set);
    expect(second.record.generation).toBe(3);
    expect(second.storeOn).toEqual(['a']);
    expect(second.excluded).toEqual(['b', 'c']);
  });

  it('R4: the last member is never excluded: the volume is faulted and the record stays', () => {
    const set = new ReplicaSet(fresh('a'));
    set.fail('a', 'gone');
    expect(set.faulted).toBe(true);
    expect(set.propose()).toBeUndefined();
    expect(stateOf(set.record, 'a')).toBe('in-sync');
  });
});

describe('replica set: a member comes back (P6, R6)', () => {
  it('rebuilding it is not healthy; it is named in-sync by a record that it stores as well', () => {
    const set = degraded();
    set.attach('c');
    expect(set.healthy()).toEqual(['a', 'b']);
    expect(set.propose()).toBeUndefined();
    set.promote('c');
    const change = propose(set);
    expect(change.storeOn).toEqual(['a', 'b', 'c']);
    expect(stateOf(change.record, 'c')).toBe('in-sync');
    expect(set.healthy()).toEqual(['a', 'b']);
    set.stored(change);
    expect(set.healthy()).toEqual(['a', 'b', 'c']);
  });

  it('one that fails while it catches up is out at once: no record names it', () => {
    const set = degraded();
    set.attach('c');
    expect(set.fail('c', 'cut')).toBe(true);
    expect(set.roleOf('c')).toBe('out');
    expect(set.settled).toBe(true);
    expect(set.propose()).toBeUndefined();
  });

  it('one that is complete and fails before that was proposed is not promoted', () => {
    const set = degraded();
    set.attach('c');
    set.promote('c');
    set.fail('c', 'cut');
    expect(set.propose()).toBeUndefined();
  });

  it.each([
    { name: 'stored', how: 'stored' },
    { name: 'not stored, for another one', how: 'other' },
    { name: 'not stored, for itself', how: 'itself' },
  ] as const)('P3: one that fails while its promotion is under way is excluded ($name)', (row) => {
    const set = degraded();
    set.attach('c');
    set.promote('c');
    const promotion = propose(set);
    if (row.how !== 'itself') set.fail('c', 'cut');
    expect(set.settled).toBe(row.how === 'itself');
    if (row.how === 'stored') set.stored(promotion);
    else set.notStored(promotion, new Map([[row.how === 'other' ? 'b' : 'c', 'timeout']]));
    expect(set.settled).toBe(false);
    const exclusion = propose(set);
    expect(exclusion.excluded).toContain('c');
    expect(exclusion.promoted).toEqual([]);
    expect(exclusion.storeOn).not.toContain('c');
    set.stored(exclusion);
    expect(set.roleOf('c')).toBe('out');
    expect(set.settled).toBe(true);
  });

  it('a promotion that another one could not store goes on with the exclusion of that one', () => {
    const set = degraded();
    set.attach('c');
    set.promote('c');
    set.notStored(propose(set), new Map([['b', 'timeout']]));
    const next = propose(set);
    expect(next).toMatchObject({ storeOn: ['a', 'c'], excluded: ['b'], promoted: ['c'] });
    set.stored(next);
    expect(set.healthy()).toEqual(['a', 'c']);
  });

  it('a promoting one alone does not keep the volume: nobody knows that it is needed', () => {
    const set = new ReplicaSet({ ...fresh('a'), members: [member('a'), member('c', 'failed')] });
    set.attach('c');
    set.promote('c');
    propose(set);
    set.fail('a', 'gone');
    expect(set.faulted).toBe(true);
  });
});

describe('replica set: members come and go for good', () => {
  it('a new member is out until it is attached, and on the record before', () => {
    const set = new ReplicaSet(fresh('a'));
    set.join('n', 'host:1');
    expect(set.roleOf('n')).toBeUndefined();
    const change = propose(set);
    expect(stateOf(change.record, 'n')).toBe('rebuilding');
    expect(change.storeOn).toEqual(['a']);
    set.stored(change);
    expect(set.roleOf('n')).toBe('out');
  });

  it('one that leaves is off the record, and only then unknown', () => {
    const set = degraded();
    set.leave('c');
    const change = propose(set);
    expect(change.record.members.map((m) => m.replicaId)).toEqual(['a', 'b']);
    expect(set.roleOf('c')).toBe('leaving');
    set.stored(change);
    expect(set.roleOf('c')).toBeUndefined();
    expect(set.reasonOf('c')).toBeUndefined();
  });

  it('one that leaves cannot be attached any more, nor fail', () => {
    const set = degraded();
    set.leave('c');
    expect(() => set.attach('c')).toThrow('leaving');
    expect(set.fail('c', 'cut')).toBe(false);
    set.notStored(propose(set), new Map([['b', 'timeout']]));
    expect(set.roleOf('c')).toBe('leaving');
    const again = propose(set);
    expect(again.record.members.map((m) => m.replicaId)).toEqual(['a', 'b']);
    set.stored(again);
    expect(set.roleOf('c')).toBeUndefined();
  });

  it('one in use cannot leave; a joining and a leaving one wait for the change under way', () => {
    const set = degraded();
    expect(() => set.leave('a')).toThrow();
    set.attach('c');
    expect(() => set.leave('c')).toThrow();
    set.fail('c', 'cut');
    set.fail('b', 'x');
    const exclusion = propose(set);
    set.join('n', 'host:1');
    set.leave('c');
    set.stored(exclusion);
    expect(set.record.members.map((m) => m.replicaId)).toEqual(['a', 'b', 'c']);
    set.stored(propose(set));
    expect(set.record.members.map((m) => m.replicaId)).toEqual(['a', 'b', 'n']);
  });
});

it('orders records by epoch, then generation (P12)', () => {
  const version = (epoch: number, generation: number) => ({ epoch, generation });
  expect(compareRecords(version(2, 1), version(1, 9))).toBeGreaterThan(0);
  expect(compareRecords(version(2, 1), version(2, 2))).toBeLessThan(0);
  expect(compareRecords(version(2, 2), version(2, 2))).toBe(0);
});

describe('replica set: any history (P3, P6)', () => {
  it('keeps its invariants, whatever happens in which order', () => {
    const step = fc.record({
      act: fc.constantFrom(
        ...(['fail', 'attach', 'promote', 'propose', 'propose', 'stored', 'stored'] as const),
        ...(['not-stored', 'join', 'leave'] as const),
      ),
      who: fc.nat({ max: 5 }),
      mask: fc.integer({ min: 1, max: 63 }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const history = new SetHistory(new ReplicaSet(fresh('a', 'b', 'c', 'd')));
        for (const s of steps) history.step(s);
      }),
      { numRuns: 500 },
    );
  });
});
