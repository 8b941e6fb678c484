/**
 * The way of a replace's blocks from the network message to their places in memory that the device
 * can take: as for a write nothing reaches the store before its checksums were found right, and the
 * bytes are copied at most once.
 */

import { forEachRun } from '../../common/bitmap.js';
import type { BufferPool } from '../../common/block-device.js';
import { BLOCK_SIZE, BLOCKS_PER_EXTENT } from '../../common/units.js';
import { copyAndChecksum } from '../../native/index.js';
import { bitmapBytesOf } from '../../proto/io-codec.js';
import type { IncomingMessage } from '../../proto/message-stream.js';
import type { Replacement } from '../replica-store.js';
import { corruptPayload, type PayloadPlace, takePayload } from './write-payload.js';

/** crc32c of the blocks that are being copied; used within one call. */
const computed = Buffer.alloc(4 * BLOCKS_PER_EXTENT);

/** Where a run of present blocks goes: block of the range, how many. */
interface Run {
  readonly at: number;
  readonly count: number;
}

/** What the message wants a range of `blocks` blocks to hold. Bitmap and checksums are borrowed
 *  from the message, the data is the caller's. The form was checked by the decoder.
 *  @throws StorageError CORRUPT_MESSAGE (details.badBlock: index in the range) | OVERLOADED; then
 *    nothing is held */
export function takeReplacement(
  message: IncomingMessage,
  place: PayloadPlace & { readonly checksumsEnd: number; readonly blocks: number },
  pool: BufferPool,
): Replacement {
  const { checksumsStart, checksumsEnd, blocks } = place;
  const sumsStart = checksumsStart + bitmapBytesOf(blocks);
  const bitmap = message.bytes.subarray(checksumsStart, sumsStart);
  const checksums = message.bytes.subarray(sumsStart, checksumsEnd);
  const runs: Run[] = [];
  forEachRun(bitmap, 0, { first: 0, count: blocks, value: true }, (at, count) => {
    runs.push({ at, count });
  });
  const [first] = runs;
  if (first === undefined) return { bitmap, checksums, data: undefined };
  if (runs.length > 1) return { bitmap, checksums, data: spread(message, place, runs, pool) };
  const packed = { ...place, checksumsStart: sumsStart, firstBlock: first.at };
  return { bitmap, checksums, data: takePayload(message, packed, pool) };
}

/** The blocks at their places, and zeroes between them. */
function spread(
  message: IncomingMessage,
  place: PayloadPlace & { readonly blocks: number },
  runs: readonly Run[],
  pool: BufferPool,
) {
  const start = runs[0]?.at ?? 0;
  const last = runs.at(-1) ?? { at: start, count: 0 };
  const buffer = pool.acquire((last.at + last.count - start) * BLOCK_SIZE);
  const { bytes } = message;
  let expectedAt = place.checksumsStart + bitmapBytesOf(place.blocks);
  let from = place.payloadStart;
  let end = 0;
  for (const { at, count } of runs) {
    const to = (at - start) * BLOCK_SIZE;
    const length = count * BLOCK_SIZE;
    buffer.bytes.fill(0, end, to);
    copyAndChecksum(bytes, from, buffer.bytes, to, length, computed, 0);
    if (computed.compare(bytes, expectedAt, expectedAt + 4 * count, 0, 4 * count) !== 0) {
      buffer.release();
      throw corruptPayload(at + firstDifference(bytes, expectedAt, count));
    }
    from += length;
    expectedAt += 4 * count;
    end = to + length;
  }
  return buffer;
}

function firstDifference(bytes: Buffer, expectedAt: number, count: number): number {
  for (let n = 0; n < count; n += 1) {
    if (bytes.readUInt32LE(expectedAt + 4 * n) !== computed.readUInt32LE(4 * n)) return n;
  }
  throw new Error('unreachable: the words differ somewhere');
}
