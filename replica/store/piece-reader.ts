/** Reads present blocks of a request from the device: what plain reads, sparse ones and hashes have
 *  in common. */
import { forEachRun } from '../../common/bitmap.js';
import { StorageError } from '../../common/errors.js';
import { BLOCK_SIZE } from '../../common/units.js';
import { ZERO_BLOCK_CRC } from '../../native/index.js';
import { forEachGap, type Piece, piecesOf, type Span } from './extent-pieces.js';
import { CHECKSUMS_AT, PRESENT_AT, SLOT_BYTES } from './extent-record.js';
import type { ExtentRecords } from './extent-records.js';
import type { StoreContext } from './store-context.js';

export interface BlockRange {
  readonly offsetBytes: number;
  readonly blocks: number;
  /** as the device has it: stored checksums are not looked at */
  readonly raw: boolean;
}

export class PieceReader {
  readonly #context: StoreContext;
  readonly #records: ExtentRecords;

  constructor(context: StoreContext, records: ExtentRecords) {
    this.#context = context;
    this.#records = records;
  }

  /** Runs `attempt` with the records of the range pinned and, unless it is raw, their checksums
   *  true. What does not match its checksum may have met a write: then it runs once more, when
   *  those have ended.
   *  @param attempt  `bad`: something did not match */
  async run<T>(
    range: BlockRange,
    attempt: (pieces: readonly Piece[]) => Promise<{ readonly result: T; readonly bad: boolean }>,
  ): Promise<T> {
    const context = this.#context;
    const want = { create: false, prove: !range.raw };
    context.enter();
    const pieces = piecesOf(range.offsetBytes, range.blocks);
    try {
      for (const piece of pieces) piece.slot = await this.#records.acquire(piece.extent, want);
      const first = await attempt(pieces);
      if (!first.bad) return first.result;
      await this.#untilIdle(pieces);
      return (await attempt(pieces)).result;
    } finally {
      for (const { slot } of pieces) if (slot !== undefined) context.disk.cache.unpin(slot);
      context.leave();
    }
  }

  /** One word per block of the range; that of zeroes where the block is absent. */
  storedChecksums(pieces: readonly Piece[], blocks: number): Buffer {
    const { slab } = this.#context.disk.cache;
    const checksums = Buffer.allocUnsafe(4 * blocks);
    for (let n = 0; n < blocks; n += 1) checksums.writeUInt32LE(ZERO_BLOCK_CRC, 4 * n);
    for (const { slot, first, at, count } of pieces) {
      if (slot === undefined) continue;
      const base = slot * SLOT_BYTES;
      forEachRun(slab, base + PRESENT_AT, { first, count, value: true }, (run, length) => {
        const from = base + CHECKSUMS_AT + 4 * run;
        slab.copy(checksums, 4 * (at + run - first), from, from + 4 * length);
      });
    }
    return checksums;
  }

  /** Reads a span to its place in `bytes`, which begins with the request; its gaps become zeroes.
   */
  async readSpan(span: Span, bytes: Buffer): Promise<void> {
    const { device, counters } = this.#context.disk;
    const { at, count, place } = span;
    counters.deviceReads += 1;
    await device.read(place, bytes.subarray(at * BLOCK_SIZE, (at + count) * BLOCK_SIZE));
    forEachGap(span, (gap, length) => {
      bytes.fill(0, gap * BLOCK_SIZE, (gap + length) * BLOCK_SIZE);
    });
  }

  /** All reads have settled when it returns or throws. */
  async readSpans(spans: readonly Span[], bytes: Buffer): Promise<void> {
    const outcomes = await Promise.allSettled(spans.map((span) => this.readSpan(span, bytes)));
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
  }

  /** @param badBlock  index in the request */
  corrupt(offsetBytes: number, badBlock: number): StorageError {
    const { volume, replicaId } = this.#context.identity;
    this.#context.disk.counters.corruptBlocks += 1;
    const at = offsetBytes + badBlock * BLOCK_SIZE;
    const where = { offsetBytes: at, lengthBytes: BLOCK_SIZE, badBlock };
    const text = `block at ${at} of volume ${volume} is not as written`;
    return new StorageError('CORRUPT_BLOCK', text, { volume, replica: replicaId, ...where });
  }

  async #untilIdle(pieces: readonly Piece[]): Promise<void> {
    for (const { slot, first, count } of pieces) {
      if (slot === undefined) continue;
      while (this.#records.isBusy(slot, first, count)) await this.#records.whenLessBusy(slot);
    }
  }
}
