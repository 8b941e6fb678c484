/** The disk in memory keeps the rules that tests of other parts rely on: D1, D3, F3, N2. */
import { describe, expect, test } from 'vitest';
import { KIB } from '../../common/units.js';
import { type Fate, MemoryBufferPool, MemoryDisk } from '../support/memory-device.js';

const pool = new MemoryBufferPool();
const block = (fill: number): Buffer => pool.acquire(4096).bytes.fill(fill);
const SIZE = 64 * KIB;

describe('MemoryDisk', () => {
  test.each<Fate>(['kept', 'dropped', 'subset', 'torn'])(
    'D1: what was written before a flush survives a power cut (%s)',
    async (fate) => {
      const disk = new MemoryDisk({ sizeBytes: SIZE });
      const device = disk.open();
      await device.write(4096, block(7));
      await device.flush();
      disk.powerCut(fate);
      expect(disk.peek(4096, 4096).equals(Buffer.alloc(4096, 7))).toBe(true);
    },
  );

  test('F3: an un-flushed overwrite is old or new, or torn at sectors if so asked', async () => {
    const seen = new Set<string>();
    for (let seed = 0; seed < 24; seed++) {
      for (const fate of ['subset', 'torn'] as const) {
        const disk = new MemoryDisk({ sizeBytes: SIZE, seed });
        const device = disk.open();
        await device.write(0, block(1));
        await device.flush();
        await device.write(0, block(2));
        disk.powerCut(fate);
        const got = disk.peek(0, 4096);
        const sectors = Array.from({ length: 8 }, (_, i) => got[i * 512]);
        for (const [i, fill] of sectors.entries()) {
          expect([1, 2]).toContain(fill);
          expect(got.subarray(i * 512, i * 512 + 512).every((byte) => byte === fill)).toBe(true);
        }
        seen.add(`${fate} ${new Set(sectors).size}`);
      }
    }
    expect([...seen].sort()).toEqual(['subset 1', 'torn 1', 'torn 2'].filter((s) => seen.has(s)));
    expect(seen).toContain('torn 2');
    expect(seen).not.toContain('subset 2');
  });

  test('a killed process loses nothing that was answered', async () => {
    const disk = new MemoryDisk({ sizeBytes: SIZE });
    const device = disk.open();
    await device.write(0, block(3));
    const pending = device.write(4096, block(4));
    disk.kill();
    await expect(pending).rejects.toMatchObject({ code: 'CLOSED' });
    expect(disk.peek(0, 1)[0]).toBe(3);
    expect([0, 4]).toContain(disk.peek(4096, 1)[0]);
    expect(disk.open().closed).toBe(false);
  });

  test('D3: what a failed flush lost stays lost, and later flushes fail too', async () => {
    let lost = 0;
    for (let seed = 0; seed < 16; seed++) {
      const disk = new MemoryDisk({ sizeBytes: SIZE, seed });
      const device = disk.open();
      for (let i = 0; i < 8; i++) await device.write(i * 4096, block(5));
      disk.inject({ op: 'flush', errno: 'EIO' });
      await expect(device.flush()).rejects.toMatchObject({ code: 'IO_ERROR' });
      await expect(device.flush()).rejects.toMatchObject({ code: 'IO_ERROR' });
      await device.close();
      await disk.open().flush();
      disk.powerCut('kept');
      for (let i = 0; i < 8; i++) lost += disk.peek(i * 4096, 1)[0] === 5 ? 0 : 1;
    }
    expect(lost).toBeGreaterThan(16);
    expect(lost).toBeLessThan(112);
  });

  test('faults hit the operation, range and count that they name', async () => {
    const disk = new MemoryDisk({ sizeBytes: SIZE });
    const device = disk.open();
    const range = { offsetBytes: 8192, lengthBytes: 4096 };
    const disarm = disk.inject({ op: 'read', errno: 'EIO', skip: 1, count: 2, range });
    const view = block(0);
    await device.read(0, view);
    await device.read(8192, view);
    await expect(device.read(8192, view)).rejects.toMatchObject({ details: { errno: 'EIO' } });
    disarm();
    await device.read(8192, view);
    disk.inject({ op: 'any', errno: 'ENOSPC' });
    await expect(device.write(0, view)).rejects.toMatchObject({ code: 'NO_SPACE' });
  });

  test('rot flips one bit for good; a second open is refused', async () => {
    const disk = new MemoryDisk({ sizeBytes: SIZE });
    const device = disk.open();
    expect(() => disk.open()).toThrow(expect.objectContaining({ code: 'DISK_LOCKED' }));
    disk.rot(5, 3);
    disk.powerCut('dropped');
    expect(disk.peek(5, 1)[0]).toBe(8);
    expect(device.closed).toBe(true);
  });

  test('a write buffer that changes in flight is found', async () => {
    const device = new MemoryDisk({ sizeBytes: SIZE }).open();
    const view = block(1);
    const written = device.write(0, view);
    view[9] = 0;
    await expect(written).rejects.toThrow('changed before it had resolved');
  });
});
