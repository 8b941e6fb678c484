import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  compareRecords,
  type MembershipRecord,
  ReplicaSet,
} from '../../../engine/core/replica-set.js';

const member = (replicaId: string) => ({ replicaId, address: '', state: 'in-sync' as const });
const fresh = (...ids: string[]): MembershipRecord => ({
  epoch: 7,
  generation: 1,
  engineId: 'e',
  era: 0,
  members: ids.map(member),
});

describe('replica set (P3, R3)', () => {
  it('a failed member is out of use at once and out of the record after it was stored', () => {
    const set = new ReplicaSet(fresh('a', 'b', 'c'));
    expect(set.settled).toBe(true);
    expect(set.fail('b', 'kill -9')).toBe(true);
    expect(set.fail('b', 'again')).toBe(false);
    expect(set.healthy()).toEqual(['a', 'c']);
    expect(set.settled).toBe(false);
    const change = set.propose();
    expect(change?.storeOn).toEqual(['a', 'c']);
    expect(change?.record.generation).toBe(2);
    expect(set.propose()).toBeUndefined();
    expect(set.settled).toBe(false);
    if (change !== undefined) set.stored(change);
    expect(set.settled).toBe(true);
    expect(set.record.members.find((m) => m.replicaId === 'b')?.state).toBe('failed');
    expect(set.reasonOf('b')).toBe('kill -9');
  });

  it('a second failure while the first is being stored needs another, later generation', () => {
    const set = new ReplicaSet(fresh('a', 'b', 'c'));
    set.fail('b', 'x');
    const first = set.propose();
    set.fail('c', 'y');
    if (first !== undefined) set.stored(first);
    expect(set.settled).toBe(false);
    const second = set.propose();
    expect(second?.record.generation).toBe(3);
    expect(second?.storeOn).toEqual(['a']);
  });

  it('a generation that may have been stored somewhere is never proposed again', () => {
    const set = new ReplicaSet(fresh('a', 'b', 'c'));
    set.fail('b', 'x');
    const first = set.propose();
    if (first !== undefined) set.notStored(first, new Map([['c', 'timeout']]));
    const second = set.propose();
    expect(second?.record.generation).toBe(3);
    expect(second?.storeOn).toEqual(['a']);
  });

  it('the last member is never excluded: the volume is faulted and the record stays', () => {
    const set = new ReplicaSet(fresh('a'));
    set.fail('a', 'gone');
    expect(set.faulted).toBe(true);
    expect(set.propose()).toBeUndefined();
    expect(set.record.members[0]?.state).toBe('in-sync');
  });

  it('orders records by epoch, then generation', () => {
    expect(
      compareRecords({ epoch: 2, generation: 1 }, { epoch: 1, generation: 9 }),
    ).toBeGreaterThan(0);
    expect(compareRecords({ epoch: 2, generation: 1 }, { epoch: 2, generation: 2 })).toBeLessThan(
      0,
    );
    expect(compareRecords({ epoch: 2, generation: 2 }, { epoch: 2, generation: 2 })).toBe(0);
  });

  it('in any order of events: settled when no in-sync member failed; generations grow', () => {
    const step = fc.constantFrom(
      'fail-a',
      'fail-b',
      'fail-c',
      'fail-d',
      'propose',
      'stored',
      'not-stored',
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const set = new ReplicaSet(fresh('a', 'b', 'c', 'd'));
        const failed = new Set<string>();
        let underWay: ReturnType<ReplicaSet['propose']>;
        let newest = 1;
        for (const s of steps) {
          if (s.startsWith('fail-')) {
            set.fail(s.slice(5), 'x');
            failed.add(s.slice(5));
          } else if (s === 'propose') {
            const change = set.propose();
            if (change !== undefined) {
              expect(underWay).toBeUndefined();
              expect(change.record.generation).toBeGreaterThan(newest);
              expect(change.storeOn.some((id) => failed.has(id))).toBe(false);
              newest = change.record.generation;
              underWay = change;
            }
          } else if (underWay !== undefined) {
            if (s === 'stored') set.stored(underWay);
            else {
              const victim = underWay.storeOn[0] ?? 'a';
              set.notStored(underWay, new Map([[victim, 'y']]));
              failed.add(victim);
            }
            underWay = undefined;
          }
          const inSync = set.record.members.filter((m) => m.state === 'in-sync');
          expect(inSync.length).toBeGreaterThan(0);
          expect(set.settled).toBe(inSync.every((m) => !failed.has(m.replicaId)));
          expect(set.faulted).toBe(inSync.every((m) => failed.has(m.replicaId)));
        }
      }),
      { numRuns: 300 },
    );
  });
});
