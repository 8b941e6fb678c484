/** How a replica was left, and what others may be told of it. */
import { afterEach, describe, expect, it } from 'vitest';
import { BLOCK_SIZE, MIB, REGION_SIZE } from '../../../common/units.js';
import { StoreBed, stamped, VOLUME } from '../store/store-bed.js';

let bed: StoreBed;

afterEach(async () => {
  await bed.close();
  expect(bed.pool.usedBytes).toBe(0);
});

describe('P7, P10: how it was left', () => {
  async function leaveDirty(): Promise<void> {
    bed = new StoreBed({ volumeBytes: 3 * REGION_SIZE });
    await bed.open();
    await bed.write(0, stamped(1, 4));
    await bed.write((2 * REGION_SIZE) / BLOCK_SIZE, stamped(2, 4));
    await bed.store.flush();
  }

  it('a kill: restarted dirty, not lossy', async () => {
    await leaveDirty();
    await bed.kill();
    await bed.open();
    expect(bed.handle.restartedDirty).toBe(true);
    expect(bed.handle.lossy).toBe(false);
    expect(bed.store.dirtyRegions()).toEqual([0, 2]);
  });

  it('a power cut: lossy, also after later kills, until each region was cleaned', async () => {
    await leaveDirty();
    await bed.powerCut('dropped');
    await bed.open();
    expect(bed.handle.lossy).toBe(true);
    await bed.kill();
    await bed.open();
    expect(bed.handle.lossy).toBe(true);
    await bed.store.clean(0, { epoch: 2, counter: 1 });
    expect(bed.handle.lossy).toBe(true);
    await bed.close();
    await bed.open();
    expect(bed.handle.restartedDirty).toBe(true);
    expect(bed.handle.lossy).toBe(true);
    await bed.store.clean(2, { epoch: 2, counter: 2 });
    expect(bed.handle.lossy).toBe(false);
    await bed.powerCut('dropped');
    await bed.open();
    expect(bed.handle.lossy).toBe(false);
    expect((await bed.read(0, 4)).equals(stamped(1, 4))).toBe(true);
  });

  it.each([
    { change: 'a new era with it in-sync', era: 1, state: 'in-sync' as const, lossy: false },
    { change: 'a new era without it', era: 1, state: 'failed' as const, lossy: true },
    { change: 'the same era', era: 0, state: 'in-sync' as const, lossy: true },
  ])('what was lost is accepted by a new era that names it: $change', async (row) => {
    await leaveDirty();
    await bed.powerCut('dropped');
    await bed.open();
    const { replicaId } = bed.handle;
    const member = { replicaId, address: 'host:1', state: row.state };
    await bed.handle.setMembership({
      ...{ epoch: 2, generation: 2, engineId: 'e-2', era: row.era, members: [member] },
    });
    expect(bed.handle.lossy).toBe(row.lossy);
    await bed.kill();
    await bed.open();
    expect([bed.handle.restartedDirty, bed.handle.lossy]).toEqual([true, row.lossy]);
    await bed.powerCut('dropped');
    await bed.open();
    expect(bed.handle.lossy).toBe(true);
  });

  it('what was lost is there again when it was made equal; not what is lost later', async () => {
    await leaveDirty();
    await bed.powerCut('dropped');
    await bed.open();
    await bed.handle.noteComplete();
    expect(bed.handle.lossy).toBe(false);
    await bed.kill();
    await bed.open();
    expect([bed.handle.restartedDirty, bed.handle.lossy]).toEqual([true, false]);
    await bed.powerCut('dropped');
    await bed.open();
    expect(bed.handle.lossy).toBe(true);
  });

  it('a clean close and another boot: not lossy, dirty regions to compare', async () => {
    await leaveDirty();
    await bed.close();
    bed.bootId = 'boot-9';
    await bed.open();
    expect([bed.handle.restartedDirty, bed.handle.lossy]).toEqual([true, false]);
    for (const region of [0, 2]) await bed.store.clean(region, { epoch: 1, counter: region + 1 });
    expect(bed.handle.restartedDirty).toBe(false);
    await bed.close();
    await bed.open();
    expect([bed.handle.restartedDirty, bed.handle.lossy]).toEqual([false, false]);
  });

  it('a clean close after an unclean stop does not prove what nobody looked at', async () => {
    await leaveDirty();
    await bed.write(1, stamped(5, 1));
    await bed.powerCut('kept');
    await bed.open();
    await bed.close();
    await bed.open();
    expect([bed.handle.restartedDirty, bed.handle.lossy]).toEqual([true, true]);
    expect((await bed.read(1, 1)).equals(stamped(5, 1))).toBe(true);
    await bed.read((2 * REGION_SIZE) / BLOCK_SIZE, 1);
    await bed.close();
    await bed.open();
    expect([bed.handle.restartedDirty, bed.handle.lossy]).toEqual([true, true]);
    expect((await bed.read(1, 1)).equals(stamped(5, 1))).toBe(true);
  });

  it('a replica that failed and was closed is read anew when it is opened', async () => {
    await leaveDirty();
    bed.medium.inject({ op: 'write', errno: 'EIO' });
    await expect(bed.write(3000, stamped(7, 1))).rejects.toMatchObject({ code: 'IO_ERROR' });
    await bed.handle.close();
    const used = bed.disk.usedBytes;
    const again = await bed.disk.openReplica(VOLUME);
    expect(again.restartedDirty).toBe(true);
    expect(bed.disk.usedBytes).toBe(used - MIB);
    const read = await again.store.read(0, 4 * BLOCK_SIZE);
    expect(read.data?.bytes.equals(stamped(1, 4))).toBe(true);
    read.data?.release();
  });

  it('nothing dirty, power cut: neither', async () => {
    await leaveDirty();
    await bed.store.clean(0, { epoch: 1, counter: 1 });
    await bed.store.clean(2, { epoch: 1, counter: 2 });
    await bed.powerCut('dropped');
    await bed.open();
    expect([bed.handle.restartedDirty, bed.handle.lossy]).toEqual([false, false]);
    expect((await bed.read(0, 4)).equals(stamped(1, 4))).toBe(true);
  });

  it('after a kill checksums of dirty regions are made anew, once', async () => {
    await leaveDirty();
    for (let n = 0; n < 4; n += 1) await bed.write(n, stamped(10 + n, 1));
    await bed.kill();
    await bed.open();
    for (let n = 0; n < 4; n += 1)
      expect((await bed.read(n, 1)).equals(stamped(10 + n, 1))).toBe(true);
    expect(bed.disk.counters.reprovenExtents).toBe(1);
    const raw = await bed.read((2 * REGION_SIZE) / BLOCK_SIZE, 4, { raw: true });
    expect(raw.equals(stamped(2, 4))).toBe(true);
    expect(bed.disk.counters.reprovenExtents).toBe(1);
    await bed.write((2 * REGION_SIZE) / BLOCK_SIZE, stamped(20, 1));
    expect(bed.disk.counters.reprovenExtents).toBe(2);
  });
});
