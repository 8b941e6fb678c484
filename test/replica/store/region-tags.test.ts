/** Tags of regions and extents, what is told of them, and taking over those of a source (P2). */
import { afterEach, describe, expect, it } from 'vitest';
import { BLOCK_SIZE, BLOCKS_PER_EXTENT, MIB, REGION_SIZE } from '../../../common/units.js';
import type { ExtentInfo, Tag } from '../../../proto/control.js';
import { readSparse, replace } from './sparse-ops.js';
import { StoreBed, stamped, VOLUME } from './store-bed.js';

const REGION_BLOCKS = REGION_SIZE / BLOCK_SIZE;
const NONE: Tag = { epoch: 0, counter: 0 };
const tag = (counter: number, epoch = 1): Tag => ({ epoch, counter });

let bed: StoreBed;

async function open(): Promise<void> {
  bed = new StoreBed({ volumeBytes: 3 * REGION_SIZE + 8 * MIB });
  await bed.open();
}

const extentAt = (extent: number): number => extent * BLOCKS_PER_EXTENT;
const named = (...extents: number[]) => extents.map((extent) => ({ extent, tag: tag(extent + 1) }));

async function extents(region: number): Promise<Array<[number, boolean, boolean, number]>> {
  const found = await bed.store.extents(region);
  return found.map((info: ExtentInfo) => [
    ...([info.number, info.allocated, info.written, info.tag.counter] as const),
  ]);
}

function keysOf(prefix: string): string[] {
  return [...bed.kvs.only.current.keys()].filter((key) => key.startsWith(prefix));
}

afterEach(async () => {
  await bed.close();
  expect(bed.pool.usedBytes).toBe(0);
});

describe('regions', () => {
  it('are told with mark, extents and last tag; empty ones are left out', async () => {
    await open();
    expect(bed.store.regions(0, 4096)).toEqual([]);
    await bed.write(0, stamped(1, 300));
    await bed.write(2 * REGION_BLOCKS, stamped(2, 1));
    await bed.store.clean(2, tag(5));
    await bed.write(3 * REGION_BLOCKS, stamped(2, 1));
    await bed.store.clean(3, tag(6));
    await bed.write(3 * REGION_BLOCKS, stamped(3, 1));
    expect(bed.store.regions(0, 4096)).toEqual([
      { number: 0, dirty: true, allocatedExtents: 2, tag: NONE },
      { number: 2, dirty: false, allocatedExtents: 1, tag: tag(5) },
      { number: 3, dirty: true, allocatedExtents: 1, tag: tag(6) },
    ]);
    expect(bed.store.regions(1, 2).map(({ number }) => number)).toEqual([2]);
    expect(bed.store.regions(9, 1)).toEqual([]);
  });

  it('keep their tag when nothing is left in them', async () => {
    await open();
    await bed.write(0, stamped(1, 3));
    await bed.store.trim(0, REGION_SIZE);
    await bed.store.clean(0, tag(5));
    const info = { number: 0, dirty: false, allocatedExtents: 0, tag: tag(5) };
    expect(bed.store.regions(0, 9)).toEqual([info]);
    await bed.powerCut('dropped');
    await bed.open();
    expect(bed.store.regions(0, 9)).toEqual([info]);
  });

  it('P2: tags are as durable as the clean, over kills, power cuts and closing', async () => {
    await open();
    for (const counter of [1, 2, 3]) {
      await bed.write(0, stamped(counter, 3));
      await bed.store.clean(0, tag(counter, 7));
      if (counter === 1) await bed.kill();
      if (counter === 2) await bed.powerCut('dropped');
      if (counter === 3) await bed.close();
      await bed.open();
      expect(bed.store.regions(0, 1)).toEqual([
        { number: 0, dirty: false, allocatedExtents: 1, tag: tag(counter, 7) },
      ]);
      expect((await bed.read(0, 3)).equals(stamped(counter, 3))).toBe(true);
    }
  });

  it('a clean region takes a new tag in one synced batch, without a device operation', async () => {
    await open();
    await bed.write(0, stamped(1, 3));
    await bed.store.clean(0, tag(1));
    const { syncs } = bed.kvs.only;
    const { operations } = bed.medium;
    await bed.store.clean(0, tag(2));
    expect(bed.kvs.only.syncs).toBe(syncs + 1);
    await bed.store.clean(0, tag(2));
    expect(bed.kvs.only.syncs).toBe(syncs + 1);
    expect(bed.medium.operations).toBe(operations);
    await bed.powerCut('dropped');
    await bed.open();
    expect(bed.store.regions(0, 1)[0]).toMatchObject({ dirty: false, tag: tag(2) });
    expect(await extents(0)).toEqual([[0, true, false, 1]]);
  });

  it('R7: a tag that is damaged or missing refuses the replica', async () => {
    for (const change of ['damaged', 'missing'] as const) {
      await open();
      await bed.write(0, stamped(1, 3));
      await bed.store.clean(0, tag(1));
      await bed.close();
      const state = bed.kvs.only.snapshot();
      const [key] = [...state.keys()].filter((name) => name.startsWith('T'));
      const value = state.get(key ?? '');
      if (key === undefined || value === undefined) throw new Error('no tag is stored');
      if (change === 'missing') state.delete(key);
      else value.writeUInt8((value[20] ?? 0) ^ 1, 20);
      bed.kvs.only.restore(state);
      const disk = await bed.openDisk();
      await expect(disk.openReplica(VOLUME)).rejects.toMatchObject({ code: 'CORRUPT_METADATA' });
    }
  });

  it('are gone with their replica', async () => {
    await open();
    await bed.write(0, stamped(1, 3));
    await bed.store.clean(0, tag(1));
    expect(keysOf('T')).toHaveLength(1);
    await bed.handle.close();
    await bed.disk.deleteReplica(VOLUME);
    expect(keysOf('T')).toEqual([]);
    await bed.close();
    await bed.open();
    expect(bed.store.regions(0, 9)).toEqual([]);
  });
});

