import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BLOCK_SIZE, EXTENT_SIZE } from '../../../common/units.js';
import { type RangeHold, RangeLock } from '../../../engine/core/range-lock.js';

const overlap = (a: RangeHold, b: RangeHold): boolean =>
  (a.exclusive || b.exclusive) && a.startBytes < b.endBytes && b.startBytes < a.endBytes;

describe('range lock (N1, N3)', () => {
  it.each([
    { name: 'two writes to one block', a: [0, 512, true], b: [512, 512, true], waits: true },
    { name: 'two reads', a: [0, 8192, false], b: [0, 8192, false], waits: false },
    { name: 'read under a write', a: [0, 8192, true], b: [4096, 4096, false], waits: true },
    { name: 'write under a read', a: [0, 4096, false], b: [0, 4096, true], waits: true },
    { name: 'neighbours', a: [0, 4096, true], b: [4096, 4096, true], waits: false },
    {
      name: 'overlap in the second extent only',
      a: [EXTENT_SIZE, 4096, true],
      b: [EXTENT_SIZE - 4096, 8192, true],
      waits: true,
    },
  ] as const)('$name', ({ a, b, waits }) => {
    const lock = new RangeLock();
    const first = lock.lock(a[0], a[1], a[2]);
    const second = lock.lock(b[0], b[1], b[2]);
    expect(first.ready).toBeUndefined();
    expect(second.ready !== undefined).toBe(waits);
    lock.unlock(first);
    expect(second.blockers).toBe(0);
    lock.unlock(second);
    expect(lock.size).toBe(0);
  });

  it('a later reader does not overtake a waiting writer', async () => {
    const lock = new RangeLock();
    const reader = lock.lock(0, 4096, false);
    const writer = lock.lock(0, 4096, true);
    const late = lock.lock(0, 4096, false);
    expect(late.ready).toBeDefined();
    lock.unlock(reader);
    await writer.ready;
    expect(late.blockers).toBe(1);
    lock.unlock(writer);
    await late.ready;
    lock.unlock(late);
  });

  it('a waiter that gives up frees those behind it', async () => {
    const lock = new RangeLock();
    const first = lock.lock(0, 4096, false);
    const writer = lock.lock(0, 4096, true);
    const reader = lock.lock(0, 4096, false);
    lock.unlock(writer);
    await reader.ready;
    lock.unlock(first);
    lock.unlock(reader);
    expect(lock.size).toBe(0);
  });

  it('never two conflicting holders, nobody starves, arrival order among conflicts', () => {
    const request = fc.record({
      start: fc.integer({ min: 0, max: 80 }).map((n) => n * (BLOCK_SIZE / 2) * 9),
      length: fc.oneof(fc.integer({ min: 1, max: 20_000 }), fc.constant(3 * EXTENT_SIZE)),
      exclusive: fc.boolean(),
    });
    fc.assert(
      fc.property(
        fc.array(request, { maxLength: 60 }),
        fc.infiniteStream(fc.nat()),
        (list, pick) => {
          const lock = new RangeLock();
          const all = list.map((r) => lock.lock(r.start, r.length, r.exclusive));
          const open = new Set(all);
          while (open.size > 0) {
            const holders = [...open].filter((h) => h.blockers === 0);
            expect(holders.length).toBeGreaterThan(0);
            for (const a of open) {
              const earlier = all.slice(0, all.indexOf(a)).filter((b) => open.has(b));
              expect(a.blockers).toBe(earlier.filter((b) => overlap(a, b)).length);
            }
            const chosen = holders[pick.next().value % holders.length] as RangeHold;
            open.delete(chosen);
            lock.unlock(chosen);
          }
          expect(lock.size).toBe(0);
        },
      ),
      { numRuns: 60 },
    );
  });
});
