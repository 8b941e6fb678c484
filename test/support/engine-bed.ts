/** The engine's data path over replicas in memory, wired as a tenure wires it, with the membership
 *  in the test's hands. */
import { pino } from 'pino';
import { expect } from 'vitest';
import { type Clock, SystemClock } from '../../common/clock.js';
import { StorageError } from '../../common/errors.js';
import { MIB } from '../../common/units.js';
import { DirtyTracker } from '../../engine/core/dirty-tracker.js';
import type { EqualGate } from '../../engine/core/equal-gate.js';
import { Fanout } from '../../engine/core/fanout.js';
import { LinkTable } from '../../engine/core/link-table.js';
import { MapReader } from '../../engine/core/map-reader.js';
import { CopiesAlone } from '../../engine/core/membership-authority.js';
import { MembershipKeeper } from '../../engine/core/membership-keeper.js';
import type { MissedWrites } from '../../engine/core/missed-writes.js';
import { RangeLock } from '../../engine/core/range-lock.js';
import { ReadLease } from '../../engine/core/read-lease.js';
import { ReadPath } from '../../engine/core/read-path.js';
import { RegionCleaner } from '../../engine/core/region-cleaner.js';
import { ReplicaLink } from '../../engine/core/replica-link.js';
import { type MembershipRecord, ReplicaSet } from '../../engine/core/replica-set.js';
import { EngineVolume } from '../../engine/core/volume.js';
import { crc32cBlocks, crc32cVerify } from '../../native/index.js';
import { FakeReplica } from './fake-replica.js';

export const SIZE = 4 * MIB;

export const ALL_EQUAL: EqualGate = {
  active: false,
  pending: () => undefined,
  touchesRegion: () => false,
};

export interface StoredChange {
  readonly record: MembershipRecord;
  readonly storeOn: readonly string[];
}

export interface BedTuning {
  readonly opDeadlineMs?: number;
  readonly leaseMs?: number;
  readonly settleDeadlineMs?: number;
  readonly clock?: Clock;
  readonly gate?: EqualGate;
  readonly sizeBytes?: number;
}

export class EngineBed {
  readonly replicas: FakeReplica[];
  readonly table = new LinkTable();
  readonly changes: StoredChange[] = [];
  readonly bad: string[] = [];
  /** what storing a record waits for */
  storing: Promise<void> = Promise.resolve();
  storeFails = new Map<string, string>();
  /** with no member left: fail what comes, or let it wait for a new tenure */
  whenLost: 'refuse' | 'wait' = 'refuse';
  set: ReplicaSet;
  keeper: MembershipKeeper;
  readonly fanout: Fanout;
  readonly reads: ReadPath;
  readonly lease: ReadLease;
  readonly volume: EngineVolume;
  readonly cleaner: RegionCleaner;
  readonly tracker = new DirtyTracker();
  readonly lock = new RangeLock();
  readonly clock: Clock;
  readonly gate: EqualGate;
  readonly sizeBytes: number;
  #id = 0;

  constructor(
    readonly count: number,
    readonly tuning: BedTuning = {},
  ) {
    this.clock = tuning.clock ?? new SystemClock();
    this.gate = tuning.gate ?? ALL_EQUAL;
    const { clock, gate } = this;
    const ids = ['a', 'b', 'c', 'd'].slice(0, count);
    this.sizeBytes = tuning.sizeBytes ?? SIZE;
    this.replicas = ids.map((id) => new FakeReplica(id, this.sizeBytes, crc32cBlocks));
    const members = ids.map((id) => ({ replicaId: id, address: '', state: 'in-sync' as const }));
    const record = { epoch: 1, generation: 1, engineId: 'e', era: 0, members };
    this.set = new ReplicaSet(record);
    this.keeper = this.#makeKeeper();
    const { table, lock, tracker } = this;
    this.lease = new ReadLease({
      clock,
      leaseMs: tuning.leaseMs ?? 60_000,
      members: () => (this.set.settled ? table.inSync : undefined),
    });
    this.fanout = new Fanout({
      ...{ table, gate, clock, endOfTurn: setImmediate, checksumBlocks: crc32cBlocks },
      nextId: this.#nextId,
      windowBytes: 2 * MIB,
      windowRequests: 64,
    });
    this.reads = new ReadPath({
      ...{ table, gate, lease: this.lease, clock, verifyBlocks: crc32cVerify },
      onBadCopy: (link, error) => this.bad.push(`${link.replicaId}:${error.code}`),
    });
    this.volume = this.#makeVolume();
    this.cleaner = new RegionCleaner({
      ...{ tracker, lock, table, fanout: this.fanout, clock, gate },
      log: pino({ level: 'silent' }),
      volumeBytes: () => this.sizeBytes,
      idleMs: 0,
      intervalMs: 1000,
    });
    for (const index of this.replicas.keys()) this.table.add(this.connect(index), true);
    this.fanout.resume(this.keeper);
    this.reads.resume();
  }

  get links(): readonly ReplicaLink[] {
    return this.table.all;
  }

