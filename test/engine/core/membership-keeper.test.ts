import { describe, expect, it } from 'vitest';
import { type ErrorCode, StorageError } from '../../../common/errors.js';
import type {
  CommitOutcome,
  MembershipAuthority,
} from '../../../engine/core/membership-authority.js';
import { MembershipKeeper } from '../../../engine/core/membership-keeper.js';
import {
  compareRecords,
  type MemberState,
  type MembershipRecord,
  type RecordVersion,
  ReplicaSet,
} from '../../../engine/core/replica-set.js';
import { ManualClock } from '../../common/manual-clock.js';
import { outcome, turns } from '../../support/engine-bed.js';

/** What becomes of one commit. */
type Fate = 'stored' | 'refused' | 'lost-request' | 'lost-answer' | 'never';

/** A store somewhere else, with a network in between. */
class ScriptedAuthority implements MembershipAuthority {
  record: MembershipRecord;
  /** of the commits to come; afterwards all are stored */
  fates: Fate[] = [];
  /** reads that fail before one answers */
  deafReads = 0;
  readonly calls: string[] = [];

  constructor(record: MembershipRecord) {
    this.record = record;
  }

  async commit(expected: RecordVersion, next: MembershipRecord): Promise<CommitOutcome> {
    const fate = this.fates.shift() ?? 'stored';
    this.calls.push(`commit ${expected.generation}->${next.generation}: ${fate}`);
    if (fate === 'never') return new Promise(() => undefined);
    if (fate === 'lost-request') throw new StorageError('UNAVAILABLE', 'not reached');
    const matches = compareRecords(this.record, expected) === 0;
    if (fate === 'refused' || !matches) return { kind: 'superseded', record: this.record };
    this.record = next;
    if (fate === 'lost-answer') throw new StorageError('DEADLINE', 'no answer');
    return { kind: 'stored' };
  }

  async read(): Promise<MembershipRecord> {
    this.calls.push('read');
    if (this.deafReads > 0) {
      this.deafReads -= 1;
      throw new StorageError('UNAVAILABLE', 'not reached');
    }
    return this.record;
  }
}

const EPOCH = 7;
const members = (states: Record<string, MemberState>) =>
  Object.entries(states).map(([replicaId, state]) => ({ replicaId, address: '', state }));
const recordOf = (states: Record<string, MemberState>): MembershipRecord => ({
  ...{ epoch: EPOCH, generation: 1, engineId: 'e', era: 0, members: members(states) },
});

const THREE = { a: 'in-sync', b: 'in-sync', c: 'in-sync' } as const;

/** A keeper with everything around it in the test's hands. */
class KeeperBed {
  readonly clock = new ManualClock();
  readonly told: string[] = [];
  readonly stores: Array<{ generation: number; on: readonly string[] }> = [];
  /** code with which a member cannot store, and the epoch that it names */
  readonly bad = new Map<string, { code: ErrorCode; epoch?: number }>();
  /** what storing on the members waits for */
  storing: Promise<void> = Promise.resolve();
  readonly set: ReplicaSet;
  readonly authority: ScriptedAuthority;
  readonly keeper: MembershipKeeper;

  constructor(states: Record<string, MemberState> = THREE) {
    this.set = new ReplicaSet(recordOf(states));
    this.authority = new ScriptedAuthority(this.set.record);
    this.keeper = new MembershipKeeper({
      ...{ set: this.set, authority: this.authority, clock: this.clock, settleDeadlineMs: 30_000 },
      copies: { store: (record, on) => this.#store(record.generation, on) },
      events: {
        onFailed: (id, error) => this.told.push(`failed ${id}: ${error.code}`),
        onStored: (change) => this.told.push(`stored ${change.record.generation}`),
        onStalled: (error) => this.told.push(`stalled: ${error.code}`),
        onFaulted: (error) => this.told.push(`faulted: ${error.code}`),
        onFenced: (error) => this.told.push(`fenced: ${error.code}`),
      },
    });
  }

  async #store(generation: number, on: readonly string[]) {
    this.stores.push({ generation, on });
    await this.storing;
    const failed = [...this.bad].filter(([id]) => on.includes(id));
    return new Map(
      failed.map(([id, { code, epoch }]) => {
        return [id, new StorageError(code, `no ${id}`, epoch === undefined ? {} : { epoch })];
      }),
    );
  }

