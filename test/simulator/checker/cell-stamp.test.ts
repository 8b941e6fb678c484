/** Stamped cells: every way in which bytes can be wrong is told from every other. */
import { describe, expect, it } from 'vitest';
import { BLOCK_SIZE } from '../../../common/units.js';
import { crc32c } from '../../../native/index.js';
import { CellLayout, CellStamps } from '../../support/cell-stamp.js';
import { BAD_FOREIGN, BAD_MISPLACED, BAD_TORN, ZERO } from '../../support/history.js';

const CUTS = [0, 512, 1000, 3333];
const layout = new CellLayout(
  [
    { firstBlock: 3, blocks: 2 },
    { firstBlock: 100, blocks: 5 },
  ],
  CUTS,
);
const stamps = new CellStamps(layout, 7);

describe('cell layout', () => {
  it('numbers the cells of its windows and knows where they are', () => {
    expect(layout.cells).toBe(7 * 4);
    expect(layout.windowStarts()).toEqual([0, 8]);
    expect([0, 1, 3, 4, 8].map((cell) => layout.offsetOf(cell))).toEqual([
      3 * BLOCK_SIZE,
      3 * BLOCK_SIZE + 512,
      3 * BLOCK_SIZE + 3333,
      4 * BLOCK_SIZE,
      100 * BLOCK_SIZE,
    ]);
    expect([0, 1, 2, 3].map((cell) => layout.lengthOf(cell))).toEqual([512, 488, 2333, 763]);
    expect(layout.rangeOf(1, 4)).toEqual({
      offsetBytes: 3 * BLOCK_SIZE + 512,
      lengthBytes: BLOCK_SIZE,
    });
    expect(layout.roomAt(5)).toBe(3);
    expect(layout.cellsOfBlock(101)).toEqual({ first: 12, count: 4 });
    expect(layout.cellsOfBlock(99)).toBeUndefined();
  });

  it('refuses a range over the end of a window, and cells without room for a stamp', () => {
    expect(() => layout.rangeOf(7, 2)).toThrow();
    expect(() => new CellLayout([{ firstBlock: 0, blocks: 1 }], [0, 20])).toThrow(/small/);
  });
});

describe('stamps', () => {
  const write = (op: number): Buffer => stamps.payload(8, 6, op);

  it('tell the write of every cell', () => {
    expect(stamps.values(8, 6, write(42))).toEqual([42, 42, 42, 42, 42, 42]);
    expect(write(42).equals(write(43))).toBe(false);
  });

  it('differ in their crc32c, by which the system under test knows them', () => {
    const whole = new CellStamps(new CellLayout([{ firstBlock: 0, blocks: 8 }]), 7);
    const sums = [1, 2, 3].flatMap((op) =>
      [0, 1, 2].map((cell) => crc32c(whole.payload(cell, 1, op))),
    );
    expect(new Set(sums).size).toBe(9);
  });

  it('find each cell that mixes two writes, at any byte', () => {
    const [older, newer] = [write(1), write(2)];
    for (let at = 13; at < older.length; at += 97) {
      const mixed = Buffer.concat([newer.subarray(0, at), older.subarray(at)]);
      const values = stamps.values(8, 6, mixed);
      expect(values.filter((value) => value === BAD_TORN).length).toBeLessThanOrEqual(1);
      expect(new Set(values).size).toBeGreaterThan(1);
      expect(values.join(',')).toMatch(/^(2,)*(-1,?)?(1,?)*$/);
    }
  });

  it('tell zeroes, another run, another place, and garbage', () => {
    expect(stamps.values(0, 1, Buffer.alloc(512))).toEqual([ZERO]);
    const foreign = new CellStamps(layout, 8).payload(0, 1, 1);
    expect(stamps.values(0, 1, foreign)).toEqual([BAD_FOREIGN]);
    const elsewhere = stamps.payload(4, 1, 9);
    expect(stamps.values(0, 1, elsewhere)).toEqual([BAD_MISPLACED]);
    expect(stamps.values(0, 1, Buffer.alloc(512, 1))).toEqual([BAD_TORN]);
    const flipped = stamps.payload(0, 1, 9);
    flipped[300] = (flipped[300] ?? 0) ^ 1;
    expect(stamps.values(0, 1, flipped)).toEqual([BAD_TORN]);
  });
});
