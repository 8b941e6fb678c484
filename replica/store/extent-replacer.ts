/**
 * Replace: afterwards a range of one extent holds exactly the given blocks; the others are absent.
 *
 * Order as for a write and a trim at once: mark (P1), then on the device the new blocks and zeroes
 * where a block goes, then the record with all its bits, once, before the caller hears of it. So a
 * present bit is stored only after its data, and an absent block is zero on the device before its
 * bit goes. Between blocks that are written there are zeroes on the device in any case: a dense
 * pattern is one write.
 */
import { anySet, bitIsSet, clearBits, countSet, forEachRun, setBits } from '../../common/bitmap.js';
import { StorageError } from '../../common/errors.js';
import { BLOCK_SIZE, BLOCKS_PER_EXTENT, EXTENTS_PER_REGION } from '../../common/units.js';
import type { Replacement } from '../replica-store.js';
import { type Run, type Span, spansOf } from './extent-pieces.js';
import { CHECKSUMS_AT, PRESENT_AT, SLOT_BYTES } from './extent-record.js';
import type { ExtentRecords } from './extent-records.js';
import type { ExtentTrimmer } from './extent-trimmer.js';
import { enterRegion, leaveRegion } from './region-entry.js';
import type { StoreContext } from './store-context.js';
import { failedWrite, type SlotBlocks, type StoreParts, untilIdle } from './write-steps.js';

export interface ReplaceRange {
  readonly extent: number;
  /** first block in the extent */
  readonly first: number;
  readonly count: number;
}

/** The range with what it is to hold, copied from the caller's memory. */
interface Work extends ReplaceRange, Replacement {}

/** @throws StorageError INVALID_ARGUMENT: the range passes its extent, or bitmap, checksums and
 *    data do not go together */
export function checkReplacement(range: ReplaceRange, replacement: Replacement): void {
  const { bitmap, checksums, data } = replacement;
  const { first, count } = range;
  if (first + count > BLOCKS_PER_EXTENT) throw invalid(`blocks ${first} + ${count} of an extent`);
  if (bitmap.length * 8 < count) throw invalid(`${bitmap.length} bytes of bitmap for ${count}`);
  const present = countSet(bitmap, 0, 0, count);
  if (checksums.length !== 4 * present) {
    throw invalid(`${checksums.length} bytes of checksums for ${present} blocks`);
  }
  let blocks = 0;
  let from = -1;
  forEachRun(bitmap, 0, { first: 0, count, value: true }, (at, length) => {
    if (from === -1) from = at;
    blocks = at + length - from;
  });
  if ((data?.bytes.length ?? 0) === blocks * BLOCK_SIZE) return;
  throw invalid(`${data?.bytes.length ?? 0} bytes of data for ${blocks} blocks`);
}

function invalid(what: string): StorageError {
  return new StorageError('INVALID_ARGUMENT', `replace with ${what}`);
}

export class ExtentReplacer {
  readonly #context: StoreContext;
  readonly #records: ExtentRecords;
  readonly #trimmer: ExtentTrimmer;
  readonly #parts: StoreParts;

  constructor(context: StoreContext, records: ExtentRecords, trimmer: ExtentTrimmer) {
    this.#context = context;
    this.#records = records;
    this.#trimmer = trimmer;
    this.#parts = { context, records };
  }

  /** @see ReplicaStore.replace; range and bitmap were checked */
  async replace(range: ReplaceRange, replacement: Replacement): Promise<void> {
    const context = this.#context;
    const bitmap = Buffer.from(replacement.bitmap);
    const checksums = Buffer.from(replacement.checksums);
    const { data } = replacement;
    context.enter();
    try {
      if (data !== undefined) await this.#write({ ...range, bitmap, checksums, data });
      else if (await this.#hasBlocks(range)) await this.#trim(range);
      context.disk.counters.replaces += 1;
      context.disk.counters.bytesReplaced += checksums.length * (BLOCK_SIZE / 4);
    } finally {
      data?.release();
      context.leave();
    }
  }

  /** Whether something is present, or about to be: if not, not even a mark is needed. */
  async #hasBlocks({ extent, first, count }: ReplaceRange): Promise<boolean> {
    const { cache } = this.#context.disk;
    const slot = await this.#records.acquire(extent, { create: false, prove: false });
    if (slot === undefined) return false;
    const present = anySet(cache.slab, slot * SLOT_BYTES + PRESENT_AT, first, count);
    const busy = this.#records.isBusy(slot, first, count);
    cache.unpin(slot);
    return present || busy;
  }

