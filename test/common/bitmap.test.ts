import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  allSet,
  anySet,
  bitIsSet,
  clearBits,
  countSet,
  forEachRun,
  runEnd,
  setBits,
} from '../../common/bitmap.js';

const BITS = 200;
const BASE = 3;

const range = fc
  .record({ first: fc.nat(BITS - 1), count: fc.integer({ min: 1, max: BITS }) })
  .map(({ first, count }) => ({ first, count: Math.min(count, BITS - first) }));
const changes = fc.array(fc.record({ set: fc.boolean(), range }), { maxLength: 12 });

describe('a bitmap inside a buffer', () => {
  it('agrees with a set of numbers, and leaves what is beside it alone', () => {
    fc.assert(
      fc.property(changes, range, (steps, { first, count }) => {
        const map = Buffer.alloc(BASE + BITS / 8 + 1, 0);
        map.fill(0xa5, 0, BASE);
        map.fill(0xa5, BASE + BITS / 8);
        const model = new Set<number>();
        for (const { set, range: at } of steps) {
          if (set) setBits(map, BASE, at.first, at.count);
          else clearBits(map, BASE, at.first, at.count);
          for (let bit = at.first; bit < at.first + at.count; bit += 1) {
            if (set) model.add(bit);
            else model.delete(bit);
          }
        }
        const inside = Array.from({ length: count }, (_, n) => first + n);
        const held = inside.filter((bit) => model.has(bit));
        expect(inside.filter((bit) => bitIsSet(map, BASE, bit))).toEqual(held);
        expect(allSet(map, BASE, first, count)).toBe(held.length === count);
        expect(anySet(map, BASE, first, count)).toBe(held.length > 0);
        expect(countSet(map, BASE, first, count)).toBe(held.length);
        const runs: number[] = [];
        forEachRun(map, BASE, { first, count, value: true }, (at, length) => {
          for (let n = 0; n < length; n += 1) runs.push(at + n);
          expect(runEnd(map, BASE, at, first + count)).toBe(at + length);
        });
        expect(runs).toEqual(held);
        expect([...map.subarray(0, BASE), map[BASE + BITS / 8]]).toEqual([165, 165, 165, 165]);
      }),
      { numRuns: 300 },
    );
  });

  it('counts an empty range as nothing', () => {
    expect(countSet(Buffer.from([0xff]), 0, 8, 0)).toBe(0);
  });
});
