/**
 * Cleaning of a region (P2): one synced batch names the content of every extent that was written,
 * stores its checksums and removes the dirty mark.
 */
import { StorageError, toStorageError } from '../../common/errors.js';
import { REGION_CLEAN, REGION_DIRTY } from './dirty-regions.js';
import { type ExtentTag, SLOT_BYTES, writeTag } from './extent-record.js';
import type { ExtentRecords } from './extent-records.js';
import { dirtyMarkKey } from './keys.js';
import type { BatchBuilder } from './metadata-writer.js';
import { sealedMark } from './region-entry.js';
import type { StoreContext } from './store-context.js';

export class RegionCleaner {
  readonly #context: StoreContext;
  readonly #records: ExtentRecords;
  /** adds to the batch what changes when a region dirty since before the last start is cleaned */
  readonly #inheritedCleaned: (batch: BatchBuilder, lastOne: boolean) => void;

  constructor(
    context: StoreContext,
    records: ExtentRecords,
    inheritedCleaned: (batch: BatchBuilder, lastOne: boolean) => void,
  ) {
    this.#context = context;
    this.#records = records;
    this.#inheritedCleaned = inheritedCleaned;
  }

  /** @see ReplicaStore.clean; a region that is clean already stays as it is */
  async clean(region: number, tag: ExtentTag): Promise<void> {
    const context = this.#context;
    const { cleanTurn } = context.disk;
    context.enter();
    try {
      if (!cleanTurn.tryAcquire(1)) await cleanTurn.acquire(1);
      try {
        await this.#cleanInTurn(region, tag);
      } finally {
        cleanTurn.release(1);
      }
    } finally {
      context.leave();
    }
  }

  async #cleanInTurn(region: number, tag: ExtentTag): Promise<void> {
    const context = this.#context;
    const { regions } = context;
    context.checkFailure();
    if (regions.state[region] === REGION_CLEAN) return;
    if (regions.state[region] !== REGION_DIRTY || regions.inFlight[region] !== 0) {
      const { volume, replicaId } = context.identity;
      throw new StorageError('CONFLICT', `region ${region} of volume ${volume} is being written`, {
        volume,
        replica: replicaId,
      });
    }
    let end = (): void => undefined;
    regions.beginClean(region, new Promise((resolve) => (end = resolve)));
    let cleaned = false;
    const pinned: number[] = [];
    try {
      for (const extent of regions.written(region)) {
        if (extent >= context.map.extents) break;
        const slot = await this.#records.acquire(extent, { create: false, prove: true });
        if (slot !== undefined) pinned.push(slot);
      }
      // Every member was flushed by the engine; this one makes sure for itself. Often it is shared.
      await context.disk.flush();
      await this.#store(region, tag, pinned);
      cleaned = true;
    } catch (error) {
      throw toStorageError(error, `clean region ${region}`);
    } finally {
      for (const slot of pinned) context.disk.cache.unpin(slot);
      regions.endClean(region, cleaned);
      end();
    }
    context.disk.counters.cleans += 1;
  }

  /** Takes the slots that it frees out of `pinned`. */
  async #store(region: number, tag: ExtentTag, pinned: number[]): Promise<void> {
    const context = this.#context;
    const records = this.#records;
    const { number } = context.identity;
    const { cache, writer } = context.disk;
    const fill = (batch: BatchBuilder): void => {
      // splice: slots that are freed here are no longer pinned
      for (const slot of pinned.splice(0)) {
        if (!records.hasBlocks(slot) && records.detach(slot)) {
          records.putFreed(slot, batch);
          continue;
        }
        writeTag(cache.slab, slot * SLOT_BYTES, tag);
        records.put(slot, batch);
        pinned.push(slot);
      }
      const key = dirtyMarkKey(number, region);
      batch.delete(number, key, sealedMark(key).crc);
      if (context.regions.isInherited(region)) {
        this.#inheritedCleaned(batch, context.regions.inheritedCount === 1);
      }
    };
    await writer.submit(fill, { sync: true });
  }
}
