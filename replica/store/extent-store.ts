/** ReplicaStore over extents: argument checks, and the parts put together. */

import type { AlignedBuffer } from '../../common/block-device.js';
import { StorageError, toStorageError } from '../../common/errors.js';
import {
  BLOCK_SIZE,
  EXTENT_SIZE,
  REGION_SIZE,
  VOLUME_SIZE_MAX,
  WIRE_IO_BYTES_MAX,
} from '../../common/units.js';
import type { ExtentInfo, ExtentTag, RegionInfo, Tag } from '../../proto/control.js';
import type {
  BlockHashes,
  MapRun,
  Replacement,
  ReplicaStore,
  SparseRead,
  StoredRead,
} from '../replica-store.js';
import { ExtentHasher } from './extent-hasher.js';
import { ExtentReader } from './extent-reader.js';
import { ExtentRecords } from './extent-records.js';
import { checkReplacement, ExtentReplacer } from './extent-replacer.js';
import { ExtentTrimmer } from './extent-trimmer.js';
import { ExtentWriter } from './extent-writer.js';
import type { BatchBuilder } from './metadata-writer.js';
import { PieceReader } from './piece-reader.js';
import { RegionCleaner } from './region-cleaner.js';
import { RegionLister } from './region-lister.js';
import { isNoTag } from './region-tags.js';
import { SparseReader } from './sparse-reader.js';
import type { StoreContext } from './store-context.js';

export class ExtentStore implements ReplicaStore {
  readonly volume: string;
  readonly replicaId: string;
  readonly sizeBytes: number;
  readonly #context: StoreContext;
  readonly #records: ExtentRecords;
  readonly #reader: ExtentReader;
  readonly #sparse: SparseReader;
  readonly #hasher: ExtentHasher;
  readonly #writer: ExtentWriter;
  readonly #trimmer: ExtentTrimmer;
  readonly #replacer: ExtentReplacer;
  readonly #cleaner: RegionCleaner;
  readonly #lister: RegionLister;

