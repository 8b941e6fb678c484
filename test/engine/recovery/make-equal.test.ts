import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BLOCK_SIZE, EXTENT_SIZE } from '../../../common/units.js';
import { differingRuns, planPieces } from '../../../engine/recovery/make-equal.js';

describe('ranges to make equal (P5)', () => {
  it('covers exactly the union, in pieces inside one extent', () => {
    const blocks = 1024;
    const range = fc
      .tuple(fc.nat({ max: blocks }), fc.integer({ min: 1, max: 600 }))
      .map(([at, count]) => ({ offsetBytes: at * BLOCK_SIZE, lengthBytes: count * BLOCK_SIZE }));
    fc.assert(
      fc.property(fc.array(range, { maxLength: 12 }), (ranges) => {
        const want = new Set<number>();
        for (const r of ranges) {
          const end = Math.min(r.offsetBytes + r.lengthBytes, blocks * BLOCK_SIZE);
          for (let at = r.offsetBytes; at < end; at += BLOCK_SIZE) want.add(at);
        }
        const got: number[] = [];
        for (const piece of planPieces(ranges, blocks * BLOCK_SIZE)) {
          const last = piece.offsetBytes + piece.lengthBytes - 1;
          expect(Math.floor(piece.offsetBytes / EXTENT_SIZE)).toBe(Math.floor(last / EXTENT_SIZE));
          for (let at = piece.offsetBytes; at < last; at += BLOCK_SIZE) got.push(at);
        }
        expect(got).toEqual([...want].sort((a, b) => a - b));
      }),
    );
  });

  it.each([
    { name: 'equal', blocks: [], runs: [] },
    { name: 'first', blocks: [0], runs: [[0, 1]] },
    { name: 'last', blocks: [7], runs: [[7, 1]] },
    {
      name: 'two runs',
      blocks: [1, 2, 5],
      runs: [
        [1, 2],
        [5, 1],
      ],
    },
    { name: 'all', blocks: [0, 1, 2, 3, 4, 5, 6, 7], runs: [[0, 8]] },
  ])('finds the blocks that differ: $name', ({ blocks, runs }) => {
    const a = Buffer.alloc(8 * BLOCK_SIZE, 1);
    const b = Buffer.from(a);
    for (const block of blocks) b[block * BLOCK_SIZE + 4095] = 2;
    const want = runs.map(([at = 0, count = 0]) => ({
      offsetBytes: at * BLOCK_SIZE,
      lengthBytes: count * BLOCK_SIZE,
    }));
    expect(differingRuns(a, b)).toEqual(want);
  });
});
