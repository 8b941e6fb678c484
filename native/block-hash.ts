/**
 * A hash of each block, by which copies are compared without sending them.
 *
 * MurmurHash3 x64 128 with seed 0: two different blocks have the same hash with a probability of
 * 2^-128, so equal hashes prove equal content, which 32 bits of crc do not. It is no protection
 * against somebody who makes blocks collide on purpose; who can write to a volume harms only that.
 */
import { addon } from './addon.js';

export const BLOCK_HASH_BYTES = 16;

/** Writes the hash of each 4096-byte block to `out`, both halves little endian, low one first.
 *  @param lengthBytes  multiple of 4096; `out` gets lengthBytes / 256 bytes. @throws RangeError
 *    outside a buffer, or not whole blocks */
export function hashBlocks(
  src: Buffer,
  srcOffset: number,
  lengthBytes: number,
  out: Buffer,
  outOffset: number,
): void {
  addon.hashBlocks(src, srcOffset, lengthBytes, out, outOffset);
}
