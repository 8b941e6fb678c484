/** One replica in use: its durable record, and the store that carries its data. */
import { StorageError, toStorageError } from '../../common/errors.js';
import type { Membership } from '../../proto/control.js';
import type { ReplicaStore } from '../replica-store.js';
import { DirtyRegions } from '../store/dirty-regions.js';
import { ExtentStore } from '../store/extent-store.js';
import { replicaKey } from '../store/keys.js';
import type { BatchBuilder } from '../store/metadata-writer.js';
import { type DiskServices, StoreContext } from '../store/store-context.js';
import type { StoreCounters } from '../store/store-counters.js';
import type { ReplicaHandle, ReplicaRecord } from './disk.js';
import { rescanReplica, type ScannedReplica } from './metadata-scan.js';
import { howItWasLeft, type StoredReplica, storedReplicaBody } from './stored-replica.js';

export interface OpenedReplicaOptions {
  readonly services: DiskServices;
  readonly replica: ScannedReplica;
  /** of the disk */
  readonly incarnation: string;
  readonly bootId: string;
  /** why the disk can serve nobody any more */
  readonly diskFailure: () => StorageError | undefined;
  /** physical extents that no record names any more */
  readonly release: (physical: readonly number[]) => void;
  readonly onClosed: (replica: OpenedReplica) => void;
}

export class OpenedReplica implements ReplicaHandle {
  readonly counters: StoreCounters;
  readonly #options: OpenedReplicaOptions;
  readonly #replica: ScannedReplica;
  #context: StoreContext;
  #store: ExtentStore;
  /** the checksums of inherited dirty regions were true when they were loaded */
  #proven: boolean;
  #closing: Promise<void> | undefined;

  private constructor(options: OpenedReplicaOptions, proven: boolean) {
    this.#options = options;
    this.#replica = options.replica;
    this.counters = options.services.counters;
    this.#proven = proven;
    this.#context = this.#makeContext();
    this.#store = this.#makeStore();
  }

  /** P7, P10: judges how the replica was left, and notes durably who opened it, before anything is
   *  done with it. */
  static async open(options: OpenedReplicaOptions): Promise<OpenedReplica> {
    const { replica, bootId } = options;
    if (replica.outdated) await reload(options);
    const { record, dirtyRegions } = replica;
    const { lossy } = howItWasLeft(record, dirtyRegions.length, bootId);
    const handle = new OpenedReplica(options, record.closed);
    replica.loads += 1;
    const lastIncarnation = handle.incarnation;
    await handle.#change({ lossy, lastIncarnation, bootId, closed: false });
    return handle;
  }

  get volume(): string {
    return this.#replica.record.volume;
  }

  get replicaId(): string {
    return this.#replica.record.replicaId;
  }

  get sizeBytes(): number {
    return this.#replica.record.sizeBytes;
  }

  get record(): ReplicaRecord {
    return this.#replica.record;
  }

  get epoch(): number {
    return this.#replica.record.epoch;
  }

  get engineId(): string {
    return this.#replica.record.engineId;
  }

  get membership(): Membership {
    return this.#replica.record.membership;
  }

  get store(): ReplicaStore {
    return this.#store;
  }