describe('extents', () => {
  it('are told with tag, and whether they were written or freed since the mark', async () => {
    await open();
    for (const extent of [0, 1, 2]) await bed.write(extentAt(extent), stamped(extent + 1, 2));
    await bed.store.clean(0, tag(4));
    expect(await extents(0)).toEqual([
      [0, true, false, 4],
      [1, true, false, 4],
      [2, true, false, 4],
    ]);
    await bed.write(extentAt(1), stamped(9, 1));
    await bed.store.trim(2 * MIB, MIB);
    await bed.write(extentAt(5), stamped(8, 1));
    expect(await extents(0)).toEqual([
      [0, true, false, 4],
      [1, true, true, 4],
      [2, false, true, 0],
      [5, true, true, 0],
    ]);
    expect(await extents(1)).toEqual([]);
  });

  it('P7: all count as written where the mark is older than the daemon', async () => {
    await open();
    await bed.write(3 * REGION_BLOCKS, stamped(1, 1));
    await bed.kill();
    await bed.open();
    const found = await extents(3);
    expect(found).toEqual(
      Array.from({ length: 8 }, (_, n) => [192 + n, n === 0, true, 0] as const),
    );
  });

  it('a replace counts as written also where no bit changes: the next clean names it', async () => {
    await open();
    await replace(bed, 0, [stamped(1, 1), stamped(2, 1)]);
    await bed.store.flush();
    await bed.store.clean(0, tag(1));
    await replace(bed, 0, [stamped(3, 1), stamped(4, 1)]);
    expect(await extents(0)).toEqual([[0, true, true, 1]]);
    await bed.store.clean(0, tag(2));
    expect(await extents(0)).toEqual([[0, true, false, 2]]);
    await bed.kill();
    await bed.open();
    expect(bed.store.dirtyRegions()).toEqual([]);
    expect((await readSparse(bed, 0, 2)).map((block) => block?.readUInt32LE(0))).toEqual([3, 4]);
  });
});

