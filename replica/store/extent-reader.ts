/** Reads and allocation runs of one replica. Absent blocks are zeroes by their record, whatever the
 *  device holds there. */

import { allSet, bitIsSet, runEnd } from '../../common/bitmap.js';
import { BLOCK_SIZE, BLOCKS_PER_EXTENT, EXTENT_SIZE } from '../../common/units.js';
import { crc32cBlocks, crc32cVerify } from '../../native/index.js';
import type { MapRun, StoredRead } from '../replica-store.js';
import { SLOT_UNPROVEN } from './extent-cache.js';
import { type Piece, presentRuns, spansOf } from './extent-pieces.js';
import { CHECKSUMS_AT, PHYSICAL_AT, PRESENT_AT, SLOT_BYTES } from './extent-record.js';
import type { ExtentRecords } from './extent-records.js';
import type { BlockRange, PieceReader } from './piece-reader.js';
import type { StoreContext } from './store-context.js';

export class ExtentReader {
  readonly #context: StoreContext;
  readonly #records: ExtentRecords;
  readonly #pieces: PieceReader;

  constructor(context: StoreContext, records: ExtentRecords, pieces: PieceReader) {
    this.#context = context;
    this.#records = records;
    this.#pieces = pieces;
  }

  /** @see ReplicaStore.read; the range was checked */
  read(offsetBytes: number, lengthBytes: number, raw: boolean): Promise<StoredRead> {
    const extent = Math.floor(offsetBytes / EXTENT_SIZE);
    const first = (offsetBytes - extent * EXTENT_SIZE) / BLOCK_SIZE;
    const count = lengthBytes / BLOCK_SIZE;
    const slot = this.#records.cached(extent);
    if (slot !== undefined && !raw && first + count <= BLOCKS_PER_EXTENT) {
      const { slab, flags } = this.#context.disk.cache;
      const proven = ((flags[slot] ?? 0) & SLOT_UNPROVEN) === 0;
      if (proven && allSet(slab, slot * SLOT_BYTES + PRESENT_AT, first, count)) {
        return this.#readPresent({ extent, slot, first, count }, offsetBytes);
      }
    }
    return this.#readLong({ offsetBytes, blocks: count, raw });
  }

  /** @see ReplicaStore.map */
  async map(offsetBytes: number, lengthBytes: number, runsMax: number): Promise<MapRun[]> {
    const runs: Array<{ blocks: number; hole: boolean }> = [];
    const add = (blocks: number, hole: boolean): void => {
      const last = runs.at(-1);
      if (last !== undefined && last.hole === hole) last.blocks += blocks;
      else runs.push({ blocks, hole });
    };
    this.#context.enter();
    try {
      const endBlock = (offsetBytes + lengthBytes) / BLOCK_SIZE;
      const endExtent = Math.ceil(endBlock / BLOCKS_PER_EXTENT);
      for (let block = offsetBytes / BLOCK_SIZE; block < endBlock && runs.length <= runsMax; ) {
        const extent = Math.floor(block / BLOCKS_PER_EXTENT);
        const next = this.#context.map.nextAllocated(extent, endExtent);
        if (next > extent) {
          const stop = Math.min(endBlock, next * BLOCKS_PER_EXTENT);
          add(stop - block, true);
          block = stop;
          continue;
        }
        const stop = Math.min(endBlock, (extent + 1) * BLOCKS_PER_EXTENT);
        const first = block - extent * BLOCKS_PER_EXTENT;
        await this.#mapExtent({ extent, first, end: first + stop - block }, add);
        block = stop;
      }
    } finally {
      this.#context.leave();
    }
    return runs.slice(0, runsMax);
  }

  async #mapExtent(
    { extent, first, end }: { extent: number; first: number; end: number },
    add: (blocks: number, hole: boolean) => void,
  ): Promise<void> {
    const { cache } = this.#context.disk;
    const slot = await this.#records.acquire(extent, { create: false, prove: false });
    if (slot === undefined) {
      add(end - first, true);
      return;
    }
    const base = slot * SLOT_BYTES + PRESENT_AT;
    for (let block = first; block < end; ) {
      const next = runEnd(cache.slab, base, block, end);
      add(next - block, !bitIsSet(cache.slab, base, block));
      block = next;
    }
    cache.unpin(slot);
  }

  /** The steady state: one device read, verified. */
  #readPresent(
    range: { extent: number; slot: number; first: number; count: number },
    offsetBytes: number,
  ): Promise<StoredRead> {
    const context = this.#context;
    const { cache, device, counters, pool } = context.disk;
    const { slot, first, count } = range;
    const data = pool.acquire(count * BLOCK_SIZE);
    const at = slot * SLOT_BYTES;
    const checksums = Buffer.allocUnsafe(4 * count);
    cache.slab.copy(
      checksums,
      0,
      at + CHECKSUMS_AT + 4 * first,
      at + CHECKSUMS_AT + 4 * (first + count),
    );
    const place = context.deviceOffset(cache.slab.readUInt32LE(at + PHYSICAL_AT), first);
    context.enter();
    cache.pin(slot);
    counters.cacheHits += 1;
    counters.deviceReads += 1;
    const end = (): void => {
      cache.unpin(slot);
      context.leave();
    };
    return device.read(place, data.bytes).then(
      () => {
        end();
        if (crc32cVerify(data.bytes, 0, data.bytes.length, checksums, 0) === -1) {
          counters.reads += 1;
          counters.bytesRead += data.bytes.length;
          return { data, checksums };
        }
        // Once more the long way: it may have met a write, or the block is bad.
        data.release();
        return this.#readLong({ offsetBytes, blocks: count, raw: false });
      },
      (error: unknown) => {
        end();
        data.release();
        throw error;
      },
    );
  }

  async #readLong(range: BlockRange): Promise<StoredRead> {
    const { offsetBytes, blocks } = range;
    const result = await this.#pieces.run(range, async (pieces) => {
      const found = await this.#attempt(pieces, range);
      return { result: found, bad: typeof found === 'number' };
    });
    if (typeof result === 'number') throw this.#pieces.corrupt(offsetBytes, result);
    const { counters } = this.#context.disk;
    counters.reads += 1;
    counters.bytesRead += blocks * BLOCK_SIZE;
    return result;
  }

  /** What was read, or the first block that is not what its checksum says. */
  async #attempt(
    pieces: readonly Piece[],
    { blocks, raw }: BlockRange,
  ): Promise<StoredRead | number> {
    const checksums = this.#pieces.storedChecksums(pieces, blocks);
    const spans = spansOf(presentRuns(this.#context, pieces));
    if (spans.length === 0) return { data: undefined, checksums };
    const data = this.#context.disk.pool.acquire(blocks * BLOCK_SIZE);
    const { bytes } = data;
    try {
      let filled = 0;
      for (const { at, count } of spans) {
        bytes.fill(0, filled * BLOCK_SIZE, at * BLOCK_SIZE);
        filled = at + count;
      }
      bytes.fill(0, filled * BLOCK_SIZE);
      await this.#pieces.readSpans(spans, bytes);
      if (raw) crc32cBlocks(bytes, 0, bytes.length, checksums, 0);
      else {
        const bad = crc32cVerify(bytes, 0, bytes.length, checksums, 0);
        if (bad !== -1) {
          data.release();
          return bad;
        }
      }
      return { data, checksums };
    } catch (error) {
      data.release();
      throw error;
    }
  }
}
