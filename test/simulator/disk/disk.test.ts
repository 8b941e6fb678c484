/** The simulated disk and metadata store keep the promises of the real ones, and no more
 *  (D1, D3, F3, N2; scenarios 37, 40-42, 44, 46-49, 57, 63). */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { MIB } from '../../../common/units.js';
import { blockDeviceConformance } from '../../conformance/block-device.js';
import { LiveWorld } from '../kernel/live-world.js';
import { Random } from '../kernel/random.js';
import { Scheduler } from '../kernel/scheduler.js';
import { SimHost, type SimProcess } from '../kernel/sim-process.js';
import type { DiskOp, Fate } from './disk-faults.js';
import { SimDevice } from './sim-device.js';
import { SimDisk } from './sim-disk.js';
import { SimKvHome } from './sim-kv.js';
import { SimBufferPool } from './sim-pool.js';

const TIMES = { readMs: 0.1, writeMs: 0.1, flushMs: 1 };
const BLOCK = 4096;

function makeDisk(world: LiveWorld, sizeBytes: number, seed = 1): SimDisk {
  const options = { name: 'd', sizeBytes, times: TIMES };
  return new SimDisk(world.scheduler, options, new Random(seed));
}

blockDeviceConformance({
  name: 'simulated disk',
  create: async (sizeBytes) => {
    const world = new LiveWorld();
    const disk = makeDisk(world, sizeBytes);
    return {
      pool: new SimBufferPool(),
      open: async () => new SimDevice(disk, world.start('h')),
      destroy: async () => world.end(),
    };
  },
});

const pool = new SimBufferPool();
let world: LiveWorld;
beforeEach(() => {
  world = new LiveWorld();
});
afterEach(() => world.end());

const block = (fill: number): Buffer => pool.acquire(BLOCK).bytes.fill(fill);

function open(disk: SimDisk): { device: SimDevice; process: SimProcess } {
  const process = world.start('h');
  return { device: new SimDevice(disk, process), process };
}

function peek(disk: SimDisk, page: number): Buffer {
  const bytes = Buffer.alloc(BLOCK);
  disk.read(page, bytes);
  return bytes;
}

describe('power cuts and kills', () => {
  it.each<Fate>(['kept', 'dropped', 'subset', 'torn'])(
    'D1: a flush is for good (%s)',
    async (fate) => {
      const disk = makeDisk(world, MIB);
      const { device } = open(disk);
      await device.write(BLOCK, block(7));
      await device.flush();
      disk.powerCut(fate);
      expect(peek(disk, 1).equals(Buffer.alloc(BLOCK, 7))).toBe(true);
    },
  );

  it('F3, scenario 46: an overwrite is old or new, or torn at sectors if so asked', async () => {
    const seen = new Set<string>();
    for (let seed = 0; seed < 24; seed += 1) {
      for (const fate of ['subset', 'torn'] as const) {
        const disk = makeDisk(world, MIB, seed);
        const { device } = open(disk);
        await device.write(0, block(1));
        await device.flush();
        await device.write(0, block(2));
        disk.powerCut(fate);
        const fills = new Set(peek(disk, 0));
        expect([...fills].every((fill) => fill === 1 || fill === 2)).toBe(true);
        seen.add(`${fate} ${[...fills].sort()}`);
      }
    }
    expect([...seen].filter((what) => what.startsWith('subset')).sort()).toEqual([
      'subset 1',
      'subset 2',
    ]);
    expect(seen).toContain('torn 1,2');
  });

  it('a flush covers what was answered before it began, not what is under way', async () => {
    let lost = 0;
    for (let seed = 0; seed < 20; seed += 1) {
      const disk = makeDisk(world, MIB, seed);
      const { device } = open(disk);
      const flushed = device.flush();
      await device.write(0, block(3));
      await flushed;
      disk.powerCut('dropped');
      lost += peek(disk, 0)[0] === 3 ? 0 : 1;
    }
    expect(lost).toBe(20);
  });

  it('zeroes of whole chunks are lost or kept like data', async () => {
    const disk = makeDisk(world, 4 * MIB);
    const { device } = open(disk);
    for (const at of [0, MIB, 3 * MIB]) await device.write(at, block(9));
    await device.flush();
    await device.writeZeroes(0, 3 * MIB);
    expect([peek(disk, 0)[0], peek(disk, 256)[0], peek(disk, 768)[0]]).toEqual([0, 0, 9]);
    disk.powerCut('dropped');
    expect([peek(disk, 0)[0], peek(disk, 256)[0], peek(disk, 768)[0]]).toEqual([9, 9, 9]);
  });

  it('a killed process loses nothing that was answered; the rest is there in part', async () => {
    const outcomes = new Set<number>();
    for (let seed = 0; seed < 20; seed += 1) {
      const disk = makeDisk(world, MIB, seed);
      const { device, process } = open(disk);
      await device.write(0, block(3));
      void device.write(BLOCK, block(4));
      process.die('kill');
      expect(peek(disk, 0)[0]).toBe(3);
      outcomes.add(peek(disk, 1)[0] ?? -1);
    }
    expect([...outcomes].sort()).toEqual([0, 4]);
  });
});

