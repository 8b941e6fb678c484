/** MurmurHash3 x64 128: published values, the definition in slow numbers, and the calls over many
 *  blocks. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { addon } from '../../native/addon.js';
import { BLOCK_HASH_BYTES, hashBlocks } from '../../native/index.js';

const BLOCK = 4096;
const M = (1n << 64n) - 1n;

const rotl = (x: bigint, r: bigint): bigint => ((x << r) | (x >> (64n - r))) & M;
const mixLow = (k: bigint): bigint =>
  (rotl((k * 0x87c37b91114253d5n) & M, 31n) * 0x4cf5ad432745937fn) & M;
const mixHigh = (k: bigint): bigint =>
  (rotl((k * 0x4cf5ad432745937fn) & M, 33n) * 0x87c37b91114253d5n) & M;
const shiftXor = (k: bigint): bigint => k ^ (k >> 33n);
const finish = (k: bigint): bigint =>
  shiftXor((shiftXor((shiftXor(k) * 0xff51afd7ed558ccdn) & M) * 0xc4ceb9fe1a85ec53n) & M);

/** MurmurHash3_x64_128 as published, with any seed. */
function reference(bytes: Buffer, seed: number): Buffer {
  let [h1, h2] = [BigInt(seed), BigInt(seed)];
  const whole = bytes.length - (bytes.length % 16);
  for (let at = 0; at < whole; at += 16) {
    h1 ^= mixLow(bytes.readBigUInt64LE(at));
    h1 = ((rotl(h1, 27n) + h2) * 5n + 0x52dce729n) & M;
    h2 ^= mixHigh(bytes.readBigUInt64LE(at + 8));
    h2 = ((rotl(h2, 31n) + h1) * 5n + 0x38495ab5n) & M;
  }
  const tail = Buffer.alloc(16);
  bytes.copy(tail, 0, whole);
  h2 ^= mixHigh(tail.readBigUInt64LE(8));
  h1 ^= mixLow(tail.readBigUInt64LE(0));
  const length = BigInt(bytes.length);
  h1 = ((h1 ^ length) + (h2 ^ length)) & M;
  h2 = (h1 + (h2 ^ length)) & M;
  h1 = finish(h1);
  h2 = finish(h2);
  h1 = (h1 + h2) & M;
  h2 = (h2 + h1) & M;
  const out = Buffer.alloc(16);
  out.writeBigUInt64LE(h1, 0);
  out.writeBigUInt64LE(h2, 8);
  return out;
}

function native(bytes: Buffer): Buffer {
  const out = Buffer.alloc(16);
  addon.murmur3(bytes, out);
  return out;
}

describe('the hash of one piece', () => {
  test.each([
    ['', '0000000000000000', '0000000000000000'],
    ['hello', 'cbd8a7b341bd9b02', '5b1e906a48ae1d19'],
    ['The quick brown fox jumps over the lazy dog', 'e34bbc7bbc071b6c', '7a433ca9c49a9347'],
  ])('published: "%s"', (text, low, high) => {
    const bytes = native(Buffer.from(text));
    const words = [0, 8].map((at) => bytes.readBigUInt64LE(at).toString(16).padStart(16, '0'));
    expect(words).toEqual([low, high]);
  });

  test('the slow definition passes the verification of SMHasher, 0x6384BA69', () => {
    const hashes = Array.from({ length: 256 }, (_, length) =>
      reference(Buffer.from(Array.from({ length }, (_n, byte) => byte)), 256 - length),
    );
    expect(reference(Buffer.concat(hashes), 0).readUInt32LE(0)).toBe(0x6384ba69);
  });

  test('agrees with the definition at every length and alignment', () => {
    const property = fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(15), (bytes, at) => {
      const shifted = Buffer.concat([Buffer.alloc(at), bytes]).subarray(at);
      expect(native(shifted).equals(reference(shifted, 0))).toBe(true);
    });
    fc.assert(property, { numRuns: 500 });
  });

  test('no room for it is a RangeError', () => {
    expect(() => addon.murmur3(Buffer.alloc(1), Buffer.alloc(15))).toThrow(RangeError);
  });
});

describe('hashes of blocks', () => {
  const blocks = 4;
  const data = Buffer.from(
    Array.from({ length: blocks * BLOCK }, (_, n) => (n * 7 + (n >> 8)) & 255),
  );

  test('16 bytes per block at their place, nothing beside them', () => {
    const out = Buffer.alloc(2 * BLOCK_HASH_BYTES + 2, 0xee);
    hashBlocks(data, BLOCK, 2 * BLOCK, out, 1);
    for (const n of [0, 1]) {
      const block = data.subarray((n + 1) * BLOCK, (n + 2) * BLOCK);
      const found = out.subarray(1 + n * BLOCK_HASH_BYTES, 1 + (n + 1) * BLOCK_HASH_BYTES);
      expect(found.equals(reference(block, 0))).toBe(true);
    }
    expect([out[0], out[33]]).toEqual([0xee, 0xee]);
  });

  test('one bit anywhere changes the hash', () => {
    const hashes = new Set<string>();
    const block = Buffer.alloc(BLOCK);
    for (let bit = 0; bit < 8 * BLOCK; bit += 97) {
      block.writeUInt8(1 << (bit % 8), bit >> 3);
      const out = Buffer.alloc(16);
      hashBlocks(block, 0, BLOCK, out, 0);
      hashes.add(out.toString('hex'));
      block.writeUInt8(0, bit >> 3);
    }
    expect(hashes.size).toBe(Math.ceil((8 * BLOCK) / 97));
  });

  test.each([
    ['not whole blocks', 0, 100, 0],
    ['past the source', BLOCK, blocks * BLOCK, 0],
    ['past the output', 0, blocks * BLOCK, 16],
    ['negative offset', -1, BLOCK, 0],
    ['negative length', 0, -BLOCK, 0],
    ['not a number', Number.NaN, BLOCK, 0],
    ['endless', 0, Number.POSITIVE_INFINITY, 0],
    ['beyond 2^53', 2 ** 60, BLOCK, 0],
  ])('a range that is %s is a RangeError, not a read past the end', (_name, at, length, outAt) => {
    const out = Buffer.alloc(blocks * BLOCK_HASH_BYTES);
    expect(() => hashBlocks(data, at, length, out, outAt)).toThrow(RangeError);
  });
});
