/** What the parts of one replica's store share: the disk below it, its maps, and whether it has
 *  failed. */
import type { BlockDevice, BufferPool } from '../../common/block-device.js';
import { StorageError } from '../../common/errors.js';
import type { Logger } from '../../common/log.js';
import type { Semaphore } from '../../common/semaphore.js';
import { BLOCK_SIZE, EXTENT_SIZE } from '../../common/units.js';
import type { DirtyRegions } from './dirty-regions.js';
import type { ExtentCache } from './extent-cache.js';
import type { ExtentMap } from './extent-map.js';
import type { Kv } from './kv.js';
import type { MetadataWriter } from './metadata-writer.js';
import type { RegionTags } from './region-tags.js';
import type { StoreCounters } from './store-counters.js';

/** What the disk gives to each store on it. */
export interface DiskServices {
  readonly device: BlockDevice;
  /** where physical extent 0 begins */
  readonly dataOffsetBytes: number;
  readonly pool: BufferPool;
  readonly kv: Kv;
  readonly cache: ExtentCache;
  readonly writer: MetadataWriter;
  readonly counters: StoreCounters;
  readonly log: Logger;
  /** One proof of an extent at a time: it takes memory and reads a lot. */
  readonly proofTurn: Semaphore;
  /** One region cleaned at a time: it pins up to 64 records. */
  readonly cleanTurn: Semaphore;
  allocate(): number | Promise<number>;
  giveBack(physical: number): void;
  /** Device flush, shared; a failure fails the disk before it is thrown (D3). */
  flush(): Promise<void>;
}

export interface StoreIdentity {
  readonly volume: string;
  readonly replicaId: string;
  readonly sizeBytes: number;
  /** of the replica on its disk; part of every key */
  readonly number: number;
}

export class StoreContext {
  readonly disk: DiskServices;
  readonly identity: StoreIdentity;
  readonly map: ExtentMap;
  readonly regions: DirtyRegions;
  readonly tags: RegionTags;
  #failure: StorageError | undefined;
  #running = 0;
  #closed = false;
  #drained: Array<() => void> = [];

  constructor(
    disk: DiskServices,
    identity: StoreIdentity,
    state: {
      readonly map: ExtentMap;
      readonly regions: DirtyRegions;
      readonly tags: RegionTags;
    },
  ) {
    this.disk = disk;
    this.identity = identity;
    this.map = state.map;
    this.regions = state.regions;
    this.tags = state.tags;
  }

  get failure(): StorageError | undefined {
    return this.#failure;
  }

  /** Neither failed nor closed. */
  get usable(): boolean {
    return this.#failure === undefined && !this.#closed;
  }

  /** P8: for good. The first reason stays. */
  fail(cause: Error): void {
    if (this.#failure !== undefined) return;
    const { volume, replicaId } = this.identity;
    this.#failure = new StorageError(
      'REPLICA_FAILED',
      `replica ${replicaId} of volume ${volume} has failed: ${cause.message}`,
      { volume, replica: replicaId },
      { cause },
    );
    this.disk.log.error({ volume, replica: replicaId, err: cause }, 'replica failed');
  }

  /** For operations that were let in. @throws StorageError REPLICA_FAILED */
  checkFailure(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** For new operations. @throws StorageError REPLICA_FAILED | CLOSED */
  check(): void {
    this.checkFailure();
    if (this.#closed) throw new StorageError('CLOSED', `volume ${this.identity.volume} is closed`);
  }

  /** Counts one operation in; pair with `leave`. @throws as check */
  enter(): void {
    this.check();
    this.#running += 1;
  }

  leave(): void {
    this.#running -= 1;
    if (this.#running === 0 && this.#drained.length > 0) {
      for (const wake of this.#drained.splice(0)) wake();
    }
  }

  /** Refuses new operations; resolves when none is in flight. */
  async close(): Promise<void> {
    this.#closed = true;
    while (this.#running > 0) await new Promise<void>((resolve) => this.#drained.push(resolve));
  }

  /** Where a block of an allocated extent is on the device. */
  deviceOffset(physical: number, block: number): number {
    return this.disk.dataOffsetBytes + physical * EXTENT_SIZE + block * BLOCK_SIZE;
  }

  /** @throws StorageError INVALID_ARGUMENT | OUT_OF_RANGE */
  checkRange(doing: string, offsetBytes: number, lengthBytes: number, lengthMax: number): void {
    const end = offsetBytes + lengthBytes;
    const whole = offsetBytes % BLOCK_SIZE === 0 && lengthBytes % BLOCK_SIZE === 0;
    if (whole && lengthBytes > 0 && lengthBytes <= lengthMax && offsetBytes >= 0) {
      if (Number.isSafeInteger(end) && end <= this.identity.sizeBytes) return;
    }
    const { volume, sizeBytes } = this.identity;
    const where = `${doing} [${offsetBytes}, ${end}) of volume ${volume}`;
    if (!whole || !(lengthBytes > 0) || lengthBytes > lengthMax) {
      throw new StorageError('INVALID_ARGUMENT', `${where}: whole blocks, 1 to ${lengthMax} bytes`);
    }
    throw new StorageError('OUT_OF_RANGE', `${where} passes its end ${sizeBytes}`);
  }
}