describe('what a disk does wrong', () => {
  it('D3, scenario 42: what a failed flush lost stays lost; later flushes fail too', async () => {
    let lost = 0;
    for (let seed = 0; seed < 16; seed += 1) {
      const disk = makeDisk(world, MIB, seed);
      const { device } = open(disk);
      for (let n = 0; n < 8; n += 1) await device.write(n * BLOCK, block(5));
      disk.faults.add({
        ops: ['flush'],
        rate: 1,
        count: 1,
        effect: { kind: 'error', errno: 'EIO' },
      });
      await expect(device.flush()).rejects.toMatchObject({ code: 'IO_ERROR' });
      await expect(device.flush()).rejects.toMatchObject({ code: 'IO_ERROR' });
      await open(disk).device.flush();
      disk.powerCut('kept');
      for (let n = 0; n < 8; n += 1) lost += peek(disk, n)[0] === 5 ? 0 : 1;
    }
    expect(lost).toBeGreaterThan(16);
    expect(lost).toBeLessThan(112);
  });

  it.each<[DiskOp, string, string]>([
    ['read', 'EIO', 'IO_ERROR'],
    ['write', 'EIO', 'IO_ERROR'],
    ['write', 'ENOSPC', 'NO_SPACE'],
    ['zeroes', 'EIO', 'IO_ERROR'],
  ])(
    'scenarios 37, 40, 41: %s fails with %s for as long as it is told',
    async (op, errno, code) => {
      const disk = makeDisk(world, MIB);
      const { device } = open(disk);
      const act = (): Promise<void> => {
        if (op === 'read') return device.read(0, block(0));
        return op === 'write' ? device.write(0, block(1)) : device.writeZeroes(0, BLOCK);
      };
      const effect = {
        kind: 'error' as const,
        errno: errno === 'EIO' ? ('EIO' as const) : ('ENOSPC' as const),
      };
      disk.faults.add({ ops: [op], rate: 1, count: 2, effect });
      await expect(act()).rejects.toMatchObject({ code });
      await expect(act()).rejects.toMatchObject({ code });
      await act();
    },
  );

  it('scenarios 47, 48: writes are lost, or land elsewhere, without a word', async () => {
    const disk = makeDisk(world, 4 * MIB);
    const { device } = open(disk);
    await device.write(MIB, block(1));
    await device.write(2 * MIB, block(2));
    disk.faults.add({ ops: ['write'], rate: 1, count: 1, effect: { kind: 'lost' } });
    await device.write(MIB, block(3));
    expect(peek(disk, 256)[0]).toBe(1);
    disk.faults.add({ ops: ['write'], rate: 1, count: 1, effect: { kind: 'misdirected' } });
    await device.write(MIB, block(4));
    expect([peek(disk, 256)[0], peek(disk, 512)[0]]).toEqual([1, 4]);
    expect([...disk.damaged].sort()).toEqual([256, 512]);
  });

  it('scenario 49: rot changes one bit for good', async () => {
    const disk = makeDisk(world, MIB);
    const { device } = open(disk);
    await device.write(0, block(0xff));
    await device.flush();
    disk.rot(0);
    disk.powerCut('kept');
    const wrong = [...peek(disk, 0)].filter((byte) => byte !== 0xff);
    expect(wrong).toHaveLength(1);
  });

  it('scenarios 20, 21, 44: slow, stalled, gone', async () => {
    const disk = makeDisk(world, MIB);
    const { device } = open(disk);
    const { scheduler } = world;
    const tookMs = async (act: () => Promise<void>): Promise<number> => {
      const startMs = scheduler.nowMs;
      await act();
      return scheduler.nowMs - startMs;
    };
    disk.faults.flushStallUntilMs = scheduler.nowMs + 30_000;
    expect(await tookMs(() => device.write(0, block(1)))).toBeLessThan(10);
    expect(await tookMs(() => device.flush())).toBeGreaterThan(29_000);
    disk.faults.slowness = 1_000;
    let slow = 0;
    for (let n = 0; n < 20; n += 1) slow += await tookMs(() => device.write(0, block(1)));
    expect(slow / 20).toBeGreaterThan(20);
    disk.faults.gone = true;
    await expect(device.write(0, block(1))).rejects.toMatchObject({ code: 'IO_ERROR' });
  });

  it('a write buffer that changes in flight is found', async () => {
    const scheduler = new Scheduler();
    const host = new SimHost(scheduler, 'h', new Random(1));
    const disk = new SimDisk(scheduler, { name: 'd', sizeBytes: MIB, times: TIMES }, new Random(1));
    const view = block(1);
    void new SimDevice(disk, host.start('p')).write(0, view);
    view[9] = 0;
    await expect(scheduler.run()).rejects.toThrow('changed before it was answered');
  });
});

