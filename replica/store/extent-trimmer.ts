/**
 * Trim: blocks become absent and read as zeroes (N4).
 *
 * A wholly trimmed extent leaves the volume and its physical extent is freed (P9). Blocks trimmed
 * out of an extent that stays are zeroed on the device before their bits go: a present bit that a
 * later write stores, and whose data a power cut takes, must show zeroes and not the old content.
 * Space in sparse files and thin devices goes back both ways.
 */

import { anySet, clearBits, forEachRun } from '../../common/bitmap.js';
import { toStorageError } from '../../common/errors.js';
import {
  BLOCK_SIZE,
  BLOCKS_PER_EXTENT,
  EXTENT_SIZE,
  EXTENTS_PER_REGION,
} from '../../common/units.js';
import { PRESENT_AT, SLOT_BYTES } from './extent-record.js';
import type { ExtentRecords } from './extent-records.js';
import { enterRegion, leaveRegion } from './region-entry.js';
import type { StoreContext } from './store-context.js';

interface Part {
  readonly extent: number;
  readonly first: number;
  readonly count: number;
}

export class ExtentTrimmer {
  readonly #context: StoreContext;
  readonly #records: ExtentRecords;

  constructor(context: StoreContext, records: ExtentRecords) {
    this.#context = context;
    this.#records = records;
  }

  /** @see ReplicaStore.trim; the range was checked. Regions without any extent in the range are not
   *    touched. */
  async trim(offsetBytes: number, lengthBytes: number): Promise<void> {
    const context = this.#context;
    context.enter();
    try {
      const end = offsetBytes + lengthBytes;
      const endExtent = Math.ceil(end / EXTENT_SIZE);
      let extent = Math.floor(offsetBytes / EXTENT_SIZE);
      while (extent < endExtent) {
        const next = context.map.nextAllocated(extent, endExtent);
        if (next === endExtent) break;
        const region = Math.floor(next / EXTENTS_PER_REGION);
        const stop = Math.min(endExtent, (region + 1) * EXTENTS_PER_REGION);
        await this.#trimRegion(region, partsOf(next, stop, { offsetBytes, end }));
        extent = stop;
      }
      context.disk.counters.trims += 1;
      context.disk.counters.bytesTrimmed += lengthBytes;
    } finally {
      context.leave();
    }
  }

  async #trimRegion(region: number, parts: readonly Part[]): Promise<void> {
    await enterRegion(this.#context, region);
    try {
      const outcomes = await Promise.allSettled(parts.map((part) => this.#trimPart(part)));
      for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
      this.#context.checkFailure();
    } finally {
      leaveRegion(this.#context, region);
    }
  }

  async #trimPart({ extent, first, count }: Part): Promise<void> {
    const context = this.#context;
    const records = this.#records;
    const slot = await records.acquire(extent, { create: false, prove: false });
    if (slot === undefined) return;
    while (records.isBusy(slot, first, count)) await records.whenLessBusy(slot);
    const { cache, writer } = context.disk;
    if (!anySet(cache.slab, slot * SLOT_BYTES + PRESENT_AT, first, count)) {
      cache.unpin(slot);
      return;
    }
    context.regions.noteWritten(extent);
    if (count === BLOCKS_PER_EXTENT && records.detach(slot)) {
      await writer.submit((batch) => records.putFreed(slot, batch), { sync: false });
      return;
    }
    await this.#zeroBlocks(slot, first, count);
    if (!records.hasBlocks(slot) && records.detach(slot)) {
      await writer.submit((batch) => records.putFreed(slot, batch), { sync: false });
      return;
    }
    try {
      await records.store(slot);
    } finally {
      cache.unpin(slot);
    }
  }

  /** On the device, then in the record. One operation: what lies between present blocks is zero
   *  already. */
  async #zeroBlocks(slot: number, first: number, count: number): Promise<void> {
    const context = this.#context;
    const { cache, device } = context.disk;
    const base = slot * SLOT_BYTES + PRESENT_AT;
    let from = -1;
    let to = -1;
    forEachRun(cache.slab, base, { first, count, value: true }, (run, length) => {
      if (from === -1) from = run;
      to = run + length;
    });
    this.#records.setBusy(slot, first, count);
    try {
      const at = context.deviceOffset(this.#records.physicalOf(slot), from);
      await device.writeZeroes(at, (to - from) * BLOCK_SIZE, { mayUnmap: true });
      clearBits(cache.slab, base, first, count);
    } catch (error) {
      const failure = toStorageError(error, `trim in volume ${context.identity.volume}`);
      context.fail(failure);
      cache.unpin(slot);
      throw failure;
    } finally {
      this.#records.clearBusy(slot, first, count);
    }
  }
}

function partsOf(
  firstExtent: number,
  endExtent: number,
  { offsetBytes, end }: { offsetBytes: number; end: number },
): Part[] {
  const parts: Part[] = [];
  for (let extent = firstExtent; extent < endExtent; extent += 1) {
    const from = Math.max(offsetBytes, extent * EXTENT_SIZE);
    const to = Math.min(end, (extent + 1) * EXTENT_SIZE);
    const first = (from - extent * EXTENT_SIZE) / BLOCK_SIZE;
    parts.push({ extent, first, count: (to - from) / BLOCK_SIZE });
  }
  return parts;
}
