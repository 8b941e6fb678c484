/** The buffer pool: limits, reuse, ownership, and memory that goes back to the system. */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { AlignedBuffer } from '../../common/block-device.js';
import { KIB, MIB } from '../../common/units.js';
import { NativeBufferPool } from '../../native/buffer-pool.js';
import { ManualClock } from '../common/manual-clock.js';

const pageBytes = (): number => {
  const words = readFileSync('/proc/self/statm', 'utf8').split(' ');
  return Number(words[1]) * 4096;
};

describe('NativeBufferPool', () => {
  test.each([1, 4096, 4097, 12 * KIB, 100_000, MIB, MIB + 1, 3 * MIB, 4 * MIB])(
    'hands out exactly %i bytes, aligned, and counts them',
    (lengthBytes) => {
      const pool = new NativeBufferPool({ limitBytes: 8 * MIB });
      const buffer = pool.acquire(lengthBytes);
      expect(buffer.bytes.length).toBe(lengthBytes);
      expect(buffer.bytes.byteOffset % 4096).toBe(0);
      expect(pool.usedBytes).toBe(lengthBytes);
      buffer.bytes.fill(1);
      buffer.release();
      expect(pool.usedBytes).toBe(0);
    },
  );

  test('OVERLOADED at the limit, and room again after a release', () => {
    const pool = new NativeBufferPool({ limitBytes: 3 * 4096 });
    const held = [pool.acquire(4096), pool.acquire(4096), pool.acquire(4096)];
    expect(() => pool.acquire(1)).toThrow(expect.objectContaining({ code: 'OVERLOADED' }));
    held[1]?.release();
    expect(pool.acquire(4096).bytes.length).toBe(4096);
  });

  test.each([0, -1, 1.5, Number.NaN, 4 * MIB + 1])('a length of %d is a programmer error', (n) => {
    const pool = new NativeBufferPool({ limitBytes: 64 * MIB });
    expect(() => pool.acquire(n)).toThrow(expect.objectContaining({ name: 'AssertionError' }));
  });

  test('buffers held at once never overlap, whatever the order', () => {
    const step = fc.tuple(fc.boolean(), fc.integer({ min: 1, max: 200 * KIB }), fc.nat(1000));
    const property = fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
      const pool = new NativeBufferPool({ limitBytes: 64 * MIB });
      const held: Array<{ buffer: AlignedBuffer; mark: number }> = [];
      let mark = 0;
      for (const [take, lengthBytes, pick] of steps) {
        if (take || held.length === 0) {
          const buffer = pool.acquire(lengthBytes);
          mark = (mark % 255) + 1;
          buffer.bytes.fill(mark);
          held.push({ buffer, mark });
        } else {
          const [gone] = held.splice(pick % held.length, 1);
          gone?.buffer.release();
        }
      }
      for (const { buffer, mark: want } of held) {
        expect(buffer.bytes.equals(Buffer.alloc(buffer.bytes.length, want))).toBe(true);
        buffer.release();
      }
      expect(pool.usedBytes).toBe(0);
    });
    fc.assert(property, { numRuns: 30 });
  });

  test('a second release asserts', () => {
    const pool = new NativeBufferPool({ limitBytes: MIB });
    const buffer = pool.acquire(4096);
    buffer.release();
    expect(() => buffer.release()).toThrow('second release');
    const next = pool.acquire(4096);
    expect(() => buffer.release()).toThrow('second release');
    next.release();
  });

  test('released memory is poisoned, and a write after the release is found', () => {
    const pool = new NativeBufferPool({ limitBytes: MIB });
    const buffer = pool.acquire(4096);
    const { bytes } = buffer;
    bytes.fill(1);
    buffer.release();
    expect(bytes[17]).toBe(0xdb);
    bytes[17] = 1;
    expect(() => pool.acquire(4096)).toThrow('written to after its release');
  });

  test('chunks that stay idle give their pages back; their memory is good again afterwards', () => {
    const clock = new ManualClock();
    const pool = new NativeBufferPool({ limitBytes: 256 * MIB, clock });
    const before = pageBytes();
    const held = Array.from({ length: 32 }, () => pool.acquire(4 * MIB));
    for (const { bytes } of held) bytes.fill(1);
    expect(pageBytes() - before).toBeGreaterThan(120 * MIB);
    for (const buffer of held) buffer.release();
    clock.advance(1000);
    clock.advance(1000);
    expect(pool.touchedBytes).toBe(0);
    expect(pageBytes() - before).toBeLessThan(40 * MIB);
    const again = pool.acquire(4 * MIB);
    again.bytes.fill(2);
    expect(again.bytes[MIB]).toBe(2);
    again.release();
  });

  test('a chunk with a buffer in use keeps its bytes', () => {
    const clock = new ManualClock();
    const pool = new NativeBufferPool({ limitBytes: 16 * MIB, clock });
    const kept = pool.acquire(4096);
    kept.bytes.fill(9);
    pool.acquire(4096).release();
    for (let i = 0; i < 5; i++) clock.advance(1000);
    expect(kept.bytes.equals(Buffer.alloc(4096, 9))).toBe(true);
    kept.release();
  });

  test('idle chunks of other sizes make room when the limit is reached', () => {
    const pool = new NativeBufferPool({ limitBytes: 16 * MIB, clock: new ManualClock() });
    for (const lengthBytes of [4096, 64 * KIB, 256 * KIB, MIB, 2 * MIB, 4 * MIB]) {
      const held: AlignedBuffer[] = [];
      for (let used = 0; used + lengthBytes <= 16 * MIB; used += lengthBytes) {
        held.push(pool.acquire(lengthBytes));
      }
      for (const buffer of held) buffer.release();
    }
    expect(pool.touchedBytes).toBeLessThanOrEqual(2 * 16 * MIB);
  });
});
