/** Sparse reads: only the present blocks, packed, with a bitmap that says which they are. */

import { setBits } from '../../common/bitmap.js';
import type { AlignedBuffer } from '../../common/block-device.js';
import { BLOCK_SIZE } from '../../common/units.js';
import { crc32cBlocks, crc32cVerify } from '../../native/index.js';
import { bitmapBytesOf } from '../../proto/io-codec.js';
import type { SparseRead } from '../replica-store.js';
import { type Piece, presentRuns, type Run, spansOf } from './extent-pieces.js';
import type { BlockRange, PieceReader } from './piece-reader.js';
import type { StoreContext } from './store-context.js';

export class SparseReader {
  readonly #context: StoreContext;
  readonly #pieces: PieceReader;

  constructor(context: StoreContext, pieces: PieceReader) {
    this.#context = context;
    this.#pieces = pieces;
  }

  /** @see ReplicaStore.readSparse; the range was checked */
  async read(range: BlockRange): Promise<SparseRead> {
    const result = await this.#pieces.run(range, async (pieces) => {
      const found = await this.#attempt(pieces, range);
      return { result: found, bad: typeof found === 'number' };
    });
    if (typeof result === 'number') throw this.#pieces.corrupt(range.offsetBytes, result);
    const { counters } = this.#context.disk;
    counters.reads += 1;
    counters.bytesRead += result.data?.bytes.length ?? 0;
    return result;
  }

  /** What was read, or the first block of the request that is not what its checksum says. */
  async #attempt(
    pieces: readonly Piece[],
    { blocks, raw }: BlockRange,
  ): Promise<SparseRead | number> {
    const runs = presentRuns(this.#context, pieces);
    const bitmapBytes = bitmapBytesOf(blocks);
    const present = runs.reduce((sum, { count }) => sum + count, 0);
    const checksums = Buffer.alloc(bitmapBytes + 4 * present);
    for (const { at, count } of runs) setBits(checksums, 0, at, count);
    if (present === 0) return { data: undefined, checksums };
    const stored = this.#pieces.storedChecksums(pieces, blocks);
    pack(stored, { into: checksums, from: bitmapBytes, unit: 4 }, runs);
    const data = this.#context.disk.pool.acquire(blocks * BLOCK_SIZE);
    try {
      await this.#pieces.readSpans(spansOf(runs), data.bytes);
      pack(data.bytes, { into: data.bytes, from: 0, unit: BLOCK_SIZE }, runs);
      const length = present * BLOCK_SIZE;
      if (raw) crc32cBlocks(data.bytes, 0, length, checksums, bitmapBytes);
      else {
        const bad = crc32cVerify(data.bytes, 0, length, checksums, bitmapBytes);
        if (bad !== -1) {
          data.release();
          return blockOf(runs, bad);
        }
      }
      return { data: shortened(data, length), checksums };
    } catch (error) {
      data.release();
      throw error;
    }
  }
}

/** Moves what belongs to the runs together; to a lower place in the same memory, or elsewhere. */
function pack(
  bytes: Buffer,
  target: { readonly into: Buffer; readonly from: number; readonly unit: number },
  runs: readonly Run[],
): void {
  const { into, unit } = target;
  let to = target.from;
  for (const { at, count } of runs) {
    const inPlace = into === bytes && to === at * unit;
    if (!inPlace) bytes.copy(into, to, at * unit, (at + count) * unit);
    to += count * unit;
  }
}

/** The block of the request that is at `index` among the present ones. */
function blockOf(runs: readonly Run[], index: number): number {
  let left = index;
  for (const { at, count } of runs) {
    if (left < count) return at + left;
    left -= count;
  }
  throw new Error('unreachable: there are as many checksums as blocks');
}

function shortened(data: AlignedBuffer, lengthBytes: number): AlignedBuffer {
  if (lengthBytes === data.bytes.length) return data;
  return { bytes: data.bytes.subarray(0, lengthBytes), release: () => data.release() };
}