  /** @param inheritedCleaned  see RegionCleaner */
  constructor(
    context: StoreContext,
    inheritedCleaned: (batch: BatchBuilder, lastOne: boolean) => void,
  ) {
    this.volume = context.identity.volume;
    this.replicaId = context.identity.replicaId;
    this.sizeBytes = context.identity.sizeBytes;
    this.#context = context;
    this.#records = new ExtentRecords(context);
    const pieces = new PieceReader(context, this.#records);
    this.#reader = new ExtentReader(context, this.#records, pieces);
    this.#sparse = new SparseReader(context, pieces);
    this.#hasher = new ExtentHasher(context, pieces);
    this.#writer = new ExtentWriter(context, this.#records);
    this.#trimmer = new ExtentTrimmer(context, this.#records);
    this.#replacer = new ExtentReplacer(context, this.#records, this.#trimmer);
    this.#cleaner = new RegionCleaner(context, this.#records, inheritedCleaned);
    this.#lister = new RegionLister(context, this.#records);
  }

  get failedReason(): string | undefined {
    return this.#context.failure?.message;
  }

  get allocatedBytes(): number {
    return this.#context.map.allocated * EXTENT_SIZE;
  }

  read(offsetBytes: number, lengthBytes: number, options?: { raw?: boolean }): Promise<StoredRead> {
    try {
      this.#context.check();
      this.#context.checkRange('read', offsetBytes, lengthBytes, WIRE_IO_BYTES_MAX);
      return this.#reader.read(offsetBytes, lengthBytes, options?.raw === true);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  async readSparse(
    offsetBytes: number,
    lengthBytes: number,
    options?: { raw?: boolean },
  ): Promise<SparseRead> {
    this.#context.check();
    this.#context.checkRange('sparse read', offsetBytes, lengthBytes, WIRE_IO_BYTES_MAX);
    const blocks = lengthBytes / BLOCK_SIZE;
    return await this.#sparse.read({ offsetBytes, blocks, raw: options?.raw === true });
  }

  async hash(
    offsetBytes: number,
    lengthBytes: number,
    options?: { raw?: boolean },
  ): Promise<BlockHashes> {
    this.#context.check();
    this.#context.checkRange('hash', offsetBytes, lengthBytes, WIRE_IO_BYTES_MAX);
    const blocks = lengthBytes / BLOCK_SIZE;
    return await this.#hasher.hash({ offsetBytes, blocks, raw: options?.raw === true });
  }

  write(offsetBytes: number, data: AlignedBuffer, checksums: Buffer): Promise<void> {
    try {
      this.#context.check();
      const lengthBytes = data.bytes.length;
      this.#context.checkRange('write', offsetBytes, lengthBytes, WIRE_IO_BYTES_MAX);
      if (checksums.length * BLOCK_SIZE !== lengthBytes * 4) {
        const text = `${checksums.length} bytes of checksums for ${lengthBytes} bytes`;
        throw new StorageError('INVALID_ARGUMENT', text);
      }
    } catch (error) {
      data.release();
      return Promise.reject(error);
    }
    return this.#writer.write(offsetBytes, data, checksums);
  }

  replace(offsetBytes: number, lengthBytes: number, replacement: Replacement): Promise<void> {
    const extent = Math.floor(offsetBytes / EXTENT_SIZE);
    const first = (offsetBytes - extent * EXTENT_SIZE) / BLOCK_SIZE;
    const range = { extent, first, count: lengthBytes / BLOCK_SIZE };
    try {
      this.#context.check();
      this.#context.checkRange('replace', offsetBytes, lengthBytes, EXTENT_SIZE);
      checkReplacement(range, replacement);
    } catch (error) {
      replacement.data?.release();
      return Promise.reject(error);
    }
    return this.#replacer.replace(range, replacement);
  }

  async trim(offsetBytes: number, lengthBytes: number): Promise<void> {
    this.#context.check();
    this.#context.checkRange('trim', offsetBytes, lengthBytes, VOLUME_SIZE_MAX);
    await this.#trimmer.trim(offsetBytes, lengthBytes);
  }

  async writeZeroes(
    offsetBytes: number,
    lengthBytes: number,
    options: { noHole: boolean },
  ): Promise<void> {
    this.#context.check();
    this.#context.checkRange('write zeroes', offsetBytes, lengthBytes, VOLUME_SIZE_MAX);
    if (!options.noHole) {
      await this.#trimmer.trim(offsetBytes, lengthBytes);
      return;
    }
    const end = offsetBytes + lengthBytes;
    for (let at = offsetBytes; at < end; ) {
      const stop = Math.min(end, at - (at % EXTENT_SIZE) + EXTENT_SIZE);
      await this.#writer.writeZeroes(at, stop - at);
      at = stop;
    }
  }

  async flush(): Promise<void> {
    const { disk } = this.#context;
    this.#context.enter();
    try {
      const outcomes = await Promise.allSettled([disk.flush(), disk.writer.sync()]);
      for (const outcome of outcomes) {
        if (outcome.status !== 'rejected') continue;
        const error = toStorageError(outcome.reason, `flush of volume ${this.volume}`);
        this.#context.fail(error);
        throw error;
      }
      this.#context.checkFailure();
      disk.counters.flushes += 1;
    } finally {
      this.#context.leave();
    }
  }

  async map(offsetBytes: number, lengthBytes: number, runsMax: number): Promise<MapRun[]> {
    this.#context.check();
    this.#context.checkRange('map', offsetBytes, lengthBytes, VOLUME_SIZE_MAX);
    if (!Number.isSafeInteger(runsMax) || runsMax < 1) {
      throw new StorageError('INVALID_ARGUMENT', `map with ${runsMax} runs`);
    }
    return await this.#reader.map(offsetBytes, lengthBytes, runsMax);
  }

  async clean(regionNumber: number, tag: Tag): Promise<void> {
    this.#checkRegion(regionNumber);
    checkTag(tag);
    await this.#cleaner.clean(regionNumber, tag);
  }

  async cleanAs(regionNumber: number, tag: Tag, extentTags: readonly ExtentTag[]): Promise<void> {
    this.#checkRegion(regionNumber);
    if (!isNoTag(tag) || extentTags.length > 0) checkTag(tag);
    for (const item of extentTags) checkTag(item.tag);
    await this.#cleaner.cleanAs(regionNumber, tag, extentTags);
  }

  regions(first: number, count: number): RegionInfo[] {
    this.#context.check();
    return this.#lister.regions(first, count);
  }

  async extents(regionNumber: number): Promise<ExtentInfo[]> {
    this.#checkRegion(regionNumber);
    return await this.#lister.extents(regionNumber);
  }

  dirtyRegions(): number[] {
    return this.#context.regions.numbers();
  }

  #checkRegion(regionNumber: number): void {
    const regions = Math.ceil(this.sizeBytes / REGION_SIZE);
    if (Number.isSafeInteger(regionNumber) && regionNumber >= 0 && regionNumber < regions) return;
    const text = `region ${regionNumber} of volume ${this.volume}, which has ${regions}`;
    throw new StorageError('OUT_OF_RANGE', text);
  }

  /** Refuses new operations and waits for the ones in flight. With `save` everything is on stable
   *  storage when it resolves, and the records in the cache are stored. @throws StorageError (only
   *  with `save`) */
  async close(options: { save: boolean }): Promise<void> {
    await this.#context.close();
    const { disk } = this.#context;
    try {
      if (!options.save) return;
      this.#context.checkFailure();
      await disk.flush();
      await this.#records.writeBack(this.#records.changedSlots());
      await disk.writer.sync();
    } finally {
      disk.cache.dropOwner(this.#records);
    }
  }
}

/** @throws StorageError INVALID_ARGUMENT */
function checkTag(tag: Tag): void {
  const whole = Number.isSafeInteger(tag.epoch) && Number.isSafeInteger(tag.counter);
  if (whole && tag.epoch >= 0 && tag.counter >= 0 && !isNoTag(tag)) return;
  throw new StorageError('INVALID_ARGUMENT', `tag ${tag.epoch}.${tag.counter}`);
}