describe('metadata store', () => {
  const key = (n: number): Buffer => Buffer.from([n]);
  const put = (n: number) => [{ key: key(n), value: Buffer.from([n]) }];

  async function database(seed = 1) {
    const home = new SimKvHome(
      world.scheduler,
      { batchMs: 0.1, syncMs: 1, getMs: 0.1 },
      new Random(seed),
    );
    const process = world.start('h');
    const kv = await home.openKv(process)('/kv', { create: true });
    return { home, kv, process };
  }

  async function keys(home: SimKvHome): Promise<number[]> {
    const kv = await home.openKv(world.start('h'))('/kv', { create: false });
    const found: number[] = [];
    for await (const group of kv.iterate({ from: Buffer.alloc(0), to: key(0xff) })) {
      for (const [name] of group) found.push(name[0] ?? -1);
    }
    await kv.close();
    return found;
  }

  it('a power cut takes any end of what was not synced', async () => {
    const kept = new Set<number>();
    for (let seed = 0; seed < 40; seed += 1) {
      const { home, kv, process } = await database(seed);
      await kv.batch(put(1), { sync: true });
      for (const n of [2, 3, 4]) await kv.batch(put(n), { sync: false });
      process.host.losePower();
      home.powerCut();
      const found = await keys(home);
      expect([1, 2, 3, 4].slice(0, found.length)).toEqual(found);
      kept.add(found.length);
    }
    expect([...kept].sort()).toEqual([1, 2, 3, 4]);
  });

  it('a kill loses nothing that was answered', async () => {
    const found = new Set<number>();
    for (let seed = 0; seed < 20; seed += 1) {
      const { home, kv, process } = await database(seed);
      await kv.batch(put(1), { sync: false });
      void kv.batch(put(2), { sync: false });
      process.die('kill');
      found.add((await keys(home)).length);
    }
    expect([...found].sort()).toEqual([1, 2]);
  });

  it('scenario 39: refuses for want of space, and says so', async () => {
    const { home, kv } = await database();
    home.faults.add({
      ops: ['flush'],
      rate: 1,
      count: 1,
      effect: { kind: 'error', errno: 'ENOSPC' },
    });
    await expect(kv.batch(put(1), { sync: true })).rejects.toMatchObject({ code: 'NO_SPACE' });
    await kv.batch(put(2), { sync: true });
    expect(await kv.get(key(2))).toEqual(Buffer.from([2]));
  });

  it('scenario 14: one process at a time; a dead one holds nothing', async () => {
    const { home, process } = await database();
    const other = world.start('h');
    await expect(home.openKv(other)('/kv', { create: false })).rejects.toMatchObject({
      code: 'DISK_LOCKED',
    });
    const files = home.files(process);
    await files.lock('d');
    await expect(home.files(other).lock('d')).rejects.toMatchObject({ code: 'DISK_LOCKED' });
    process.die('kill');
    await home.files(other).lock('d');
    await home.openKv(other)('/kv', { create: false });
  });
});
