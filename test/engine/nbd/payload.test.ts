/** Property tests of the two pieces that cut and join bytes. */
import { describe, expect, it } from 'vitest';
import { Payload } from '../../../engine/nbd/payload.js';
import { zeroRuns } from '../../../engine/nbd/zero-runs.js';
import { SeededRandom } from './seeded-random.js';

const seed = SeededRandom.runSeed();

describe(`payload and zero runs (AUROCHS_SEED=${seed})`, () => {
  it('a payload is the same however it was cut, to the byte', () => {
    const random = new SeededRandom(seed);
    for (let round = 0; round < 200; round += 1) {
      const bytes = random.bytes(1 + random.below(60_000));
      const payload = new Payload(bytes.length);
      const crumbs = random.pick([1, 3, 100, 5000, 70_000]);
      let at = 0;
      while (payload.leftBytes > 0) {
        const end = at + 1 + random.below(crumbs);
        // a socket chunk may reach behind the payload: that part is not ours
        const behind = Buffer.alloc(end >= bytes.length ? 9 : 0, 0xee);
        const chunk = Buffer.concat([bytes.subarray(at, end), behind]);
        at += payload.take(chunk, 0);
      }
      expect(Buffer.concat(payload.pieces).equals(bytes)).toBe(true);
    }
  });

  it('a megabyte in single bytes becomes few pieces', () => {
    const payload = new Payload(1 << 20);
    const crumb = Buffer.from([7]);
    while (payload.leftBytes > 0) payload.take(crumb, 0);
    expect(payload.pieces.length).toBeLessThan(40);
  });

  it('zero runs name zeroes only, cover everything, and miss no zero chunk', () => {
    const random = new SeededRandom(seed + 1);
    for (let round = 0; round < 300; round += 1) {
      const chunks = Array.from({ length: 1 + random.below(6) }, () => {
        const chunk = Buffer.alloc(1 + random.below(200_000));
        if (random.chance(50)) chunk.fill(1, random.below(chunk.length));
        if (random.chance(30)) chunk[random.below(chunk.length)] = 1;
        return chunk;
      });
      const all = Buffer.concat(chunks);
      const runs = zeroRuns(chunks, all.length);
      if (runs === undefined) {
        const isWholeZero = (chunk: Buffer): boolean =>
          chunk.length >= 4096 && chunk.every((byte) => byte === 0);
        expect(chunks.some(isWholeZero)).toBe(false);
        continue;
      }
      let at = 0;
      runs.forEach((length, i) => {
        expect(length > 0 || i === 0).toBe(true);
        if (i % 2 === 1) expect(all.subarray(at, at + length).every((b) => b === 0)).toBe(true);
        at += length;
      });
      expect(at).toBe(all.length);
    }
  });
});
