import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BLOCK_SIZE } from '../../../common/units.js';
import { differingRuns, joinRuns, runRange } from '../../../engine/recovery/block-runs.js';
import { HASH_BYTES } from '../../../proto/io-codec.js';

const blocksOf = (runs: ReturnType<typeof differingRuns>): number[] =>
  runs.flatMap(({ first, count }) => Array.from({ length: count }, (_, i) => first + i));

const someBlocks = fc.uniqueArray(fc.nat({ max: 63 }), { maxLength: 64 });

describe('runs of blocks', () => {
  it('are exactly the blocks whose hashes differ, in as few runs as there are', () => {
    fc.assert(
      fc.property(someBlocks, (blocks) => {
        const a = Buffer.alloc(64 * HASH_BYTES, 1);
        const b = Buffer.from(a);
        for (const block of blocks) b[block * HASH_BYTES + HASH_BYTES - 1] = 2;
        const runs = differingRuns(a, b);
        expect(blocksOf(runs)).toEqual([...blocks].sort((x, y) => x - y));
        for (const [i, run] of runs.entries()) {
          const next = runs[i + 1];
          if (next !== undefined) expect(next.first).toBeGreaterThan(run.first + run.count);
        }
      }),
    );
  });

  it('joined cover what they covered, and no gap wider than asked', () => {
    fc.assert(
      fc.property(someBlocks, fc.nat({ max: 10 }), (blocks, gapMax) => {
        const a = Buffer.alloc(64 * HASH_BYTES, 1);
        const b = Buffer.from(a);
        for (const block of blocks) b[block * HASH_BYTES] = 2;
        const runs = differingRuns(a, b);
        const joined = joinRuns(runs, gapMax);
        const covered = new Set(blocksOf(joined));
        for (const block of blocks) expect(covered.has(block)).toBe(true);
        const gaps = runs.slice(1).map((run, i) => {
          const before = runs[i] ?? run;
          return run.first - (before.first + before.count);
        });
        const wide = gaps.filter((gap) => gap > gapMax).length;
        expect(joined.length).toBe(runs.length === 0 ? 0 : wide + 1);
      }),
    );
  });

  it('end where the volume ends', () => {
    const at = 10 * 1024 * 1024;
    const run = { first: 2, count: 4 };
    expect(runRange(run, at, at + 64 * BLOCK_SIZE)).toEqual({
      offsetBytes: at + 2 * BLOCK_SIZE,
      lengthBytes: 4 * BLOCK_SIZE,
    });
    expect(runRange(run, at, at + 3 * BLOCK_SIZE).lengthBytes).toBe(BLOCK_SIZE);
    expect(runRange(run, at, at + BLOCK_SIZE).lengthBytes).toBe(0);
  });
});
