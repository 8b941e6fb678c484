/**
 * Cleaning of a region (P2): one synced batch names the content of every extent that was written,
 * stores its checksums and the tag of the region, and removes the dirty mark.
 *
 * Two ways: `clean` gives a new tag, on all members at once; `cleanAs` takes over the tags of a
 * clean source that this replica was just made equal to. While a region is cleaned no write starts
 * in it.
 */
import { StorageError, toStorageError } from '../../common/errors.js';
import { EXTENTS_PER_REGION } from '../../common/units.js';
import type { ExtentTag, Tag } from '../../proto/control.js';
import { REGION_CLEAN, REGION_DIRTY } from './dirty-regions.js';
import { SLOT_DIRTY } from './extent-cache.js';
import { readTag, SLOT_BYTES, writeTag } from './extent-record.js';
import type { ExtentRecords } from './extent-records.js';
import { dirtyMarkKey, regionTagKey } from './keys.js';
import type { BatchBuilder } from './metadata-writer.js';
import { sealedMark } from './region-entry.js';
import { isNoTag, NO_TAG, sameTag, sealedTag } from './region-tags.js';
import type { StoreContext } from './store-context.js';

/** What one clean stores. */
interface Naming {
  readonly region: number;
  readonly tag: Tag;
  /** of an extent that has blocks */
  readonly tagOf: (extent: number) => Tag;
}

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

  /** @see ReplicaStore.clean. A region that is clean already takes the tag all the same: the other
   *  members name the same content by it. */
  clean(region: number, tag: Tag): Promise<void> {
    const { regions, tags, map, disk } = this.#context;
    return this.#hold(region, async (marked, pinned) => {
      if (!marked && sameTag(tags.get(region), tag)) return;
      if (marked) {
        const written = regions.written(region).filter((extent) => extent < map.extents);
        await this.#pin(written, pinned);
        // Every member was flushed by the engine; this one makes sure for itself. Often it is
        // shared.
        await disk.flush();
      }
      await this.#store({ region, tag, tagOf: () => tag }, pinned);
    });
  }

  /** @see ReplicaStore.cleanAs */
  cleanAs(region: number, tag: Tag, extentTags: readonly ExtentTag[]): Promise<void> {
    const wanted = new Map(extentTags.map((item) => [item.extent, item.tag]));
    return this.#hold(region, async (marked, pinned) => {
      await this.#pin(this.#allocatedIn(region), pinned);
      this.#compare(region, wanted, pinned);
      if (marked) await this.#context.disk.flush();
      const tagOf = (extent: number): Tag => wanted.get(extent) ?? NO_TAG;
      await this.#store({ region, tag, tagOf }, pinned);
    });
  }

  /** Runs `work` with writes held off and nothing in flight.
   *  @param work  its second argument are slots that it pins: they are unpinned here */
  async #hold(
    region: number,
    work: (marked: boolean, pinned: number[]) => Promise<void>,
  ): Promise<void> {
    const context = this.#context;
    const { cleanTurn } = context.disk;
    context.enter();
    try {
      if (!cleanTurn.tryAcquire(1)) await cleanTurn.acquire(1);
      try {
        await this.#holdInTurn(region, work);
      } finally {
        cleanTurn.release(1);
      }
    } finally {
      context.leave();
    }
  }

  async #holdInTurn(
    region: number,
    work: (marked: boolean, pinned: number[]) => Promise<void>,
  ): Promise<void> {
    const context = this.#context;
    const { regions } = context;
    context.checkFailure();
    const state = regions.state[region];
    if ((state !== REGION_DIRTY && state !== REGION_CLEAN) || regions.inFlight[region] !== 0) {
      throw this.#conflict(`region ${region} is being written`);
    }
    let end = (): void => undefined;
    regions.beginClean(region, new Promise((resolve) => (end = resolve)));
    const pinned: number[] = [];
    let cleaned = false;
    try {
      await work(state === REGION_DIRTY, pinned);
      cleaned = true;
    } catch (error) {
      throw toStorageError(error, `clean region ${region}`);
    } finally {
      for (const slot of pinned) context.disk.cache.unpin(slot);
      regions.endClean(region, cleaned);
      end();
    }
  }

  async #pin(extents: readonly number[], pinned: number[]): Promise<void> {
    for (const extent of extents) {
      const slot = await this.#records.acquire(extent, { create: false, prove: true });
      if (slot !== undefined) pinned.push(slot);
    }
  }

  #allocatedIn(region: number): number[] {
    const { map } = this.#context;
    const end = Math.min((region + 1) * EXTENTS_PER_REGION, map.extents);
    const extents: number[] = [];
    let extent = map.nextAllocated(region * EXTENTS_PER_REGION, end);
    for (; extent < end; extent = map.nextAllocated(extent + 1, end)) extents.push(extent);
    return extents;
  }

  /** Extents that hold no block are about to be freed and count as not allocated.
   *  @throws StorageError CONFLICT */
  #compare(region: number, wanted: ReadonlyMap<number, Tag>, pinned: readonly number[]): void {
    const { cache } = this.#context.disk;
    const here = new Set<number>();
    for (const slot of pinned) if (this.#records.hasBlocks(slot)) here.add(cache.extentOf(slot));
    const surplus = [...here].find((extent) => !wanted.has(extent));
    if (surplus !== undefined) {
      throw this.#conflict(`region ${region}: extent ${surplus} is allocated and was not named`);
    }
    const absent = [...wanted.keys()].find((extent) => !here.has(extent));
    if (absent !== undefined) {
      throw this.#conflict(`region ${region}: extent ${absent} was named and is not allocated`);
    }
  }

  /** Takes the slots that it frees out of `pinned`. */
  async #store(naming: Naming, pinned: number[]): Promise<void> {
    const { writer, counters } = this.#context.disk;
    const fill = (batch: BatchBuilder): void => {
      this.#fillExtents(naming, pinned, batch);
      this.#fillRegion(naming, batch);
    };
    await writer.submit(fill, { sync: true });
    counters.cleans += 1;
  }

  #fillExtents({ region, tagOf }: Naming, pinned: number[], batch: BatchBuilder): void {
    const records = this.#records;
    const { regions } = this.#context;
    const { cache } = this.#context.disk;
    const written = new Set(regions.written(region));
    // splice: slots that are freed here are no longer pinned
    for (const slot of pinned.splice(0)) {
      if (!records.hasBlocks(slot) && records.detach(slot)) {
        records.putFreed(slot, batch);
        continue;
      }
      pinned.push(slot);
      const extent = cache.extentOf(slot);
      const tag = tagOf(extent);
      const changed = written.has(extent) || ((cache.flags[slot] ?? 0) & SLOT_DIRTY) !== 0;
      if (!changed && sameTag(readTag(cache.slab, slot * SLOT_BYTES), tag)) continue;
      writeTag(cache.slab, slot * SLOT_BYTES, tag);
      records.put(slot, batch);
    }
  }

  #fillRegion({ region, tag }: Naming, batch: BatchBuilder): void {
    const { regions, tags, identity } = this.#context;
    const key = regionTagKey(identity.number, region);
    const before = tags.get(region);
    const oldSeal = isNoTag(before) ? undefined : sealedTag(key, before).crc;
    if (!isNoTag(tag)) batch.putSealed(identity.number, key, sealedTag(key, tag), oldSeal);
    else if (oldSeal !== undefined) batch.delete(identity.number, key, oldSeal);
    tags.set(region, tag);
    if (!regions.isMarked(region)) return;
    const markKey = dirtyMarkKey(identity.number, region);
    batch.delete(identity.number, markKey, sealedMark(markKey).crc);
    if (regions.isInherited(region)) {
      this.#inheritedCleaned(batch, regions.inheritedCount === 1);
    }
  }

  #conflict(what: string): StorageError {
    const { volume, replicaId } = this.#context.identity;
    const details = { volume, replica: replicaId };
    return new StorageError('CONFLICT', `volume ${volume}: ${what}`, details);
  }
}