  #trim({ extent, first, count }: ReplaceRange): Promise<void> {
    const offsetBytes = (extent * BLOCKS_PER_EXTENT + first) * BLOCK_SIZE;
    return this.#trimmer.trim(offsetBytes, count * BLOCK_SIZE);
  }

  async #write(work: Work): Promise<void> {
    const context = this.#context;
    const { extent, first, count } = work;
    const region = Math.floor(extent / EXTENTS_PER_REGION);
    await enterRegion(context, region);
    try {
      const slot = await this.#records.acquire(extent, { create: true, prove: true });
      if (slot === undefined) throw new Error('unreachable: the record was to be made');
      try {
        context.checkFailure();
        await untilIdle(this.#parts, [{ slot, first, count }]);
        this.#records.setBusy(slot, first, count);
        context.regions.noteWritten(extent);
        try {
          await this.#change(work, slot);
          await this.#record(work, slot);
        } finally {
          this.#records.clearBusy(slot, first, count);
        }
      } finally {
        this.#records.unpinUnused(slot);
      }
    } finally {
      leaveRegion(context, region);
    }
  }

  /** On the device. */
  async #change(work: Work, slot: number): Promise<void> {
    const context = this.#context;
    const { device, counters } = context.disk;
    const spans = this.#spans(work, slot);
    const start = spans[0]?.at ?? 0;
    const changes: Array<Promise<void>> = [];
    for (const { at, count, place } of spans) {
      const view = work.data?.bytes.subarray(
        (at - start) * BLOCK_SIZE,
        (at - start + count) * BLOCK_SIZE,
      );
      if (view === undefined) continue;
      counters.deviceWrites += 1;
      changes.push(device.write(place, view));
    }
    for (const { place, count } of this.#staleRuns(work, slot, spans)) {
      counters.deviceWrites += 1;
      changes.push(device.writeZeroes(place, count * BLOCK_SIZE, { mayUnmap: true }));
    }
    const blocks: SlotBlocks = { slot, first: work.first, count: work.count };
    for (const outcome of await Promise.allSettled(changes)) {
      if (outcome.status === 'rejected') await failedWrite(this.#parts, [blocks], outcome.reason);
    }
    context.checkFailure();
  }

  /** Of the blocks that come. */
  #spans({ bitmap, first, count }: Work, slot: number): Span[] {
    const runs: Run[] = [];
    const physical = this.#records.physicalOf(slot);
    forEachRun(bitmap, 0, { first: 0, count, value: true }, (at, length) => {
      const place = this.#context.deviceOffset(physical, first + at);
      runs.push({ at, count: length, place });
    });
    return spansOf(runs);
  }

  /** Present blocks that go and are not written over. */
  #staleRuns({ bitmap, first, count }: Work, slot: number, spans: readonly Span[]): Run[] {
    const { slab } = this.#context.disk.cache;
    const base = slot * SLOT_BYTES + PRESENT_AT;
    const stale = Buffer.alloc(BLOCKS_PER_EXTENT / 8);
    for (let block = 0; block < count; block += 1) {
      if (bitIsSet(slab, base, first + block) && !bitIsSet(bitmap, 0, block)) {
        setBits(stale, 0, block, 1);
      }
    }
    for (const span of spans) clearBits(stale, 0, span.at, span.count);
    const runs: Run[] = [];
    const physical = this.#records.physicalOf(slot);
    forEachRun(stale, 0, { first: 0, count, value: true }, (at, length) => {
      const place = this.#context.deviceOffset(physical, first + at);
      runs.push({ at, count: length, place });
    });
    return runs;
  }

  /** The device holds it: bits and checksums follow, and are stored if a bit changed. */
  async #record({ bitmap, checksums, first, count }: Work, slot: number): Promise<void> {
    const { slab } = this.#context.disk.cache;
    const base = slot * SLOT_BYTES;
    let changed = false;
    let at = 0;
    for (let block = 0; block < count; block += 1) {
      const present = bitIsSet(bitmap, 0, block);
      if (present !== bitIsSet(slab, base + PRESENT_AT, first + block)) {
        changed = true;
        if (present) setBits(slab, base + PRESENT_AT, first + block, 1);
        else clearBits(slab, base + PRESENT_AT, first + block, 1);
      }
      if (!present) continue;
      checksums.copy(slab, base + CHECKSUMS_AT + 4 * (first + block), at, at + 4);
      at += 4;
    }
    if (changed) await this.#records.store(slot);
    else this.#records.noteChanged(slot);
  }
}
