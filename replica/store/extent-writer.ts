/**
 * Writes of one replica.
 *
 * The steady state is `overwrite`: every block is present, its region is marked, its record is in
 * the cache. Then a write is one device operation and an update in memory. Everything else takes
 * the long way: mark (P1), make or load records, wait for overlapping writes, write the data, and
 * only then store the present bits, before the caller hears of it.
 */

import { allSet, anySet, setBits } from '../../common/bitmap.js';
import type { AlignedBuffer } from '../../common/block-device.js';
import { toStorageError } from '../../common/errors.js';
import { BLOCK_SIZE, EXTENT_SIZE, EXTENTS_PER_REGION } from '../../common/units.js';
import { ZERO_BLOCK_CRC } from '../../native/index.js';
import { REGION_DIRTY } from './dirty-regions.js';
import { SLOT_UNPROVEN } from './extent-cache.js';
import { BUSY_AT, CHECKSUMS_AT, PHYSICAL_AT, PRESENT_AT, SLOT_BYTES } from './extent-record.js';
import type { ExtentRecords } from './extent-records.js';
import { enterRegion, leaveRegion } from './region-entry.js';
import type { StoreContext } from './store-context.js';
import { failedWrite, type StoreParts, untilIdle } from './write-steps.js';

/** The part of a write that lies in one extent. */
interface Span {
  readonly extent: number;
  /** first block in the extent */
  readonly first: number;
  readonly count: number;
  /** first block in the request */
  readonly at: number;
  slot: number;
  /** some of its blocks were absent before */
  firstWrite: boolean;
}

export class ExtentWriter {
  readonly #context: StoreContext;
  readonly #records: ExtentRecords;
  readonly #parts: StoreParts;

  constructor(context: StoreContext, records: ExtentRecords) {
    this.#context = context;
    this.#records = records;
    this.#parts = { context, records };
  }

  /** @see ReplicaStore.write; the range was checked, the operation is counted in and out here */
  write(offsetBytes: number, data: AlignedBuffer, checksums: Buffer): Promise<void> {
    const context = this.#context;
    const lengthBytes = data.bytes.length;
    const extent = Math.floor(offsetBytes / EXTENT_SIZE);
    const first = (offsetBytes - extent * EXTENT_SIZE) / BLOCK_SIZE;
    const count = lengthBytes / BLOCK_SIZE;
    const slot = this.#records.cached(extent);
    if (slot !== undefined && context.regions.state[extent >>> 6] === REGION_DIRTY) {
      const { slab, flags } = context.disk.cache;
      const base = slot * SLOT_BYTES;
      if (
        first + count <= EXTENT_SIZE / BLOCK_SIZE &&
        ((flags[slot] ?? 0) & SLOT_UNPROVEN) === 0 &&
        allSet(slab, base + PRESENT_AT, first, count) &&
        !anySet(slab, base + BUSY_AT, first, count)
      ) {
        return this.#overwrite({ extent, slot, first, count }, data, checksums);
      }
    }
    return this.#writeLong(offsetBytes, count, { data, checksums: Buffer.from(checksums) });
  }

  /** Writes zeroes that stay allocated. At most one extent long. */
  writeZeroes(offsetBytes: number, lengthBytes: number): Promise<void> {
    const count = lengthBytes / BLOCK_SIZE;
    const checksums = Buffer.allocUnsafe(4 * count);
    for (let n = 0; n < count; n += 1) checksums.writeUInt32LE(ZERO_BLOCK_CRC, 4 * n);
    return this.#writeLong(offsetBytes, count, { data: undefined, checksums });
  }