  readonly #nextId = (): number => {
    this.#id += 1;
    return this.#id;
  };

  #makeKeeper(): MembershipKeeper {
    return new MembershipKeeper({
      set: this.set,
      authority: new CopiesAlone(this.set.record),
      copies: { store: (record, storeOn) => this.#store({ record, storeOn }) },
      clock: this.clock,
      settleDeadlineMs: this.tuning.settleDeadlineMs ?? 60_000,
      events: {
        onFailed: (id) => {
          this.lease.reset();
          this.table.find(id)?.break(new StorageError('REPLICA_FAILED', id));
        },
        onStored: (change) => {
          for (const id of change.promoted) {
            const link = this.table.find(id);
            if (link !== undefined && this.set.roleOf(id) === 'in-sync') this.table.promote(link);
          }
          this.lease.reset();
          this.reads.leaseChanged();
        },
        onStalled: () => undefined,
        onFaulted: (error) => this.#onLost(error),
        onFenced: (error) => this.#onLost(error),
      },
    });
  }

  #onLost(error: StorageError): void {
    this.fanout.suspend();
    this.reads.suspend();
    if (this.whenLost === 'wait') return;
    this.fanout.refuse(error);
    this.reads.refuse(error);
  }

  async #store(change: StoredChange): Promise<ReadonlyMap<string, StorageError>> {
    this.changes.push(change);
    await this.storing;
    const failed = [...this.storeFails].filter(([id]) => change.storeOn.includes(id));
    return new Map(failed.map(([id, text]) => [id, new StorageError('DEADLINE', text)]));
  }

  /** A member that is out is attached again: it gets every change and is not read.
   *  @returns its new link, and what it has missed until now */
  attach(index: number): { readonly link: ReplicaLink; readonly missed: MissedWrites } {
    const link = this.connect(index);
    this.set.attach(link.replicaId);
    const missed = this.table.add(link, false);
    if (missed === undefined) throw new Error(`replica ${index} was not away`);
    return { link, missed };
  }

  /** Ends the tenure as its owner does: operations wait, then links and keeper go. */
  endTenure(error: StorageError): void {
    this.fanout.suspend();
    this.reads.suspend();
    this.keeper.stop();
    for (const link of [...this.table.all]) link.break(error);
    this.table.clear();
  }

  /** A new tenure over all replicas, as after they were lost. */
  reopen(): void {
    const { epoch } = this.set.record;
    this.set = new ReplicaSet({ ...this.set.record, epoch: epoch + 1 });
    this.keeper = this.#makeKeeper();
    this.table.clear();
    for (const [index, replica] of this.replicas.entries()) {
      const member = this.set.record.members.find((m) => m.replicaId === replica.replicaId);
      if (member?.state === 'in-sync') this.table.add(this.connect(index), true);
    }
    this.fanout.resume(this.keeper);
    this.reads.resume();
  }

  #makeVolume(): EngineVolume {
    const silent = () => undefined;
    return new EngineVolume({
      ...{ name: 'v', sizeBytes: this.sizeBytes, lock: this.lock, fanout: this.fanout },
      reads: this.reads,
      ...{ maps: new MapReader(this.reads), tracker: this.tracker },
      ...{ gate: this.gate, clock: this.clock },
      observe: {
        read: silent,
        write: silent,
        flush: silent,
        trim: silent,
        zero: silent,
        status: silent,
      },
    });
  }

  /** A link to a replica, in no list yet. */
  connect(index: number): ReplicaLink {
    const replica = this.replicas[index];
    if (replica === undefined) throw new Error(`no replica ${index}`);
    const { replicaId } = replica;
    const { clock } = this;
    const link: ReplicaLink = new ReplicaLink({
      ...{ index, replicaId, address: '', local: true, clock, endOfTurn: setImmediate },
      nextId: this.#nextId,
      ackedThrough: () => this.fanout.ackedThrough,
      checksumBlocks: crc32cBlocks,
      opDeadlineMs: this.tuning.opDeadlineMs ?? 60_000,
      keepaliveMs: 60_000,
      pingDeadlineMs: 60_000,
      onBroken: (broken, error) => {
        if (this.table.remove(broken)) this.keeper.fail(broken.replicaId, error);
      },
    });
    const stream = replica.connect({
      onMessage: (message) => {
        link.onMessage(message);
        this.reads.leaseChanged();
      },
      onDrain: () => undefined,
      onClose: (error) => link.onClose(error),
    });
    const hello = { protocolVersion: 1, volume: 'v', replicaId, epoch: 1, engineId: 'e' };
    link.attach(stream, hello).catch(() => undefined);
    link.confirmedMs = clock.nowMs();
    return link;
  }

  async read(offset: number, length: number): Promise<Buffer> {
    const result = await this.volume.read(offset, length);
    const bytes = Buffer.concat(result.chunks);
    result.release();
    return bytes;
  }

  write(offset: number, bytes: Buffer, fua = false): Promise<void> {
    return this.volume.write(offset, bytes.length, [bytes], { fua });
  }

  expectEqualCopies(): void {
    const [first, ...others] = this.replicas;
    for (const other of others) {
      expect(other.bytes.equals(first?.bytes ?? Buffer.alloc(0))).toBe(true);
    }
  }
}

export const fill = (length: number, value: number): Buffer => Buffer.alloc(length, value);

/** `ok`, or the code of what it failed with. */
export const outcome = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => 'ok',
    (error: unknown) => (error instanceof StorageError ? error.code : String(error)),
  );

/** Lets the event loop turn. */
export async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn += 1) await new Promise(setImmediate);
}
