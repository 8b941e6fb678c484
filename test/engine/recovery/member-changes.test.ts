/** Members added and taken off on request (P3, R4): over the real state machine, with copies,
 *  daemons and returns in the test's hands. */
import { describe, expect, it } from 'vitest';
import { StorageError } from '../../../common/errors.js';
import { CopiesAlone } from '../../../engine/core/membership-authority.js';
import { MembershipKeeper } from '../../../engine/core/membership-keeper.js';
import { type MemberState, ReplicaSet } from '../../../engine/core/replica-set.js';
import { DEFAULT_TUNING, type EngineConfig } from '../../../engine/engine-config.js';
import type { EngineEnvironment } from '../../../engine/engine-environment.js';
import { EventLog } from '../../../engine/events/event-log.js';
import { MemberChanges } from '../../../engine/recovery/member-changes.js';
import type { ReplicaControl } from '../../../proto/control.js';
import { ManualClock } from '../../common/manual-clock.js';

const NEW = '127.0.0.1:4';

class Bed {
  readonly clock = new ManualClock();
  /** what was done, in order */
  readonly did: string[] = [];
  readonly away = new Map();
  readonly unequal = { active: false };
  /** replica on the daemon at an address; undefined: the daemon is blank; missing: nobody there */
  readonly daemons = new Map<string, string | undefined>([[NEW, undefined]]);
  /** how often a deletion is refused as still in use */
  busy = 0;
  readonly events = new EventLog(this.clock);
  readonly keeper: MembershipKeeper;
  readonly changes: MemberChanges;

  constructor(members: Readonly<Record<string, MemberState>>) {
    const record = {
      ...{ epoch: 3, generation: 7, engineId: 'e', era: 0 },
      members: Object.entries(members).map(([replicaId, state], n) => ({
        ...{ replicaId, state, address: `127.0.0.1:${n + 1}` },
      })),
    };
    for (const { replicaId, address } of record.members) this.daemons.set(address, replicaId);
    this.keeper = new MembershipKeeper({
      ...{ set: new ReplicaSet(record), authority: new CopiesAlone(record), clock: this.clock },
      settleDeadlineMs: 60_000,
      copies: {
        store: async ({ generation }, storeOn) => {
          this.did.push(`store ${generation} on ${storeOn.join(',')}`);
          return new Map();
        },
      },
      events: {
        onFailed: (id) => void this.did.push(`failed ${id}`),
        onStored: () => undefined,
        onStalled: () => undefined,
        onFaulted: () => void this.did.push('faulted'),
        onFenced: () => undefined,
      },
    });
    this.changes = this.#makeChanges();
  }

  #makeChanges(): MemberChanges {
    const config: EngineConfig = {
      ...{ volume: 'v', sizeBytes: undefined, replicas: [], salvage: false, tls: undefined },
      tuning: DEFAULT_TUNING,
    };
    return new MemberChanges({
      ...{ config, events: this.events, keeper: this.keeper, epoch: 3, known: new Map() },
      environment: {
        clock: this.clock,
        network: { control: (address: string) => this.#control(address) },
      } as unknown as EngineEnvironment,
      data: {
        ...{ table: { away: this.away }, unequal: this.unequal },
        forgetIndex: (id) => void this.did.push(`forget index ${id}`),
      },
      returns: {
        join: async (address) => {
          this.did.push(`join ${address}`);
          return 'r-new';
        },
        release: async (id) => void this.did.push(`release ${id}`),
        want: (id) => void this.did.push(`want ${id}`),
        forget: (id) => void this.did.push(`forget ${id}`),
      },
    });
  }

  #control(address: string): ReplicaControl {
    const volume = 'v';
    return {
      identify: async () => {
        if (!this.daemons.has(address)) throw new StorageError('UNAVAILABLE', 'refused');
        const replicaId = this.daemons.get(address);
        return { replicas: replicaId === undefined ? [] : [{ volume, replicaId }] };
      },
      deleteReplica: async ({ replicaId, epoch }: { replicaId: string; epoch: number }) => {
        if (this.busy > 0) {
          this.busy -= 1;
          throw new StorageError('CONFLICT', 'in use');
        }
        if (!this.daemons.has(address)) throw new StorageError('UNAVAILABLE', 'refused');
        this.did.push(`delete ${replicaId} at ${address}, epoch ${epoch}`);
        return {};
      },
      close: () => undefined,
    } as unknown as ReplicaControl;
  }

  leave(replicaId: string, deleteData = false, address = '') {
    return this.changes.leave({ replicaId, deleteData, address });
  }
}

const IN_SYNC = { a: 'in-sync', b: 'in-sync' } as const;

