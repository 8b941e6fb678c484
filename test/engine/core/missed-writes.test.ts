import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BLOCK_SIZE, BLOCKS_PER_EXTENT, EXTENT_SIZE } from '../../../common/units.js';
import { MissedWrites } from '../../../engine/core/missed-writes.js';

const EXTENTS = 4;

/** All blocks that are noted, as numbers in the volume. */
function blocksOf(missed: MissedWrites): number[] {
  return missed
    .extents()
    .flatMap((extent) =>
      missed
        .runs(extent)
        .flatMap(({ first, count }) =>
          Array.from({ length: count }, (_, n) => extent * BLOCKS_PER_EXTENT + first + n),
        ),
    );
}

const range = fc
  .record({
    offset: fc.nat({ max: EXTENTS * EXTENT_SIZE - 1 }),
    length: fc.oneof(fc.integer({ min: 0, max: 3 * BLOCK_SIZE }), fc.nat({ max: EXTENT_SIZE })),
  })
  .map(({ offset, length }) => ({
    offset,
    length: Math.min(length, EXTENTS * EXTENT_SIZE - offset),
  }));

function touched(ranges: readonly { offset: number; length: number }[]): Set<number> {
  const blocks = new Set<number>();
  for (const { offset, length } of ranges) {
    if (length === 0) continue;
    const last = Math.floor((offset + length - 1) / BLOCK_SIZE);
    for (let block = Math.floor(offset / BLOCK_SIZE); block <= last; block += 1) blocks.add(block);
  }
  return blocks;
}

const sorted = (blocks: Iterable<number>): number[] => [...blocks].sort((a, b) => a - b);

describe('missed writes against a set of blocks (F2)', () => {
  it('holds exactly the blocks that were touched', () => {
    fc.assert(
      fc.property(fc.array(range, { maxLength: 12 }), (ranges) => {
        const missed = new MissedWrites();
        for (const { offset, length } of ranges) missed.note(offset, length);
        const want = touched(ranges);
        expect(blocksOf(missed)).toEqual(sorted(want));
        expect(missed.blockCount()).toBe(want.size);
        expect(missed.overflowed).toBe(false);
      }),
    );
  });

  it('runs are ascending and apart, so that each is one request', () => {
    fc.assert(
      fc.property(fc.array(range, { maxLength: 12 }), (ranges) => {
        const missed = new MissedWrites();
        for (const { offset, length } of ranges) missed.note(offset, length);
        for (const extent of missed.extents()) {
          let end = -1;
          for (const { first, count } of missed.runs(extent)) {
            expect(first).toBeGreaterThan(end);
            expect(count).toBeGreaterThan(0);
            end = first + count;
          }
          expect(end).toBeLessThanOrEqual(BLOCKS_PER_EXTENT);
        }
      }),
    );
  });

  it('what two have missed together is the union; what was brought over is gone', () => {
    fc.assert(
      fc.property(
        fc.array(range, { maxLength: 6 }),
        fc.array(range, { maxLength: 6 }),
        fc.nat({ max: EXTENTS - 1 }),
        (one, two, done) => {
          const missed = new MissedWrites();
          const other = new MissedWrites();
          for (const { offset, length } of one) missed.note(offset, length);
          for (const { offset, length } of two) other.note(offset, length);
          missed.add(other);
          missed.caughtUp(done);
          const want = sorted(touched([...one, ...two]));
          const kept = want.filter((block) => Math.floor(block / BLOCKS_PER_EXTENT) !== done);
          expect(blocksOf(missed)).toEqual(kept);
        },
      ),
    );
  });
});

describe('missed writes past their bound', () => {
  const full = (): MissedWrites => {
    const missed = new MissedWrites(2);
    missed.note(0, 2 * EXTENT_SIZE);
    return missed;
  };

  it('remember nothing and say so, for good', () => {
    const missed = full();
    expect(missed.overflowed).toBe(false);
    missed.note(0, BLOCK_SIZE);
    expect(missed.overflowed).toBe(false);
    missed.note(2 * EXTENT_SIZE, 1);
    expect(missed.overflowed).toBe(true);
    expect(missed.extents()).toEqual([]);
    missed.note(0, BLOCK_SIZE);
    expect(missed.extentCount).toBe(0);
  });

  it('also when they overflow by adding, or the other has overflowed', () => {
    const missed = full();
    const other = new MissedWrites();
    other.note(5 * EXTENT_SIZE, 1);
    missed.add(other);
    expect(missed.overflowed).toBe(true);
    const small = new MissedWrites();
    small.note(0, 1);
    small.add(missed);
    expect(small.overflowed).toBe(true);
    expect(small.extents()).toEqual([]);
  });
});