  get incarnation(): string {
    return incarnationOf(this.#replica, this.#options.incarnation);
  }

  /** What others are told of how it was left. */
  get left(): { readonly lossy: boolean; readonly restartedDirty: boolean } {
    return { lossy: this.lossy, restartedDirty: this.restartedDirty };
  }

  get restartedDirty(): boolean {
    return this.#context.regions.inheritedCount > 0;
  }

  get lossy(): boolean {
    return this.#replica.record.lossy;
  }

  get dirtyCount(): number {
    return this.#context.regions.dirtyCount;
  }

  /** The disk has failed. */
  fail(cause: Error): void {
    this.#context.fail(cause);
  }

  async setEpoch(epoch: number, engineId: string): Promise<void> {
    const { record } = this.#replica;
    if (!Number.isSafeInteger(epoch) || epoch < record.epoch) {
      throw new StorageError(
        'STALE_EPOCH',
        `epoch ${epoch} of volume ${this.volume}: ${record.epoch} is stored`,
        { volume: this.volume, replica: this.replicaId, epoch: record.epoch },
      );
    }
    const news = epoch > record.epoch;
    const previousEngineId = news ? record.engineId : record.previousEngineId;
    await this.#change({ epoch, engineId, previousEngineId });
  }

  /** P10: a new era that names this replica in-sync accepts what it had lost. From then on it holds
   *  every acknowledged write again, and is as good a source as any. */
  async setMembership(membership: Membership): Promise<void> {
    const before = this.#replica.record;
    const own = membership.members.find((member) => member.replicaId === this.replicaId);
    const accepted = membership.era > before.membership.era && own?.state === 'in-sync';
    await this.#change(accepted ? { membership, lossy: false } : { membership });
  }

  async noteComplete(): Promise<void> {
    if (this.lossy) await this.#change({ lossy: false });
  }

  async reopen(): Promise<void> {
    this.#checkDisk();
    if (this.#closing !== undefined) throw this.#closedError();
    await this.#store.close({ save: false });
    this.#replica.outdated = true;
    await reload(this.#options);
    this.#replica.loads += 1;
    this.#proven = false;
    this.#context = this.#makeContext();
    this.#store = this.#makeStore();
    await this.#change({ lastIncarnation: this.incarnation });
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const { services, onClosed } = this.#options;
    try {
      await this.#store.close({ save: true });
      this.#replica.dirtyRegions = this.#context.regions.numbers();
      // What was never used since an unclean stop is as unproven as before.
      if (!this.#hasUnproven()) await this.#put({ closed: true });
    } catch (error) {
      this.#replica.outdated = true;
      const fact = { volume: this.volume, replica: this.replicaId, err: error };
      services.log.warn(fact, 'replica was not closed in order');
    }
    onClosed(this);
  }

  #hasUnproven(): boolean {
    const { regions, map } = this.#context;
    return regions
      .numbers()
      .some((region) =>
        regions.unproven(region).some((extent) => extent < map.extents && map.get(extent) !== -1),
      );
  }

  #makeContext(): StoreContext {
    const { record, number, map, dirtyRegions, tags } = this.#replica;
    const { volume, replicaId, sizeBytes } = record;
    const regions = new DirtyRegions(map.extents);
    for (const region of dirtyRegions) regions.inherit(region, this.#proven);
    const identity = { volume, replicaId, sizeBytes, number };
    return new StoreContext(this.#options.services, identity, { map, regions, tags });
  }

  #makeStore(): ExtentStore {
    return new ExtentStore(this.#context, (batch, lastOne) => {
      if (lastOne && this.#replica.record.lossy) this.#fill(batch, { lossy: false });
    });
  }

  async #change(change: Partial<StoredReplica>): Promise<void> {
    this.#checkDisk();
    if (this.#closing !== undefined) throw this.#closedError();
    await this.#put(change);
  }

  async #put(change: Partial<StoredReplica>): Promise<void> {
    const { writer } = this.#options.services;
    try {
      await writer.submit((batch) => this.#fill(batch, change), { sync: true });
    } catch (error) {
      throw toStorageError(error, `store record of volume ${this.volume}`);
    }
  }

  /** The record in memory changes when its batch is built; whoever reads it earlier than the answer
   *  sees what is about to be durable, and never something older than what is. */
  #fill(batch: BatchBuilder, change: Partial<StoredReplica>): void {
    const replica = this.#replica;
    const record = { ...replica.record, ...change };
    const key = replicaKey(replica.number);
    replica.recordSeal = batch.put(0, key, storedReplicaBody(record), replica.recordSeal);
    replica.record = record;
  }

  #checkDisk(): void {
    const failure = this.#options.diskFailure();
    if (failure !== undefined) throw failure;
  }

  #closedError(): StorageError {
    return new StorageError('CLOSED', `volume ${this.volume} is closed`, { volume: this.volume });
  }
}

/** P7: of a replica on a disk; each load after the first is another one. */
export function incarnationOf(replica: ScannedReplica, ofDisk: string): string {
  return replica.loads > 1 ? `${ofDisk}+${replica.loads - 1}` : ofDisk;
}

/** Reads the replica's records again, after it failed. Physical extents that no record names any
 *  more are released. */
async function reload(options: OpenedReplicaOptions): Promise<void> {
  const { services, replica, release, diskFailure } = options;
  await services.writer.drained();
  const failure = diskFailure();
  if (failure !== undefined) throw failure;
  const before = replica.map;
  await rescanReplica(services.kv, replica);
  const kept = new Set(replica.map.physicals());
  release([...before.physicals()].filter((physical) => !kept.has(physical)));
}