  #overwrite(
    range: { extent: number; slot: number; first: number; count: number },
    data: AlignedBuffer,
    checksums: Buffer,
  ): Promise<void> {
    const context = this.#context;
    const { cache, device, counters } = context.disk;
    const { extent, slot, first, count } = range;
    const region = extent >>> 6;
    const { inFlight } = context.regions;
    // The caller may reuse `checksums` once this returns; one block is the common case and needs no
    // copy on the heap.
    const single = checksums.readUInt32LE(0);
    const many = count === 1 ? undefined : Buffer.from(checksums);
    context.enter();
    inFlight[region] = (inFlight[region] ?? 0) + 1;
    context.regions.noteWritten(extent);
    cache.pin(slot);
    this.#records.setBusy(slot, first, count);
    counters.cacheHits += 1;
    counters.deviceWrites += 1;
    const physical = cache.slab.readUInt32LE(slot * SLOT_BYTES + PHYSICAL_AT);
    const end = (): void => {
      this.#records.clearBusy(slot, first, count);
      cache.unpin(slot);
      inFlight[region] = (inFlight[region] ?? 0) - 1;
      data.release();
      context.leave();
    };
    return device.write(context.deviceOffset(physical, first), data.bytes).then(
      () => {
        const at = slot * SLOT_BYTES + CHECKSUMS_AT + 4 * first;
        if (many === undefined) cache.slab.writeUInt32LE(single, at);
        else many.copy(cache.slab, at);
        this.#records.noteChanged(slot);
        counters.writes += 1;
        counters.bytesWritten += data.bytes.length;
        end();
        context.checkFailure();
      },
      (error: unknown) => {
        const failure = toStorageError(error, `write to extent ${extent}`);
        context.fail(failure);
        end();
        throw failure;
      },
    );
  }

  async #writeLong(
    offsetBytes: number,
    blocks: number,
    source: { data: AlignedBuffer | undefined; checksums: Buffer },
  ): Promise<void> {
    const context = this.#context;
    const entered: number[] = [];
    const pinned: Span[] = [];
    context.enter();
    try {
      const spans = spansOf(offsetBytes, blocks);
      for (const region of regionsOf(spans)) {
        await enterRegion(context, region);
        entered.push(region);
      }
      for (const span of spans) {
        span.slot = await this.#acquire(span.extent);
        pinned.push(span);
      }
      context.checkFailure();
      await this.#claimBlocks(spans);
      try {
        await this.#writeSpans(spans, source);
        await this.#storeSpans(spans, source.checksums);
      } finally {
        for (const { slot, first, count } of spans) this.#records.clearBusy(slot, first, count);
      }
      context.disk.counters.writes += 1;
      context.disk.counters.bytesWritten += blocks * BLOCK_SIZE;
    } finally {
      for (const { slot } of pinned) this.#records.unpinUnused(slot);
      for (const region of entered) leaveRegion(context, region);
      source.data?.release();
      context.leave();
    }
  }

  async #acquire(extent: number): Promise<number> {
    const slot = await this.#records.acquire(extent, { create: true, prove: true });
    if (slot === undefined) throw new Error('unreachable: the record was to be made');
    return slot;
  }

  /** Resolves when no other write is in flight on any block of the spans, and they are this
   *  write's. */
  async #claimBlocks(spans: readonly Span[]): Promise<void> {
    const records = this.#records;
    const { slab } = this.#context.disk.cache;
    await untilIdle(this.#parts, spans);
    for (const span of spans) {
      const { slot, first, count } = span;
      records.setBusy(slot, first, count);
      span.firstWrite = !allSet(slab, slot * SLOT_BYTES + PRESENT_AT, first, count);
      this.#context.regions.noteWritten(span.extent);
    }
  }

  /** Spans that follow each other on the device too are one operation. */
  async #writeSpans(spans: readonly Span[], source: { data: AlignedBuffer | undefined }) {
    const context = this.#context;
    const { device, counters } = context.disk;
    const work: Array<Promise<void>> = [];
    for (let n = 0; n < spans.length; ) {
      const { slot, first, at, count: firstCount } = spans[n] as Span;
      const offsetBytes = context.deviceOffset(this.#records.physicalOf(slot), first);
      let count = firstCount;
      for (n += 1; n < spans.length; n += 1) {
        const next = spans[n] as Span;
        const place = context.deviceOffset(this.#records.physicalOf(next.slot), next.first);
        if (place !== offsetBytes + count * BLOCK_SIZE) break;
        count += next.count;
      }
      counters.deviceWrites += 1;
      const view = source.data?.bytes.subarray(at * BLOCK_SIZE, (at + count) * BLOCK_SIZE);
      work.push(
        view === undefined
          ? device.writeZeroes(offsetBytes, count * BLOCK_SIZE, { mayUnmap: false })
          : device.write(offsetBytes, view),
      );
    }
    const outcomes = await Promise.allSettled(work);
    for (const outcome of outcomes) {
      if (outcome.status === 'rejected') await failedWrite(this.#parts, spans, outcome.reason);
    }
    context.checkFailure();
  }

  /** The data is in the device: records the checksums, and stores the records where a block became
   *  present. */
  async #storeSpans(spans: readonly Span[], checksums: Buffer): Promise<void> {
    const { cache } = this.#context.disk;
    const stored: Array<Promise<void>> = [];
    for (const { slot, first, count, at, firstWrite } of spans) {
      const base = slot * SLOT_BYTES;
      checksums.copy(cache.slab, base + CHECKSUMS_AT + 4 * first, 4 * at, 4 * (at + count));
      if (firstWrite) {
        setBits(cache.slab, base + PRESENT_AT, first, count);
        stored.push(this.#records.store(slot));
      } else this.#records.noteChanged(slot);
    }
    await Promise.all(stored);
  }
}

function spansOf(offsetBytes: number, blocks: number): Span[] {
  const spans: Span[] = [];
  for (let at = 0; at < blocks; ) {
    const place = offsetBytes + at * BLOCK_SIZE;
    const extent = Math.floor(place / EXTENT_SIZE);
    const first = (place - extent * EXTENT_SIZE) / BLOCK_SIZE;
    const count = Math.min(blocks - at, EXTENT_SIZE / BLOCK_SIZE - first);
    spans.push({ extent, first, count, at, slot: -1, firstWrite: false });
    at += count;
  }
  return spans;
}

function regionsOf(spans: readonly Span[]): Set<number> {
  return new Set(spans.map(({ extent }) => Math.floor(extent / EXTENTS_PER_REGION)));
}
