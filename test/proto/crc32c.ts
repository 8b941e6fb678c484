/** A table crc32c for tests: the native one is not needed to test the codec. */
import { BLOCK_SIZE } from '../../common/units.js';

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = (value >>> 1) ^ (value & 1 ? 0x82f63b78 : 0);
  return value >>> 0;
});

export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ (TABLE[(crc ^ byte) & 0xff] as number);
  return (crc ^ 0xffffffff) >>> 0;
}

/** As crc32cBlocks of native/index.ts. */
export function checksumBlocks(
  src: Buffer,
  srcOffset: number,
  lengthBytes: number,
  out: Buffer,
  outOffset: number,
): void {
  for (let at = 0; at < lengthBytes; at += BLOCK_SIZE) {
    const block = src.subarray(srcOffset + at, srcOffset + at + BLOCK_SIZE);
    out.writeUInt32LE(crc32c(block), outOffset + (at / BLOCK_SIZE) * 4);
  }
}