describe('taking over the tags of a source', () => {
  it('P2: flush, then checksums, tags and removal of the mark in one synced batch', async () => {
    await open();
    await bed.write(0, stamped(1, 300));
    await bed.write(5, stamped(2, 1));
    const { batches, syncs } = bed.kvs.only;
    const flushes = bed.disk.counters.deviceFlushes;
    await bed.store.cleanAs(0, tag(9, 3), named(0, 1));
    expect(bed.kvs.only.batches - batches).toBe(1);
    expect(bed.kvs.only.syncs - syncs).toBe(1);
    expect(bed.disk.counters.deviceFlushes - flushes).toBe(1);
    await bed.powerCut('dropped');
    await bed.open();
    expect(bed.store.regions(0, 9)).toEqual([
      { number: 0, dirty: false, allocatedExtents: 2, tag: tag(9, 3) },
    ]);
    expect(await extents(0)).toEqual([
      [0, true, false, 1],
      [1, true, false, 2],
    ]);
    expect((await bed.read(5, 1)).equals(stamped(2, 1))).toBe(true);
    expect(bed.disk.counters.reprovenExtents).toBe(0);
  });

  it('also of a region that is clean here, and of extents that were not written', async () => {
    await open();
    await bed.write(0, stamped(1, 600));
    await bed.store.clean(0, tag(1));
    const { operations } = bed.medium;
    await bed.store.cleanAs(0, tag(9), named(0, 1, 2));
    expect(bed.medium.operations).toBe(operations);
    expect(await extents(0)).toEqual([
      [0, true, false, 1],
      [1, true, false, 2],
      [2, true, false, 3],
    ]);
    await bed.write(extentAt(1), stamped(2, 1));
    await bed.store.cleanAs(0, tag(10), [...named(0, 2), { extent: 1, tag: tag(77) }]);
    expect((await extents(0)).map(([, , , counter]) => counter)).toEqual([1, 77, 3]);
    expect(bed.store.regions(0, 1)[0]).toMatchObject({ dirty: false, tag: tag(10) });
  });

  const conflicts: Array<[string, number[]]> = [
    ['an extent that was not named', [0]],
    ['a named extent that is not allocated', [0, 1, 2]],
    ['none of them named', []],
  ];
  it.each(conflicts)('CONFLICT: %s; nothing changes', async (_name, list) => {
    await open();
    await bed.write(0, stamped(1, 300));
    await bed.store.clean(0, tag(1));
    await bed.write(0, stamped(2, 1));
    const { batches } = bed.kvs.only;
    await expect(bed.store.cleanAs(0, tag(9), named(...list))).rejects.toMatchObject({
      code: 'CONFLICT',
    });
    expect(bed.kvs.only.batches).toBe(batches);
    expect(bed.store.regions(0, 1)[0]).toMatchObject({ dirty: true, tag: tag(1) });
    await bed.write(0, stamped(3, 1));
    await bed.store.cleanAs(0, tag(9), named(0, 1));
  });

  it('CONFLICT: a write in the region is in flight; later ones wait and mark it anew', async () => {
    await open();
    await bed.write(0, stamped(1, 2));
    const write = bed.write(0, stamped(2, 1));
    await expect(bed.store.cleanAs(0, tag(9), named(0))).rejects.toMatchObject({
      code: 'CONFLICT',
    });
    await write;
    const clean = bed.store.cleanAs(0, tag(9), named(0));
    await Promise.all([clean, bed.write(1, stamped(3, 1))]);
    expect(bed.store.regions(0, 1)[0]).toMatchObject({ dirty: true, tag: tag(9) });
    const again = bed.store.cleanAs(0, tag(10), named(0));
    await Promise.all([again, replace(bed, 0, [stamped(4, 1)])]);
    expect(bed.store.dirtyRegions()).toEqual([0]);
  });

  it('a clean region that takes over tags lets later writes wait and mark it', async () => {
    await open();
    await bed.write(0, stamped(1, 2));
    await bed.store.clean(0, tag(1));
    const clean = bed.store.cleanAs(0, tag(9), named(0));
    expect(bed.store.dirtyRegions()).toEqual([]);
    await Promise.all([clean, bed.write(1, stamped(3, 1))]);
    expect(bed.store.regions(0, 1)[0]).toMatchObject({ dirty: true, tag: tag(9) });
    await bed.kill();
    await bed.open();
    expect(bed.store.dirtyRegions()).toEqual([0]);
    expect((await bed.read(1, 1)).equals(stamped(3, 1))).toBe(true);
  });

  it('of a source that was never written there: no tag, and no old one stays', async () => {
    await open();
    await bed.write(0, stamped(1, 2));
    await bed.store.clean(0, tag(1));
    await bed.store.trim(0, MIB);
    await expect(bed.store.cleanAs(0, NONE, named(0))).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
    await bed.store.cleanAs(0, NONE, []);
    expect(bed.store.regions(0, 9)).toEqual([]);
    expect(keysOf('T')).toEqual([]);
    await bed.close();
    await bed.open();
    expect(bed.store.regions(0, 9)).toEqual([]);
  });

  it('P10: the last inherited region that is cleaned so ends lossy', async () => {
    await open();
    await bed.write(0, stamped(1, 2));
    await bed.write(2 * REGION_BLOCKS, stamped(1, 2));
    await bed.store.flush();
    await bed.powerCut('kept');
    await bed.open();
    expect(bed.handle.lossy).toBe(true);
    await bed.store.cleanAs(0, tag(9), named(0));
    expect(bed.handle.lossy).toBe(true);
    await bed.store.cleanAs(2, tag(9), named(128));
    expect([bed.handle.lossy, bed.handle.restartedDirty]).toEqual([false, false]);
  });

  it('a region past the end is OUT_OF_RANGE, a tag that is none INVALID_ARGUMENT', async () => {
    await open();
    await expect(bed.store.cleanAs(4, tag(1), [])).rejects.toMatchObject({ code: 'OUT_OF_RANGE' });
    await expect(bed.store.extents(4)).rejects.toMatchObject({ code: 'OUT_OF_RANGE' });
    await bed.write(0, stamped(1, 2));
    const bare = [{ extent: 0, tag: NONE }];
    await expect(bed.store.cleanAs(0, tag(1), bare)).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
  });
});
