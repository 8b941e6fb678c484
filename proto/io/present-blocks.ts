/**
 * Ranges of which only the present blocks travel: a bitmap, one checksum and one packed block per
 * set bit. The reply of a sparse READ and the request REPLACE have the same form, so that what one
 * replica sent can be handed on to another as it came.
 *
 * The bitmap has one bit per block of the range, the first one in the lowest bit of its first byte,
 * and is filled up with zero bits to whole words of four bytes.
 */
import { countSet } from '../../common/bitmap.js';
import { StorageError } from '../../common/errors.js';
import { BLOCK_SIZE } from '../../common/units.js';
import { HASH_BYTES } from './limits.js';

/** The fields of a request or reply that are looked at here: half-open index ranges in `bytes`. */
export interface PresentFields {
  readonly id: number;
  readonly checksumsStart: number;
  readonly checksumsEnd: number;
  readonly payloadStart: number;
  readonly payloadEnd: number;
  readonly bytes: Buffer;
}

/** Length of the bitmap of a range of `blocks` blocks. */
export function bitmapBytesOf(blocks: number): number {
  return Math.ceil(blocks / 32) * 4;
}

/** How many blocks of the range are present. The bitmap begins at `checksumsStart`, the checksums
 *  follow it, bitmapBytesOf(blocks) behind; the blocks are at `payloadStart`, packed in order.
 *  @param blocks  of the range that was asked for, or that the request names
 *  @throws StorageError PROTOCOL_ERROR: bitmap, checksums and payload do not go together */
export function presentBlocksOf(fields: PresentFields, blocks: number): number {
  const bitmapBytes = bitmapBytesOf(blocks);
  const sumsBytes = fields.checksumsEnd - fields.checksumsStart - bitmapBytes;
  if (sumsBytes < 0) throw fault(fields, `the bitmap of ${blocks} blocks is cut`);
  checkFill(fields, fields.checksumsStart, blocks);
  const present = countSet(fields.bytes, fields.checksumsStart, 0, blocks);
  if (sumsBytes !== 4 * present) {
    throw fault(fields, `${sumsBytes} checksum bytes for ${present} present blocks`);
  }
  const payloadBytes = fields.payloadEnd - fields.payloadStart;
  if (payloadBytes !== present * BLOCK_SIZE) {
    throw fault(fields, `${payloadBytes} bytes for ${present} present blocks`);
  }
  return present;
}

/** How many blocks are bad in a reply to HASH of `blocks` blocks. The bitmap of present blocks is
 *  at `checksumsStart`, that of bad ones bitmapBytesOf(blocks) behind, the hashes at
 *  `payloadStart`.
 *  @throws StorageError PROTOCOL_ERROR: the reply is not of that size */
export function badBlocksOf(fields: PresentFields, blocks: number): number {
  const bitmapBytes = bitmapBytesOf(blocks);
  if (fields.checksumsEnd - fields.checksumsStart !== 2 * bitmapBytes) {
    throw fault(fields, `two bitmaps of ${blocks} blocks are ${2 * bitmapBytes} bytes`);
  }
  if (fields.payloadEnd - fields.payloadStart !== blocks * HASH_BYTES) {
    throw fault(fields, `${fields.payloadEnd - fields.payloadStart} bytes for ${blocks} hashes`);
  }
  checkFill(fields, fields.checksumsStart, blocks);
  checkFill(fields, fields.checksumsStart + bitmapBytes, blocks);
  return countSet(fields.bytes, fields.checksumsStart + bitmapBytes, 0, blocks);
}

function checkFill(fields: PresentFields, base: number, blocks: number): void {
  const bits = 8 * bitmapBytesOf(blocks);
  if (countSet(fields.bytes, base, blocks, bits - blocks) === 0) return;
  throw fault(fields, `the bitmap has bits past its ${blocks} blocks`);
}

function fault(fields: PresentFields, what: string): StorageError {
  return new StorageError('PROTOCOL_ERROR', `request ${fields.id}: ${what}`);
}
