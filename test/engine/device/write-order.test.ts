import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type OrderedChange, WriteOrder } from '../../../engine/device/write-order.js';

class Change implements OrderedChange {
  orderIndex = -1;
  constructor(
    readonly offsetBytes: number,
    readonly lengthBytes: number,
  ) {}
  overlaps(other: Change): boolean {
    return (
      this.offsetBytes < other.offsetBytes + other.lengthBytes &&
      other.offsetBytes < this.offsetBytes + this.lengthBytes
    );
  }
}

describe('write order (N1, N3)', () => {
  it('lets neighbours pass and holds overlapping changes in the order they came', () => {
    const order = new WriteOrder<Change>(8);
    const a = new Change(0, 100);
    const b = new Change(100, 100);
    const c = new Change(50, 100);
    const d = new Change(140, 5);
    expect([a, b, c, d].map((change) => order.begin(change))).toEqual([true, true, false, false]);
    expect(order.finish(a)).toEqual([]);
    expect(order.finish(b)).toEqual([c]);
    expect(order.finish(c)).toEqual([d]);
    expect(order.finish(d)).toEqual([]);
    expect(order.heldCount).toBe(0);
  });

  it('never has two overlapping changes active, keeps their order, forgets none', () => {
    const step = fc.record({
      offset: fc.nat(60),
      length: fc.integer({ min: 1, max: 20 }),
      end: fc.nat(),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const order = new WriteOrder<Change>(200);
        const all: Change[] = [];
        const active: Change[] = [];
        const started: Change[] = [];
        const start = (change: Change): void => {
          expect(active.some((other) => other.overlaps(change))).toBe(false);
          active.push(change);
          started.push(change);
        };
        const finish = (index: number): void => {
          const [change] = active.splice(index % active.length, 1);
          if (change !== undefined) for (const next of order.finish(change)) start(next);
        };
        for (const { offset, length, end } of steps) {
          const change = new Change(offset, length);
          all.push(change);
          if (order.begin(change)) start(change);
          if (end % 3 === 0 && active.length > 0) finish(end);
        }
        while (active.length > 0) finish(0);
        expect(started.length).toBe(all.length);
        for (const [i, later] of all.entries()) {
          for (const earlier of all.slice(0, i)) {
            if (!earlier.overlaps(later)) continue;
            expect(started.indexOf(earlier)).toBeLessThan(started.indexOf(later));
          }
        }
      }),
    );
  });
});
