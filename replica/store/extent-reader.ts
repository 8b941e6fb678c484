/** Reads and allocation runs of one replica. Absent blocks are zeroes by their record, whatever the
 *  device holds there. */

import { allSet, bitIsSet, forEachRun, runEnd } from '../../common/bitmap.js';
import type { AlignedBuffer } from '../../common/block-device.js';
import { StorageError } from '../../common/errors.js';
import { BLOCK_SIZE, BLOCKS_PER_EXTENT, EXTENT_SIZE } from '../../common/units.js';
import { crc32cBlocks, crc32cVerify, ZERO_BLOCK_CRC } from '../../native/index.js';
import type { MapRun, StoredRead } from '../replica-store.js';
import { SLOT_UNPROVEN } from './extent-cache.js';
import { CHECKSUMS_AT, PHYSICAL_AT, PRESENT_AT, SLOT_BYTES } from './extent-record.js';
import type { ExtentRecords } from './extent-records.js';
import type { StoreContext } from './store-context.js';

/** The part of a read that lies in one extent. */
interface Piece {
  readonly extent: number;
  /** first block in the extent, and in the request */
  readonly first: number;
  readonly at: number;
  readonly count: number;
  /** pinned; undefined: all absent */
  slot: number | undefined;
}

export class ExtentReader {
  readonly #context: StoreContext;
  readonly #records: ExtentRecords;

  constructor(context: StoreContext, records: ExtentRecords) {
    this.#context = context;
    this.#records = records;
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
    return this.#readLong(offsetBytes, count, raw);
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
        return this.#readLong(offsetBytes, count, false);
      },
      (error: unknown) => {
        end();
        data.release();
        throw error;
      },
    );
  }

  async #readLong(offsetBytes: number, blocks: number, raw: boolean): Promise<StoredRead> {
    const context = this.#context;
    context.enter();
    const pieces = piecesOf(offsetBytes, blocks);
    try {
      for (const piece of pieces) {
        piece.slot = await this.#records.acquire(piece.extent, { create: false, prove: !raw });
      }
      let result = await this.#attempt(pieces, blocks, raw);
      if (typeof result === 'number') {
        await this.#untilIdle(pieces);
        result = await this.#attempt(pieces, blocks, raw);
      }
      if (typeof result === 'number') throw this.#corrupt(offsetBytes, result);
      const { counters } = context.disk;
      counters.reads += 1;
      counters.bytesRead += blocks * BLOCK_SIZE;
      return result;
    } finally {
      for (const { slot } of pieces) if (slot !== undefined) context.disk.cache.unpin(slot);
      context.leave();
    }
  }

  /** What was read, or the first block that is not what its checksum says. */
  async #attempt(
    pieces: readonly Piece[],
    blocks: number,
    raw: boolean,
  ): Promise<StoredRead | number> {
    const checksums = Buffer.allocUnsafe(4 * blocks);
    for (let n = 0; n < blocks; n += 1) checksums.writeUInt32LE(ZERO_BLOCK_CRC, 4 * n);
    const { cache, pool } = this.#context.disk;
    const runs = this.#presentRuns(pieces);
    if (runs.length === 0) return { data: undefined, checksums };
    for (const { slot, first, at, count } of pieces) {
      if (slot === undefined) continue;
      const base = slot * SLOT_BYTES;
      const range = { first, count, value: true };
      forEachRun(cache.slab, base + PRESENT_AT, range, (run, length) => {
        const from = base + CHECKSUMS_AT + 4 * run;
        cache.slab.copy(checksums, 4 * (at + run - first), from, from + 4 * length);
      });
    }
    const data = pool.acquire(blocks * BLOCK_SIZE);
    try {
      await this.#fillFrom(runs, data);
      if (raw) crc32cBlocks(data.bytes, 0, data.bytes.length, checksums, 0);
      else {
        const bad = crc32cVerify(data.bytes, 0, data.bytes.length, checksums, 0);
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

  /** Present blocks by their place on the device: runs that follow each other there and in the
   *  request are one. */
  #presentRuns(pieces: readonly Piece[]): Array<{ at: number; count: number; place: number }> {
    const { cache } = this.#context.disk;
    const runs: Array<{ at: number; count: number; place: number }> = [];
    for (const { slot, first, at, count } of pieces) {
      if (slot === undefined) continue;
      const physical = this.#records.physicalOf(slot);
      const range = { first, count, value: true };
      forEachRun(cache.slab, slot * SLOT_BYTES + PRESENT_AT, range, (run, length) => {
        const place = this.#context.deviceOffset(physical, run);
        const last = runs.at(-1);
        const follows =
          last !== undefined &&
          last.at + last.count === at + run - first &&
          last.place + last.count * BLOCK_SIZE === place;
        if (last !== undefined && follows) last.count += length;
        else runs.push({ at: at + run - first, count: length, place });
      });
    }
    return runs;
  }

  /** Reads the runs and zeroes what is between them. All reads have settled when it returns or
   *  throws. */
  async #fillFrom(
    runs: ReadonlyArray<{ at: number; count: number; place: number }>,
    data: AlignedBuffer,
  ): Promise<void> {
    const { device, counters } = this.#context.disk;
    let filled = 0;
    const reads: Array<Promise<void>> = [];
    for (const { at, count, place } of runs) {
      data.bytes.fill(0, filled * BLOCK_SIZE, at * BLOCK_SIZE);
      filled = at + count;
      counters.deviceReads += 1;
      reads.push(device.read(place, data.bytes.subarray(at * BLOCK_SIZE, filled * BLOCK_SIZE)));
    }
    data.bytes.fill(0, filled * BLOCK_SIZE);
    for (const outcome of await Promise.allSettled(reads)) {
      if (outcome.status === 'rejected') throw outcome.reason;
    }
  }

  async #untilIdle(pieces: readonly Piece[]): Promise<void> {
    for (const { slot, first, count } of pieces) {
      if (slot === undefined) continue;
      while (this.#records.isBusy(slot, first, count)) await this.#records.whenLessBusy(slot);
    }
  }

  #corrupt(offsetBytes: number, badBlock: number): StorageError {
    const { volume, replicaId } = this.#context.identity;
    this.#context.disk.counters.corruptBlocks += 1;
    const at = offsetBytes + badBlock * BLOCK_SIZE;
    return new StorageError(
      'CORRUPT_BLOCK',
      `block at ${at} of volume ${volume} is not as written`,
      {
        volume,
        replica: replicaId,
        offsetBytes: at,
        lengthBytes: BLOCK_SIZE,
        badBlock,
      },
    );
  }
}

function piecesOf(offsetBytes: number, blocks: number): Piece[] {
  const pieces: Piece[] = [];
  for (let at = 0; at < blocks; ) {
    const block = offsetBytes / BLOCK_SIZE + at;
    const extent = Math.floor(block / BLOCKS_PER_EXTENT);
    const first = block - extent * BLOCKS_PER_EXTENT;
    const count = Math.min(blocks - at, BLOCKS_PER_EXTENT - first);
    pieces.push({ extent, first, at, count, slot: undefined });
    at += count;
  }
  return pieces;
}
