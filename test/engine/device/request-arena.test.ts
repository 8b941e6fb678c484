import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RequestArena, type Slab } from '../../../engine/device/request-arena.js';

const OPTIONS = { reserveBytes: 1000, slabBytes: 4000, slabsMax: 3 };

describe('request arena', () => {
  it('packs small requests into one slab and starts over when all are released', () => {
    const arena = new RequestArena(OPTIONS);
    const first = arena.reserve();
    const slab = arena.take(80);
    const second = arena.reserve();
    expect(second?.byteOffset).toBe((first?.byteOffset ?? 0) + 128);
    expect(arena.take(80)).toBe(slab);
    slab.release();
    slab.release();
    expect(arena.reserve()?.byteOffset).toBe(first?.byteOffset);
  });

  it('answers undefined when all is held, and wakes the reader at a release', async () => {
    const arena = new RequestArena(OPTIONS);
    const held: Slab[] = [];
    while (arena.reserve() !== undefined) held.push(arena.take(1000));
    expect(held.length).toBe(9);
    expect(arena.slabsHeld).toBe(3);
    let woken = false;
    const free = arena.whenFree().then(() => {
      woken = true;
    });
    held[3]?.release();
    held[4]?.release();
    await Promise.resolve();
    expect(woken).toBe(false);
    held[5]?.release();
    await free;
    expect(arena.reserve()).toBeDefined();
  });

  it('a release too many is a programmer error', () => {
    const arena = new RequestArena(OPTIONS);
    arena.reserve();
    const slab = arena.take(10);
    slab.release();
    expect(() => slab.release()).toThrow();
  });

  it('never overwrites a request that somebody holds', () => {
    const step = fc.record({ length: fc.integer({ min: 1, max: 1000 }), release: fc.nat() });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        const arena = new RequestArena(OPTIONS);
        const live: Array<{ bytes: Buffer; slab: Slab; value: number }> = [];
        for (const [i, { length, release }] of steps.entries()) {
          const view = arena.reserve();
          // A read is pending in `view` while others are answered.
          for (let n = release % 4; n > 0 && live.length > 0; n -= 1) {
            live.splice(release % live.length, 1)[0]?.slab.release();
          }
          if (view !== undefined) {
            const value = i & 0xff;
            const bytes = view.subarray(0, length).fill(value);
            live.push({ bytes, slab: arena.take(length), value });
          }
          for (const { bytes, value } of live) {
            expect(bytes[0] === value && bytes[bytes.length - 1] === value).toBe(true);
          }
        }
      }),
    );
  });
});
