/** Hashes of blocks, by which copies are compared without sending them, and which blocks are
 *  bad. */
import { setBits } from '../../common/bitmap.js';
import { toStorageError } from '../../common/errors.js';
import { BLOCK_SIZE } from '../../common/units.js';
import { BLOCK_HASH_BYTES, crc32cBlocks, hashBlocks } from '../../native/index.js';
import { bitmapBytesOf } from '../../proto/io-codec.js';
import type { BlockHashes } from '../replica-store.js';
import { type Piece, presentRuns, type Run, type Span, spansOf } from './extent-pieces.js';
import type { BlockRange, PieceReader } from './piece-reader.js';
import type { StoreContext } from './store-context.js';

const ZERO_BLOCK_HASH = Buffer.alloc(BLOCK_HASH_BYTES);
hashBlocks(Buffer.alloc(BLOCK_SIZE), 0, BLOCK_SIZE, ZERO_BLOCK_HASH, 0);

export class ExtentHasher {
  readonly #context: StoreContext;
  readonly #pieces: PieceReader;

  constructor(context: StoreContext, pieces: PieceReader) {
    this.#context = context;
    this.#pieces = pieces;
  }

  /** @see ReplicaStore.hash; the range was checked */
  async hash(range: BlockRange): Promise<BlockHashes> {
    const result = await this.#pieces.run(range, async (pieces) => {
      const found = await this.#attempt(pieces, range);
      return { result: found, bad: found.bad > 0 };
    });
    const { counters } = this.#context.disk;
    counters.hashes += 1;
    counters.bytesHashed += range.blocks * BLOCK_SIZE;
    counters.corruptBlocks += result.bad;
    return result;
  }

  async #attempt(
    pieces: readonly Piece[],
    { blocks, raw }: BlockRange,
  ): Promise<BlockHashes & { readonly bad: number }> {
    const bitmapBytes = bitmapBytesOf(blocks);
    const bitmaps = Buffer.alloc(2 * bitmapBytes);
    const hashes = Buffer.alloc(blocks * BLOCK_HASH_BYTES, ZERO_BLOCK_HASH);
    const runs = presentRuns(this.#context, pieces);
    if (runs.length === 0) return { bitmaps, hashes, bad: 0 };
    for (const { at, count } of runs) setBits(bitmaps, 0, at, count);
    const data = this.#context.disk.pool.acquire(blocks * BLOCK_SIZE);
    try {
      const spans = spansOf(runs);
      const unreadable = await this.#readAll(spans, data.bytes);
      for (const { at, count } of spans) {
        const length = count * BLOCK_SIZE;
        hashBlocks(data.bytes, at * BLOCK_SIZE, length, hashes, at * BLOCK_HASH_BYTES);
      }
      const bad = new Set(unreadable);
      if (!raw) {
        const stored = this.#pieces.storedChecksums(pieces, blocks);
        for (const block of mismatches(runs, stored, data.bytes)) bad.add(block);
      }
      for (const block of bad) setBits(bitmaps, bitmapBytes, block, 1);
      for (const block of unreadable) {
        hashes.fill(0, block * BLOCK_HASH_BYTES, (block + 1) * BLOCK_HASH_BYTES);
      }
      return { bitmaps, hashes, bad: bad.size };
    } finally {
      data.release();
    }
  }

  /** All reads have settled when it returns or throws. */
  async #readAll(spans: readonly Span[], bytes: Buffer): Promise<number[]> {
    const unreadable: number[] = [];
    const reads = spans.map((span) => this.#read(span, bytes));
    for (const outcome of await Promise.allSettled(reads)) {
      if (outcome.status === 'rejected') throw outcome.reason;
      unreadable.push(...outcome.value);
    }
    return unreadable;
  }

  /** Reads a span, block by block if the device cannot do it as a whole. Settles when nothing is in
   *  flight on `bytes`.
   *  @returns present blocks that cannot be read; their place in `bytes` holds zeroes */
  async #read(span: Span, bytes: Buffer): Promise<number[]> {
    try {
      await this.#pieces.readSpan(span, bytes);
      return [];
    } catch (error) {
      checkUnreadable(error);
    }
    bytes.fill(0, span.at * BLOCK_SIZE, (span.at + span.count) * BLOCK_SIZE);
    const unreadable: number[] = [];
    for (const run of span.runs) {
      for (let n = 0; n < run.count; n += 1) {
        const block = { at: run.at + n, count: 1, place: run.place + n * BLOCK_SIZE };
        try {
          await this.#pieces.readSpan({ ...block, runs: [block] }, bytes);
        } catch (error) {
          checkUnreadable(error);
          bytes.fill(0, block.at * BLOCK_SIZE, (block.at + 1) * BLOCK_SIZE);
          unreadable.push(block.at);
        }
      }
    }
    return unreadable;
  }
}

/** Lets a medium error pass; whatever else went wrong is none of the blocks. */
function checkUnreadable(cause: unknown): void {
  const error = toStorageError(cause, 'read for a hash');
  if (error.code !== 'IO_ERROR') throw error;
}

/** Present blocks whose content is not what the stored checksum says. */
function mismatches(runs: readonly Run[], stored: Buffer, bytes: Buffer): number[] {
  const found: number[] = [];
  const computed = Buffer.allocUnsafe(stored.length);
  for (const { at, count } of runs) {
    crc32cBlocks(bytes, at * BLOCK_SIZE, count * BLOCK_SIZE, computed, 4 * at);
    for (let block = at; block < at + count; block += 1) {
      if (computed.readUInt32LE(4 * block) !== stored.readUInt32LE(4 * block)) found.push(block);
    }
  }
  return found;
}