  fail(id: string, code: ErrorCode = 'UNAVAILABLE', details: { epoch?: number } = {}): void {
    this.keeper.fail(id, new StorageError(code, `${id} is gone`, details));
  }

  /** Ends what storing waits for. */
  holdStoring(): () => void {
    let go = (): void => undefined;
    this.storing = new Promise((resolve) => {
      go = resolve;
    });
    return go;
  }
}

describe('an exclusion (P3)', () => {
  it('is in the authority first, then on all that remain; then what waits goes on', async () => {
    const bed = new KeeperBed();
    const go = bed.holdStoring();
    bed.fail('c');
    let settled = false;
    const waiting = bed.keeper.whenSettled().then(() => {
      settled = true;
    });
    await turns(3);
    expect(bed.authority.calls).toEqual(['commit 1->2: stored']);
    expect(bed.stores).toEqual([{ generation: 2, on: ['a', 'b'] }]);
    expect(settled).toBe(false);
    go();
    await waiting;
    expect(bed.told).toEqual(['failed c: UNAVAILABLE', 'stored 2']);
    expect(await outcome(bed.keeper.whenSettled())).toBe('ok');
    expect(bed.clock.pending).toBe(0);
  });

  it('that a member cannot store excludes that one, too', async () => {
    const bed = new KeeperBed();
    bed.bad.set('b', { code: 'DEADLINE' });
    bed.fail('c');
    await bed.keeper.changed();
    expect(bed.stores).toEqual([
      { generation: 2, on: ['a', 'b'] },
      { generation: 3, on: ['a'] },
    ]);
    expect(bed.authority.calls).toEqual(['commit 1->2: stored', 'commit 2->3: stored']);
    expect(bed.set.healthy()).toEqual(['a']);
  });

  it('nobody can store: the volume is faulted, the waiting fail with NO_REPLICA', async () => {
    const bed = new KeeperBed();
    for (const id of ['a', 'b']) bed.bad.set(id, { code: 'DEADLINE' });
    bed.fail('c');
    expect(await outcome(bed.keeper.whenSettled())).toBe('NO_REPLICA');
    expect(bed.told.at(-1)).toBe('faulted: NO_REPLICA');
    expect(await outcome(bed.keeper.changed())).toBe('NO_REPLICA');
    expect(bed.clock.pending).toBe(0);
  });

  it('of a second member that fails meanwhile follows, and only then is all settled', async () => {
    const bed = new KeeperBed();
    const go = bed.holdStoring();
    bed.fail('c');
    await turns(3);
    bed.fail('b');
    const settled = outcome(bed.keeper.whenSettled());
    go();
    expect(await settled).toBe('ok');
    expect(bed.stores.map((s) => s.on)).toEqual([['a', 'b'], ['a']]);
    expect(bed.told).toEqual([
      'failed c: UNAVAILABLE',
      'failed b: UNAVAILABLE',
      'stored 2',
      'stored 3',
    ]);
  });

  it('a failure told twice, of a stranger, or after the end, is no news', async () => {
    const bed = new KeeperBed();
    bed.fail('c');
    bed.fail('c');
    bed.fail('x');
    await bed.keeper.changed();
    bed.keeper.stop();
    bed.fail('b');
    expect(bed.told).toEqual(['failed c: UNAVAILABLE', 'stored 2']);
  });
});

