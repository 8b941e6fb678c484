/** A Disk in memory: replicas over FakeStore, whose record calls can be held back or fail. */
import type { BufferPool } from '../../../common/block-device.js';
import { StorageError } from '../../../common/errors.js';
import type { Membership } from '../../../proto/control.js';
import type {
  CreateReplicaOptions,
  Disk,
  ReplicaHandle,
  ReplicaRecord,
  ReplicaSummary,
} from '../../../replica/disk/disk.js';
import { StoreCounters } from '../../../replica/store/store-counters.js';
import { FakeStore } from './fake-store.js';

export class MemoryHandle implements ReplicaHandle {
  readonly counters = new StoreCounters();
  restartedDirty = false;
  lossy = false;
  #loads = 0;
  store: FakeStore;
  /** durable calls, in order */
  readonly log: string[] = [];
  /** the next setEpoch or setMembership throws this */
  error: StorageError | undefined;
  /** awaited by setEpoch before it takes effect */
  gate: Promise<void> | undefined;
  closed = false;

  constructor(
    public record: ReplicaRecord,
    readonly pool: BufferPool,
  ) {
    this.store = new FakeStore(record.volume, record.replicaId, record.sizeBytes, pool);
  }

  get volume(): string {
    return this.record.volume;
  }

  get replicaId(): string {
    return this.record.replicaId;
  }

  get sizeBytes(): number {
    return this.record.sizeBytes;
  }

  get epoch(): number {
    return this.record.epoch;
  }

  get engineId(): string {
    return this.record.engineId;
  }

  get membership(): Membership {
    return this.record.membership;
  }

  get incarnation(): string {
    return this.#loads === 0 ? 'i1' : `i1+${this.#loads}`;
  }

  async setEpoch(epoch: number, engineId: string): Promise<void> {
    await this.gate;
    this.#fail();
    const news = epoch > this.record.epoch;
    const previousEngineId = news ? this.record.engineId : this.record.previousEngineId;
    this.record = { ...this.record, epoch, engineId, previousEngineId };
    this.log.push(`epoch ${epoch} ${engineId}`);
  }

  async setMembership(membership: Membership): Promise<void> {
    this.#fail();
    this.record = { ...this.record, membership };
    this.log.push(`membership ${membership.epoch}.${membership.generation}`);
  }

  async noteComplete(): Promise<void> {
    this.#fail();
    this.lossy = false;
    this.log.push('complete');
  }

  async reopen(): Promise<void> {
    this.log.push('reopen');
    this.#loads += 1;
    this.store = new FakeStore(this.volume, this.replicaId, this.sizeBytes, this.pool);
  }

  async close(): Promise<void> {
    this.closed = true;
    this.log.push('close');
  }

  #fail(): void {
    const error = this.error;
    this.error = undefined;
    if (error !== undefined) throw error;
  }
}

export class MemoryDisk implements Disk {
  readonly counters = new StoreCounters();
  readonly path: string;
  usedBytes = 0;
  reservedBytes = 0;
  state: 'ready' | 'failed' = 'ready';
  reason = '';
  lostWrites = false;
  readonly handles = new Map<string, MemoryHandle>();

  constructor(
    readonly id: string,
    readonly pool: BufferPool,
    readonly sizeBytes = 2 ** 30,
  ) {
    this.path = `/memory/${id}`;
  }

  handle(volume: string): MemoryHandle {
    const handle = this.handles.get(volume);
    if (handle === undefined) throw new StorageError('NOT_FOUND', volume);
    return handle;
  }

  replicas(): ReplicaSummary[] {
    return [...this.handles.values()].map(({ record, store, restartedDirty, incarnation }) => ({
      ...record,
      ...{ restartedDirty, incarnation },
      allocatedBytes: store.allocatedBytes,
      dirtyRegions: store.dirty.size,
      failedReason: store.failedReason,
    }));
  }

  async createReplica(options: CreateReplicaOptions): Promise<void> {
    const record: ReplicaRecord = {
      ...options,
      epoch: options.membership.epoch,
      engineId: '',
      previousEngineId: '',
      lastIncarnation: '',
      bootId: '',
      lossy: false,
    };
    this.handles.set(options.volume, new MemoryHandle(record, this.pool));
  }

  async openReplica(volume: string): Promise<ReplicaHandle> {
    return this.handle(volume);
  }

  async deleteReplica(volume: string): Promise<void> {
    this.handles.delete(volume);
  }

  async close(): Promise<void> {}
}
