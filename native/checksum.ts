/** crc32c over bytes and over blocks. One native call checks or makes the checksums of a whole
 *  request. */
import { addon } from './addon.js';

/** crc32c of 4096 zero bytes. */
export const ZERO_BLOCK_CRC = 0x98f94189;

/** CRC-32C (RFC 3720) of all bytes, as unsigned 32-bit number. */
export function crc32c(bytes: Buffer): number {
  return addon.crc32c(bytes);
}

/** Writes the crc32c of each 4096-byte block as little-endian u32 to `out`.
 *  @param lengthBytes  multiple of 4096; `out` gets lengthBytes / 1024 bytes. @throws RangeError
 *  outside a buffer */
export function crc32cBlocks(
  src: Buffer,
  srcOffset: number,
  lengthBytes: number,
  out: Buffer,
  outOffset: number,
): void {
  addon.crc32cBlocks(src, srcOffset, lengthBytes, out, outOffset);
}

/** @returns index of the first 4096-byte block whose crc32c is not the little-endian u32 in
 *  `expected`, or -1
 *  @throws RangeError outside a buffer, or not whole blocks */
export function crc32cVerify(
  src: Buffer,
  srcOffset: number,
  lengthBytes: number,
  expected: Buffer,
  expectedOffset: number,
): number {
  return addon.crc32cVerify(src, srcOffset, lengthBytes, expected, expectedOffset);
}

/** Copies whole blocks and writes the crc32c of each copied block, as crc32cBlocks does: what is
 *  checksummed is what will be stored. @throws RangeError outside a buffer, or not whole blocks */
export function copyAndChecksum(
  src: Buffer,
  srcOffset: number,
  dst: Buffer,
  dstOffset: number,
  lengthBytes: number,
  out: Buffer,
  outOffset: number,
): void {
  addon.copyAndChecksum(src, srcOffset, dst, dstOffset, lengthBytes, out, outOffset);
}