describe('an authority that cannot be reached (scenario 26)', () => {
  it.each([
    {
      name: 'the request was lost',
      fates: ['lost-request'] as Fate[],
      calls: ['commit 1->2: lost-request', 'read', 'commit 1->2: stored'],
    },
    {
      name: 'the answer was lost: read back, not stored again',
      fates: ['lost-answer'] as Fate[],
      calls: ['commit 1->2: lost-answer', 'read'],
    },
    {
      name: 'lost, lost again, then stored',
      fates: ['lost-request', 'lost-request', 'lost-answer'] as Fate[],
      calls: [
        'commit 1->2: lost-request',
        ...['read', 'commit 1->2: lost-request', 'read', 'commit 1->2: lost-answer', 'read'],
      ],
    },
  ])('nothing is acknowledged until the outcome is known: $name', async ({ fates, calls }) => {
    const bed = new KeeperBed();
    bed.authority.fates = [...fates];
    bed.fail('c');
    let settled = false;
    const waiting = bed.keeper.whenSettled().then(() => {
      settled = true;
    });
    await turns(3);
    expect(bed.told).toEqual(['failed c: UNAVAILABLE', `stalled: ${bed.told[1]?.slice(9)}`]);
    for (let n = 0; n < fates.length; n += 1) {
      expect(settled).toBe(false);
      expect(bed.stores).toEqual([]);
      bed.clock.advance(500);
      await turns(3);
    }
    await waiting;
    expect(bed.authority.calls).toEqual(calls);
    expect(bed.stores).toHaveLength(1);
  });

  it('a read back that fails is no answer either', async () => {
    const bed = new KeeperBed();
    bed.authority.fates = ['lost-answer'];
    bed.authority.deafReads = 2;
    bed.fail('c');
    for (let n = 0; n < 3; n += 1) {
      await turns(3);
      expect(bed.stores).toEqual([]);
      bed.clock.advance(500);
    }
    await turns(3);
    expect(bed.stores).toHaveLength(1);
  });

  it('who waits too long fails with DEADLINE; the change goes on (N5)', async () => {
    const bed = new KeeperBed();
    bed.authority.fates = ['never'];
    bed.fail('c');
    const first = outcome(bed.keeper.whenSettled());
    bed.clock.advance(29_999);
    const second = outcome(bed.keeper.whenSettled());
    bed.clock.advance(1);
    expect(await first).toBe('DEADLINE');
    expect(bed.set.settled).toBe(false);
    bed.keeper.stop();
    expect(await second).toBe('CLOSED');
    expect(bed.clock.pending).toBe(0);
  });

  it('stopped while it waits: all who wait are told, nothing is left', async () => {
    const bed = new KeeperBed();
    bed.authority.fates = ['never'];
    bed.fail('c');
    const settled = outcome(bed.keeper.whenSettled());
    const changed = outcome(bed.keeper.changed());
    await turns(3);
    bed.keeper.stop();
    expect(await settled).toBe('CLOSED');
    expect(await Promise.race([changed, turns(5).then(() => 'waits')])).toBe('CLOSED');
    expect(bed.told).toEqual(['failed c: UNAVAILABLE']);
  });
});

describe('another engine has the volume (R5)', () => {
  it.each([
    { name: 'the authority has another record', fates: ['refused'] as Fate[] },
    { name: 'as the read back shows', fates: ['lost-request'] as Fate[] },
  ])('$name: fenced, nothing more is decided', async ({ fates }) => {
    const bed = new KeeperBed();
    bed.authority.fates = [...fates];
    bed.authority.record = { ...bed.set.record, epoch: EPOCH + 1, engineId: 'other' };
    bed.fail('c');
    const settled = outcome(bed.keeper.whenSettled());
    await turns(3);
    bed.clock.advance(500);
    expect(await settled).toBe('STALE_EPOCH');
    expect(bed.told.at(-1)).toBe('fenced: STALE_EPOCH');
    expect(bed.stores).toEqual([]);
    bed.fail('b');
    expect(bed.set.roleOf('b')).toBe('in-sync');
  });

  it.each([
    { name: 'a link ends with a higher epoch', epoch: EPOCH + 1, how: 'link' as const },
    { name: 'a link ends and names no epoch', epoch: undefined, how: 'link' as const },
    {
      name: 'a member that is to store has a higher epoch',
      epoch: EPOCH + 1,
      how: 'store' as const,
    },
  ])('$name: fenced', async ({ epoch, how }) => {
    const bed = new KeeperBed();
    const details = epoch === undefined ? {} : { epoch };
    if (how === 'store') bed.bad.set('b', { code: 'STALE_EPOCH', ...details });
    bed.fail('c', how === 'link' ? 'STALE_EPOCH' : 'UNAVAILABLE', details);
    expect(await outcome(bed.keeper.changed())).toBe('STALE_EPOCH');
    expect(bed.told.at(-1)).toBe('fenced: STALE_EPOCH');
  });

  it.each(['link', 'store'] as const)(
    'P7: a daemon that has restarted refuses, too, and fences nobody (%s)',
    async (how) => {
      const bed = new KeeperBed();
      if (how === 'store') bed.bad.set('b', { code: 'STALE_EPOCH', epoch: EPOCH });
      bed.fail('c', how === 'link' ? 'STALE_EPOCH' : 'UNAVAILABLE', { epoch: EPOCH });
      expect(await outcome(bed.keeper.changed())).toBe('ok');
      expect(bed.keeper.ended).toBeUndefined();
      expect(bed.set.healthy()).toEqual(how === 'store' ? ['a'] : ['a', 'b']);
    },
  );
});

