import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BLOCK_SIZE, MIB, REGION_SIZE } from '../../../common/units.js';
import { InFlightWindow } from '../../../replica/service/in-flight-window.js';

const SIZE = 64 * REGION_SIZE;

function blocksOf(window: InFlightWindow): Set<number> {
  const blocks = new Set<number>();
  for (const range of window.ranges()) {
    for (let b = 0; b < range.lengthBytes / BLOCK_SIZE; b++) {
      blocks.add(range.offsetBytes / BLOCK_SIZE + b);
    }
  }
  return blocks;
}

describe('in-flight window', () => {
  it('keeps what the engine has not declared acknowledged, and drops the rest', () => {
    const window = new InFlightWindow({ volumeSizeBytes: SIZE });
    window.note(5, 0, BLOCK_SIZE);
    window.note(7, 2 * BLOCK_SIZE, BLOCK_SIZE);
    window.note(9, 3 * BLOCK_SIZE, BLOCK_SIZE);
    window.ackThrough(6);
    expect(window.ranges()).toEqual([{ offsetBytes: 2 * BLOCK_SIZE, lengthBytes: 2 * BLOCK_SIZE }]);
    window.ackThrough(9);
    expect(window.ranges()).toEqual([]);
  });

  it('R2: ranges of an older epoch stay until they are declared equal', () => {
    const window = new InFlightWindow({ volumeSizeBytes: SIZE });
    window.note(100, MIB, BLOCK_SIZE);
    window.beginEpoch();
    window.note(1, 4 * MIB, BLOCK_SIZE);
    window.ackThrough(1000);
    expect(window.ranges()).toEqual([{ offsetBytes: MIB, lengthBytes: BLOCK_SIZE }]);
    window.note(1001, 8 * MIB, BLOCK_SIZE);
    window.beginEpoch();
    expect(window.ranges()).toEqual([
      { offsetBytes: MIB, lengthBytes: BLOCK_SIZE },
      { offsetBytes: 8 * MIB, lengthBytes: BLOCK_SIZE },
    ]);
    window.forgetInherited();
    expect(window.ranges()).toEqual([]);
  });

  it('a replaced stream that repeats older ids only delays the drop', () => {
    const window = new InFlightWindow({ volumeSizeBytes: SIZE });
    window.note(10, 0, BLOCK_SIZE);
    window.note(8, MIB, BLOCK_SIZE);
    window.ackThrough(9);
    expect(window.ranges()).toHaveLength(2);
    window.ackThrough(10);
    expect(window.ranges()).toEqual([]);
  });

  it('past its limit becomes coarser, never smaller', () => {
    const window = new InFlightWindow({ volumeSizeBytes: SIZE, entriesMax: 4, regionsMax: 2 });
    for (let i = 0; i < 6; i++) window.note(i + 1, i * MIB, BLOCK_SIZE);
    expect(window.entryCount).toBe(4);
    expect(window.ranges()).toEqual([{ offsetBytes: 0, lengthBytes: REGION_SIZE }]);
    window.ackThrough(2);
    expect(window.ranges()).toHaveLength(4);
    for (let i = 0; i < 8; i++) window.note(i + 10, i * REGION_SIZE, BLOCK_SIZE);
    expect(window.ranges()).toEqual([{ offsetBytes: 0, lengthBytes: SIZE }]);
    window.ackThrough(17);
    expect(window.ranges()).toEqual([]);
  });

  it('engines that die again and again without recovery do not grow it past its bounds', () => {
    const window = new InFlightWindow({ volumeSizeBytes: SIZE, entriesMax: 8, regionsMax: 2 });
    for (let epoch = 0; epoch < 16; epoch++) {
      window.note(1, epoch * 2 * MIB, BLOCK_SIZE);
      window.beginEpoch();
      expect(window.ranges().length).toBeLessThanOrEqual(8);
    }
    expect(blocksOf(window).has((15 * 2 * MIB) / BLOCK_SIZE)).toBe(true);
    expect(blocksOf(window).has(0)).toBe(true);
  });

  it('covers a naive model at every step, and equals it while nothing overflows', () => {
    const step = fc.oneof(
      fc.record({
        kind: fc.constant('note' as const),
        block: fc.nat(300),
        blocks: fc.integer({ min: 1, max: 20 }),
      }),
      fc.record({ kind: fc.constant('ack' as const), back: fc.nat(10) }),
      fc.record({ kind: fc.constant('epoch' as const) }),
      fc.record({ kind: fc.constant('forget' as const) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), fc.constantFrom(3, 1024), (steps, max) => {
        const window = new InFlightWindow({ volumeSizeBytes: SIZE, entriesMax: max });
        let current: Array<{ id: number; block: number; blocks: number }> = [];
        let inherited = new Set<number>();
        const model = (): Set<number> => {
          const all = new Set(inherited);
          for (const e of current) for (let b = 0; b < e.blocks; b++) all.add(e.block + b);
          return all;
        };
        let id = 0;
        let acked = 0;
        for (const s of steps) {
          if (s.kind === 'note') {
            id += 1;
            current.push({ id, block: s.block, blocks: s.blocks });
            window.note(id, s.block * BLOCK_SIZE, s.blocks * BLOCK_SIZE);
          } else if (s.kind === 'ack') {
            // The engine's number never goes back, but it may be sent again.
            acked = Math.max(acked, id - s.back);
            current = current.filter((e) => e.id > acked);
            window.ackThrough(acked);
          } else if (s.kind === 'epoch') {
            // coarsened ranges are inherited as such: the model takes them over
            inherited = max === 3 ? blocksOf(window) : model();
            current = [];
            window.beginEpoch();
          } else {
            inherited = new Set();
            window.forgetInherited();
          }
          const got = blocksOf(window);
          for (const block of model()) expect(got.has(block)).toBe(true);
          if (max === 1024) expect(got).toEqual(model());
        }
      }),
      { numRuns: 60 },
    );
  });
});
