/**
 * The data path of one volume: everything that outlives a tenure.
 *
 * Frontends hold on to `volume` for the life of the engine; tenures come and go below it. Between
 * them operations wait here with their range locks held.
 */
import type { BufferPool } from '../common/block-device.js';
import type { StorageError } from '../common/errors.js';
import { Gate } from '../common/gate.js';
import { MIB } from '../common/units.js';
import { crc32cBlocks, crc32cVerify } from '../native/index.js';
import { BlockRepair } from './core/block-repair.js';
import { DirtyTracker } from './core/dirty-tracker.js';
import { Fanout } from './core/fanout.js';
import { LinkTable } from './core/link-table.js';
import { MapReader } from './core/map-reader.js';
import type { MembershipKeeper } from './core/membership-keeper.js';
import { RangeLock } from './core/range-lock.js';
import { type LeaseMember, ReadLease } from './core/read-lease.js';
import { ReadPath } from './core/read-path.js';
import { RegionCleaner } from './core/region-cleaner.js';
import type { ReplicaLink } from './core/replica-link.js';
import { EngineVolume } from './core/volume.js';
import type { EngineConfig } from './engine-config.js';
import type { EngineEnvironment } from './engine-environment.js';
import { operationObservers } from './engine-metrics.js';
import type { EventLog } from './events/event-log.js';
import { Pacer } from './recovery/pacer.js';
import { UnequalExtents } from './recovery/unequal-extents.js';

/** Messages that arrive in pieces are put together here; past it ordinary memory is used. */
const RECEIVE_POOL_BYTES = 32 * MIB;
const WINDOW_BYTES = 16 * MIB;
const WINDOW_REQUESTS = 1024;

export interface DataPathOptions {
  readonly config: EngineConfig;
  readonly environment: EngineEnvironment;
  readonly events: EventLog;
  readonly onBadCopy: (link: ReplicaLink, error: StorageError, offsetBytes: number) => void;
  readonly onRepaired: (link: ReplicaLink, offsetBytes: number) => void;
}

export class DataPath {
  readonly table = new LinkTable();
  readonly lock = new RangeLock();
  readonly tracker = new DirtyTracker();
  readonly background = new Gate('background work');
  readonly pool: BufferPool;
  readonly lease: ReadLease;
  readonly fanout: Fanout;
  readonly reads: ReadPath;
  readonly repair: BlockRepair;
  readonly cleaner: RegionCleaner;
  readonly unequal: UnequalExtents;
  readonly pacer: Pacer;
  readonly volume: EngineVolume;
  /** members whose confirmation the read lease needs; set by the tenure */
  leaseMembers: () => readonly LeaseMember[] | undefined = () => undefined;
  /** every suspect extent is equal and flushed on all members; set by the tenure */
  onEqual: () => void = () => undefined;
  readonly #indices = new Map<string, number>();
  #nextId = 0;

  constructor(options: DataPathOptions, sizeBytes: number) {
    const { config, environment, events } = options;
    const { clock, log, endOfTurn } = environment;
    const { tuning } = config;
    const { table, lock, tracker } = this;
    this.pool = environment.createPool(RECEIVE_POOL_BYTES);
    this.lease = new ReadLease({
      clock,
      leaseMs: tuning.leaseMs,
      members: () => this.leaseMembers(),
    });
    this.unequal = new UnequalExtents({
      ...{ clock, log },
      onDone: () => {
        events.add('recovered', 'all members are equal');
        this.onEqual();
      },
    });
    const gate = this.unequal;
    this.fanout = new Fanout({
      ...{ table, gate, clock, endOfTurn, checksumBlocks: crc32cBlocks },
      nextId: () => this.drawId(),
      windowBytes: WINDOW_BYTES,
      windowRequests: WINDOW_REQUESTS,
    });
    this.reads = new ReadPath({
      ...{ table, gate, lease: this.lease, clock, verifyBlocks: crc32cVerify },
      onBadCopy: options.onBadCopy,
    });
    this.repair = new BlockRepair({
      ...{ lock, log, reads: this.reads, equal: gate, gate: this.background },
      onTouched: (offset, length) => tracker.touch(offset, length, clock.nowMs()),
      onRepaired: options.onRepaired,
    });
    const volumeBytes = (): number => this.volume.sizeBytes;
    this.cleaner = new RegionCleaner({
      ...{ tracker, lock, table, gate, clock, log, volumeBytes, fanout: this.fanout },
      idleMs: tuning.cleanIdleMs,
      intervalMs: tuning.cleanIntervalMs,
    });
    this.volume = new EngineVolume({
      ...{ name: config.volume, sizeBytes, lock, tracker, gate, clock },
      ...{ fanout: this.fanout, reads: this.reads, maps: new MapReader(this.reads) },
      observe: operationObservers(environment.registry, config.volume),
    });
    this.pacer = new Pacer({
      ...{ clock, policy: tuning.pacer },
      lastClientMs: () => this.volume.lastOperationMs,
    });
  }

  /** Ids grow over the life of the engine: unique on every stream. */
  drawId(): number {
    this.#nextId += 1;
    return this.#nextId;
  }

  /** A small number of its own for each member, the same whenever it comes back. */
  indexOf(replicaId: string): number {
    let index = this.#indices.get(replicaId);
    if (index !== undefined) return index;
    const taken = new Set(this.#indices.values());
    index = 0;
    while (taken.has(index)) index += 1;
    this.#indices.set(replicaId, index);
    return index;
  }

  forgetIndex(replicaId: string): void {
    this.#indices.delete(replicaId);
  }

  /** Operations wait from now on. */
  suspend(): void {
    this.fanout.suspend();
    this.reads.suspend();
  }

  /** Operations go on, with what waited first. */
  resume(keeper: MembershipKeeper): void {
    this.fanout.resume(keeper);
    this.reads.resume();
  }

  /** Between tenures: what waits fails with `error`, and so does what comes, until `resume`. */
  refuse(error: StorageError): void {
    this.unequal.refuse(error);
    this.fanout.refuse(error);
    this.reads.refuse(error);
  }
}