describe('a promotion (P6)', () => {
  const TWO = { a: 'in-sync', b: 'in-sync', c: 'failed' } as const;
  const attached = (): KeeperBed => {
    const bed = new KeeperBed(TWO);
    bed.set.attach('c');
    return bed;
  };

  it('resolves once stored on all, the promoted one too; writes go on meanwhile', async () => {
    const bed = attached();
    const go = bed.holdStoring();
    const promoted = outcome(bed.keeper.promote('c'));
    await turns(3);
    expect(bed.stores).toEqual([{ generation: 2, on: ['a', 'b', 'c'] }]);
    expect(await outcome(bed.keeper.whenSettled())).toBe('ok');
    go();
    expect(await promoted).toBe('ok');
    expect(bed.set.healthy()).toEqual(['a', 'b', 'c']);
  });

  it('of one that fails meanwhile is refused, and undone before the next ack', async () => {
    const bed = attached();
    const go = bed.holdStoring();
    const promoted = outcome(bed.keeper.promote('c'));
    await turns(3);
    bed.fail('c', 'IO_ERROR');
    expect(await promoted).toBe('IO_ERROR');
    const settled = outcome(bed.keeper.whenSettled());
    go();
    expect(await settled).toBe('ok');
    expect(bed.stores.map((s) => s.on)).toEqual([
      ['a', 'b', 'c'],
      ['a', 'b'],
    ]);
    expect(bed.set.roleOf('c')).toBe('out');
  });

  it('that another one cannot store goes on with the exclusion of that one', async () => {
    const bed = attached();
    bed.bad.set('b', { code: 'DEADLINE' });
    expect(await outcome(bed.keeper.promote('c'))).toBe('ok');
    expect(bed.set.healthy()).toEqual(['a', 'c']);
    expect(bed.told).toEqual(['failed b: DEADLINE', 'stored 3']);
  });

  it('that itself cannot store is refused with the reason', async () => {
    const bed = attached();
    bed.bad.set('c', { code: 'IO_ERROR' });
    expect(await outcome(bed.keeper.promote('c'))).toBe('IO_ERROR');
    await bed.keeper.changed();
    expect(bed.set.healthy()).toEqual(['a', 'b']);
  });

  it('fails when the last in-sync member is lost meanwhile', async () => {
    const bed = attached();
    bed.holdStoring();
    const promoted = outcome(bed.keeper.promote('c'));
    await turns(3);
    bed.fail('a');
    bed.fail('b');
    expect(await promoted).toBe('NO_REPLICA');
    expect(bed.told.at(-1)).toBe('faulted: NO_REPLICA');
    expect(await outcome(bed.keeper.promote('c'))).toBe('NO_REPLICA');
  });
});

it('`changed` waits for a member that joins and one that leaves', async () => {
  const bed = new KeeperBed({ a: 'in-sync', b: 'failed' });
  bed.set.join('n', 'host:1');
  bed.set.leave('b');
  await bed.keeper.changed();
  expect(bed.set.record.members.map((m) => m.replicaId)).toEqual(['a', 'n']);
  expect(bed.stores).toEqual([{ generation: 2, on: ['a'] }]);
  await bed.keeper.changed();
  expect(bed.stores).toHaveLength(1);
});