describe('replica add', () => {
  it.each([
    ['a blank daemon', NEW, 'ok'],
    ['nobody there', '127.0.0.1:9', 'UNAVAILABLE'],
    ['no address', 'nowhere', 'INVALID_ARGUMENT'],
    ['plain TCP beyond this host', '10.0.0.4:9601', 'PERMISSION'],
    ['a daemon that has a member', '127.0.0.1:1', 'ALREADY_EXISTS'],
  ])('%s: %s is %s', async (_name, address, want) => {
    const bed = new Bed(IN_SYNC);
    const outcome = await bed.changes.join(address).then(
      () => 'ok',
      (error: StorageError) => error.code,
    );
    expect(outcome).toBe(want);
    expect(bed.did).toEqual(want === 'ok' ? [`join ${NEW}`] : []);
  });

  it('tells how to free a daemon that holds a copy that was taken off', async () => {
    const bed = new Bed(IN_SYNC);
    bed.daemons.set(NEW, 'r-old');
    await expect(bed.changes.join(NEW)).rejects.toMatchObject({
      code: 'ALREADY_EXISTS',
      details: {
        hint: `aurochs replica remove v r-old --delete-data --address ${NEW}`,
      },
    });
  });

  it('does not record a second member where one is still to be made', async () => {
    const bed = new Bed({ ...IN_SYNC, c: 'rebuilding' });
    bed.daemons.set('127.0.0.1:3', undefined);
    await expect(bed.changes.join('127.0.0.1:3')).rejects.toMatchObject({
      code: 'ALREADY_EXISTS',
    });
  });
});

describe('replica remove', () => {
  it('of one that is out: one change of the record, and its attempts end first', async () => {
    const bed = new Bed({ ...IN_SYNC, c: 'failed' });
    bed.away.set('c', undefined);
    const left = await bed.leave('c');
    expect(bed.did).toEqual(['release c', 'store 8 on a,b', 'forget c', 'forget index c']);
    expect(bed.keeper.set.record.members.map((m) => m.replicaId)).toEqual(['a', 'b']);
    expect(bed.away.size).toBe(0);
    expect(left).toEqual({ dataDeleted: false, dataAddress: '127.0.0.1:3', note: '' });
  });

  it('P3: of one in use excludes it durably before the record forgets it', async () => {
    const bed = new Bed(IN_SYNC);
    await bed.leave('a');
    expect(bed.did).toEqual([
      ...['release a', 'failed a', 'store 8 on b', 'store 9 on b'],
      ...['forget a', 'forget index a'],
    ]);
    expect(bed.keeper.set.healthy()).toEqual(['b']);
  });

  it('R4: never of the last in-sync copy', async () => {
    const bed = new Bed({ a: 'in-sync', b: 'failed' });
    await expect(bed.leave('a')).rejects.toMatchObject({ code: 'CONFLICT' });
    expect(bed.did).toEqual([]);
  });

  it('R4: of two at once only one goes', async () => {
    const bed = new Bed(IN_SYNC);
    const outcomes = await Promise.allSettled([bed.leave('a'), bed.leave('b')]);
    expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'rejected']);
    expect(bed.keeper.set.healthy()).toEqual(['b']);
  });

  it('P5: of none in use while the copies are being made equal', async () => {
    const bed = new Bed({ ...IN_SYNC, c: 'failed' });
    bed.unequal.active = true;
    await expect(bed.leave('a')).rejects.toMatchObject({ code: 'CONFLICT' });
    await expect(bed.leave('c')).resolves.toMatchObject({ dataDeleted: false });
  });

  it('wants the member back when the record could not be changed', async () => {
    const bed = new Bed({ ...IN_SYNC, c: 'failed' });
    bed.keeper.stop();
    await expect(bed.leave('c')).rejects.toMatchObject({ code: 'CLOSED' });
    expect(bed.did.at(-1)).toBe('want c');
  });

  it('deletes the data only after the record has forgotten the member', async () => {
    const bed = new Bed({ ...IN_SYNC, c: 'failed' });
    const left = await bed.leave('c', true);
    expect(bed.did.slice(-2)).toEqual(['forget index c', 'delete c at 127.0.0.1:3, epoch 3']);
    expect(left).toEqual({ dataDeleted: true, dataAddress: '', note: '' });
  });

  it('says why the data could not be deleted; the member is off all the same', async () => {
    const bed = new Bed({ ...IN_SYNC, c: 'failed' });
    bed.daemons.delete('127.0.0.1:3');
    const left = await bed.leave('c', true);
    expect(left).toMatchObject({ dataDeleted: false, note: 'UNAVAILABLE: refused' });
    expect(bed.keeper.set.roleOf('c')).toBeUndefined();
  });

  it('waits until the daemon has seen the end of our stream', async () => {
    const bed = new Bed(IN_SYNC);
    bed.busy = 3;
    const leaving = bed.leave('a', true);
    for (let turn = 0; turn < 100; turn += 1) {
      await new Promise(setImmediate);
      bed.clock.advance(200);
    }
    expect(await leaving).toMatchObject({ dataDeleted: true });
  });

  it('of no member: at most deletes what is named with its address', async () => {
    const bed = new Bed(IN_SYNC);
    bed.daemons.set(NEW, 'r-old');
    await expect(bed.leave('r-old')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(bed.leave('r-old', false, NEW)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(bed.leave('r-old', true, '10.0.0.4:1')).rejects.toMatchObject({
      code: 'PERMISSION',
    });
    expect(await bed.leave('r-old', true, NEW)).toMatchObject({ dataDeleted: true });
    expect(bed.did).toEqual([`delete r-old at ${NEW}, epoch 3`]);
  });
});
