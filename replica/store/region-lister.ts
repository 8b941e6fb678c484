/** What a replica says of its regions and extents to an engine that compares copies: metadata
 *  alone, no data. */
import { EXTENTS_PER_REGION } from '../../common/units.js';
import type { ExtentInfo, RegionInfo } from '../../proto/control.js';
import { readTag, SLOT_BYTES } from './extent-record.js';
import type { ExtentRecords } from './extent-records.js';
import { isNoTag, NO_TAG } from './region-tags.js';
import type { StoreContext } from './store-context.js';

export class RegionLister {
  readonly #context: StoreContext;
  readonly #records: ExtentRecords;

  constructor(context: StoreContext, records: ExtentRecords) {
    this.#context = context;
    this.#records = records;
  }

  /** @see ReplicaStore.regions */
  regions(first: number, count: number): RegionInfo[] {
    const { regions, tags } = this.#context;
    const found: RegionInfo[] = [];
    const end = Math.min(first + count, regions.count);
    for (let number = first; number < end; number += 1) {
      const dirty = regions.isMarked(number);
      const allocatedExtents = this.#allocatedIn(number);
      const tag = tags.get(number);
      if (!dirty && allocatedExtents === 0 && isNoTag(tag)) continue;
      found.push({ number, dirty, allocatedExtents, tag });
    }
    return found;
  }

  /** @see ReplicaStore.extents */
  async extents(region: number): Promise<ExtentInfo[]> {
    const context = this.#context;
    context.enter();
    try {
      const written = new Set(context.regions.written(region));
      const found: ExtentInfo[] = [];
      const first = region * EXTENTS_PER_REGION;
      const end = Math.min(first + EXTENTS_PER_REGION, context.map.extents);
      for (let number = first; number < end; number += 1) {
        if (!written.has(number) && context.map.get(number) === -1) continue;
        found.push({ ...(await this.#extent(number)), written: written.has(number) });
      }
      return found;
    } finally {
      context.leave();
    }
  }

  async #extent(number: number): Promise<Omit<ExtentInfo, 'written'>> {
    const { cache } = this.#context.disk;
    const slot = await this.#records.acquire(number, { create: false, prove: false });
    if (slot === undefined) return { number, allocated: false, tag: NO_TAG };
    const tag = readTag(cache.slab, slot * SLOT_BYTES);
    cache.unpin(slot);
    return { number, allocated: true, tag };
  }

  #allocatedIn(region: number): number {
    const { map } = this.#context;
    const end = Math.min((region + 1) * EXTENTS_PER_REGION, map.extents);
    let count = 0;
    let extent = map.nextAllocated(region * EXTENTS_PER_REGION, end);
    for (; extent < end; extent = map.nextAllocated(extent + 1, end)) count += 1;
    return count;
  }
}
