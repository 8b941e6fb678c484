/** crc32c: the vectors of RFC 3720, the processor's instruction against the table, the calls over
 *  many blocks. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { addon } from '../../native/addon.js';
import {
  copyAndChecksum,
  crc32c,
  crc32cBlocks,
  crc32cVerify,
  nativeCapabilities,
  ZERO_BLOCK_CRC,
} from '../../native/index.js';

const BLOCK = 4096;
const ascending = Buffer.from(Array.from({ length: 32 }, (_, i) => i));
const iscsiRead = Buffer.from(
  '01c00000000000000000000000000000140000000000040000000014' +
    '0000001828000000000000000200000000000000',
  'hex',
);

/** One bit at a time, straight from the definition. */
function slowCrc32c(bytes: Buffer): number {
  let state = 0xffffffff;
  for (const byte of bytes) {
    state ^= byte;
    for (let bit = 0; bit < 8; bit++) state = (state >>> 1) ^ (state & 1 ? 0x82f63b78 : 0);
  }
  return ~state >>> 0;
}

function noise(lengthBytes: number, seed: number): Buffer {
  let state = seed >>> 0 || 1;
  const bytes = Buffer.alloc(lengthBytes);
  for (let i = 0; i < lengthBytes; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}

describe('crc32c', () => {
  test.each([
    ['32 zeroes', Buffer.alloc(32), 0x8a9136aa],
    ['32 ones', Buffer.alloc(32, 0xff), 0x62a8ab43],
    ['ascending', ascending, 0x46dd794e],
    ['descending', Buffer.from(ascending).reverse(), 0x113fdb5c],
    ['iSCSI read command', iscsiRead, 0xd9963a56],
    ['123456789', Buffer.from('123456789'), 0xe3069283],
    ['nothing', Buffer.alloc(0), 0],
  ])('RFC 3720 B.4: %s', (_name, bytes, want) => {
    expect(crc32c(bytes)).toBe(want);
    expect(addon.crc32cPortable(bytes)).toBe(want);
  });

  test('a block of zeroes has ZERO_BLOCK_CRC', () => {
    expect(crc32c(Buffer.alloc(BLOCK))).toBe(ZERO_BLOCK_CRC);
  });

  test('reports which implementation runs', () => {
    expect(['sse4.2', 'armv8', 'table']).toContain(nativeCapabilities().crc32c);
  });

  test('table and instruction agree with the definition at every length and alignment', () => {
    const bytes = noise(20_000, 7);
    for (let length = 0; length < 1200; length++) {
      const part = bytes.subarray(length % 9, (length % 9) + length);
      const want = addon.crc32cPortable(part);
      expect(crc32c(part)).toBe(want);
      if (length % 37 === 0) expect(slowCrc32c(part)).toBe(want);
    }
    const property = fc.property(
      fc.nat(64),
      fc.nat(19_900),
      fc.nat(1 << 30),
      (at, length, seed) => {
        const part = noise(at + length, seed).subarray(at);
        expect(crc32c(part)).toBe(addon.crc32cPortable(part));
      },
    );
    fc.assert(property, { numRuns: 50 });
  });
});

describe('checksums of blocks', () => {
  const blocks = 5;
  const data = noise(blocks * BLOCK, 99);

  test('crc32cBlocks writes one little-endian word per block at its place', () => {
    const out = Buffer.alloc(3 * 4 + 2, 0xee);
    crc32cBlocks(data, BLOCK, 3 * BLOCK, out, 1);
    for (let i = 0; i < 3; i++) {
      const block = data.subarray((i + 1) * BLOCK, (i + 2) * BLOCK);
      expect(out.readUInt32LE(1 + i * 4)).toBe(slowCrc32c(block));
    }
    expect([out[0], out[13]]).toEqual([0xee, 0xee]);
  });

  test.each([0, 1, 4])('R7: crc32cVerify names the first bad block, %i', (bad) => {
    const sums = Buffer.alloc(blocks * 4);
    crc32cBlocks(data, 0, data.length, sums, 0);
    expect(crc32cVerify(data, 0, data.length, sums, 0)).toBe(-1);
    const damaged = Buffer.from(data);
    damaged.writeUInt8((data[bad * BLOCK + 4095] ?? 0) ^ 1, bad * BLOCK + 4095);
    expect(crc32cVerify(damaged, 0, data.length, sums, 0)).toBe(bad);
    if (bad > 0) expect(crc32cVerify(damaged, 0, bad * BLOCK, sums, 0)).toBe(-1);
  });

  test('copyAndChecksum copies whole blocks and sums the copy, nothing beside them', () => {
    const target = Buffer.alloc(4 * BLOCK, 0xcc);
    const sums = Buffer.alloc(8);
    copyAndChecksum(data, 2 * BLOCK, target, BLOCK, 2 * BLOCK, sums, 0);
    expect(target.subarray(BLOCK, 3 * BLOCK).equals(data.subarray(2 * BLOCK, 4 * BLOCK))).toBe(
      true,
    );
    expect(target.subarray(0, BLOCK).equals(Buffer.alloc(BLOCK, 0xcc))).toBe(true);
    expect(target.subarray(3 * BLOCK).equals(Buffer.alloc(BLOCK, 0xcc))).toBe(true);
    expect(crc32cVerify(target, BLOCK, 2 * BLOCK, sums, 0)).toBe(-1);
  });

  test.each([
    ['not whole blocks', 0, 100, 0],
    ['past the source', BLOCK, blocks * BLOCK, 0],
    ['past the output', 0, blocks * BLOCK, 4],
    ['negative offset', -1, BLOCK, 0],
    ['negative length', 0, -BLOCK, 0],
    ['not a number', Number.NaN, BLOCK, 0],
    ['endless', 0, Number.POSITIVE_INFINITY, 0],
    ['beyond 2^53', 2 ** 60, BLOCK, 0],
  ])('a range that is %s is a RangeError, not a read past the end', (_name, at, length, outAt) => {
    const out = Buffer.alloc(blocks * 4);
    const target = Buffer.alloc(blocks * BLOCK);
    expect(() => crc32cBlocks(data, at, length, out, outAt)).toThrow(RangeError);
    expect(() => crc32cVerify(data, at, length, out, outAt)).toThrow(RangeError);
    expect(() => copyAndChecksum(data, at, target, 0, length, out, outAt)).toThrow(RangeError);
  });

  test('arguments of a wrong type are TypeErrors', () => {
    const wrong = 'text' as unknown as Buffer;
    expect(() => crc32c(wrong)).toThrow(TypeError);
    expect(() => crc32cBlocks(data, 0, 0, wrong, 0)).toThrow(TypeError);
  });
});
