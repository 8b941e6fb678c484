import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pino from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { BlockDevice } from '../../../common/block-device.js';
import { SystemClock } from '../../../common/clock.js';
import { StorageError } from '../../../common/errors.js';
import { BLOCK_SIZE, MIB } from '../../../common/units.js';
import { createBufferPool, openBlockDevice } from '../../../native/index.js';
import {
  type Disk,
  type DiskOptions,
  openDisk,
  type ReplicaHandle,
} from '../../../replica/disk/disk.js';
import { DirectoryMetaHome } from '../../../replica/disk/meta-home.js';
import type { ReplicaStore } from '../../../replica/replica-store.js';
import { DiskSet } from '../../../replica/service/disk-set.js';
import { missing } from '../../support/host.js';
import { LoopDevice } from '../../support/loop-device.js';
import { HandClock } from '../service/service-fixture.js';
import { type SuiteBed, sparseSuite } from './sparse-suite.js';
import { checksumsOf, MEMBERSHIP, stamped } from './store-bed.js';

const pool = createBufferPool({ limitBytes: 128 * MIB });
let directory: string;
let loop: LoopDevice | undefined;
let disk: Disk | undefined;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'aurochs-store-'));
});

afterEach(async () => {
  await disk?.close();
  disk = undefined;
  await loop?.detach();
  loop = undefined;
  await rm(directory, { recursive: true, force: true });
  expect(pool.usedBytes).toBe(0);
});

function options(path: string, sizeBytes?: number): DiskOptions {
  return {
    path,
    ...(sizeBytes === undefined ? {} : { sizeBytes }),
    metaDir: join(directory, 'meta'),
    identity: { clusterId: 'cluster', daemonId: 'daemon' },
    incarnation: 'i1',
    bootId: 'b1',
    pool,
    log: pino({ level: 'silent' }),
    clock: new SystemClock(),
  };
}

async function openVolume(path: string, sizeBytes?: number): Promise<ReplicaHandle> {
  disk = await openDisk(options(path, sizeBytes));
  return await makeVolume(disk);
}

async function makeVolume(on: Disk): Promise<ReplicaHandle> {
  await on.createReplica({
    volume: 'v1',
    sizeBytes: 128 * MIB,
    replicaId: 'r1',
    membership: MEMBERSHIP,
  });
  return await on.openReplica('v1');
}

function filled(content: Buffer) {
  const data = pool.acquire(content.length);
  content.copy(data.bytes);
  return data;
}

const places = [
  {
    name: 'a file',
    skip: undefined,
    make: async () => ({ path: join(directory, 'disk.img'), size: 64 * MIB }),
  },
  {
    name: 'a loop device',
    skip: missing('root', 'loop'),
    make: async () => {
      loop = await LoopDevice.create(join(directory, 'loop.img'), 64 * MIB);
      return { path: loop.path, size: undefined };
    },
  },
];

for (const place of places) {
  describe.skipIf(place.skip !== undefined)(`on ${place.name}, with level`, () => {
    it('writes, flushes, trims; all is there after closing and opening', async () => {
      const { path, size } = await place.make();
      let { store } = await openVolume(path, size);
      for (let n = 0; n < 20; n += 1) {
        const content = stamped(n + 1, 100);
        await store.write(n * 300 * BLOCK_SIZE, filled(content), checksumsOf(content));
      }
      await store.flush();
      await store.trim(0, 4 * MIB);
      await disk?.close();
      ({ store } = await openVolume(path));
      for (let n = 0; n < 20; n += 1) {
        const read = await store.read(n * 300 * BLOCK_SIZE, 100 * BLOCK_SIZE);
        const firstKept = Math.ceil((4 * MIB) / BLOCK_SIZE) - n * 300;
        const want = stamped(n + 1, 100);
        if (firstKept > 0) want.fill(0, 0, Math.min(100, firstKept) * BLOCK_SIZE);
        const got = read.data?.bytes ?? Buffer.alloc(100 * BLOCK_SIZE);
        expect(got.equals(want)).toBe(true);
        read.data?.release();
      }
    });

    const suiteBed = ({ store, counters }: ReplicaHandle): SuiteBed => ({ store, pool, counters });
    let at: { path: string; size: number | undefined };
    sparseSuite({
      open: async () => {
        at = await place.make();
        return suiteBed(await openVolume(at.path, at.size));
      },
      again: async () => {
        await disk?.close();
        return suiteBed(await openVolume(at.path));
      },
    });

    it('fstrim: trimmed extents go back to the file below', async () => {
      const { path, size } = await place.make();
      const { store } = await openVolume(path, size);
      const content = stamped(1, 256);
      for (let n = 0; n < 24; n += 1) {
        await store.write(n * MIB, filled(content), checksumsOf(content));
      }
      await store.flush();
      const file = size === undefined ? join(directory, 'loop.img') : path;
      const full = (await stat(file)).blocks * 512;
      expect(full).toBeGreaterThanOrEqual(24 * MIB);
      await store.trim(0, 20 * MIB);
      await store.flush();
      const begin = performance.now();
      while ((await stat(file)).blocks * 512 > full - 19 * MIB) {
        expect(performance.now() - begin).toBeLessThan(10_000);
      }
    });

    it('a second daemon is refused: DISK_LOCKED', async () => {
      const { path, size } = await place.make();
      await openVolume(path, size);
      await expect(openDisk(options(path))).rejects.toMatchObject({ code: 'DISK_LOCKED' });
      const elsewhere = { ...options(path), metaDir: join(directory, 'meta2') };
      await expect(openDisk(elsewhere)).rejects.toMatchObject({ code: 'DISK_LOCKED' });
    });
  });
}

describe('scenario 44: a file disk whose flush failed', () => {
  it('is opened again in the same process, with its locks and its metadata', async () => {
    const path = join(directory, 'disk.img');
    const clock = new HandClock();
    let failing = false;
    const openDevice = async (at: string): Promise<BlockDevice> => {
      const device = await openBlockDevice(at, { exclusive: true });
      const flush = device.flush.bind(device);
      device.flush = () => {
        if (!failing) return flush();
        return Promise.reject(new StorageError('IO_ERROR', 'flush: EIO'));
      };
      return device;
    };
    const identity = { daemonId: 'n1', clusterId: 'c1', incarnation: 'i1', bootId: 'b1' };
    const shared = { metaDir: join(directory, 'meta'), log: pino({ level: 'silent' }) };
    const disks = await DiskSet.open([{ path, sizeBytes: 64 * MIB }], {
      ...{ ...shared, identity, pool, clock, cacheBytes: MIB, openDevice },
    });
    const came = new Promise((resolve) => disks.retry(resolve));
    const place = disks.mostFree();
    const { store } = await makeVolume(place.disk);
    const content = stamped(1, 16);
    await store.write(0, filled(content), checksumsOf(content));
    failing = true;
    await expect(store.flush()).rejects.toMatchObject({ code: 'IO_ERROR' });
    failing = false;
    clock.advance(5_000);
    expect(await came).toBe(place);
    const again = await place.disk.openReplica('v1');
    expect(again).toMatchObject({ lossy: true, restartedDirty: true, incarnation: 'i1.1' });
    const read = await again.store.read(0, 16 * BLOCK_SIZE);
    expect(read.data?.bytes.equals(content)).toBe(true);
    read.data?.release();
    await again.store.flush();
    await disks.close();
    const note = await new DirectoryMetaHome(shared.metaDir).notes();
    expect(note).toMatchObject([{ path, state: 'ready' }]);
    expect(note[0]?.lostWrites).toBeUndefined();
  });
});

describe('cost of an overwrite in the steady state', () => {
  /** A device that does nothing: what is left is ours. */
  const idle = (device: BlockDevice): BlockDevice => ({
    path: device.path,
    kind: device.kind,
    sizeBytes: device.sizeBytes,
    sectorSize: device.sectorSize,
    read: (at, view) => device.read(at, view),
    write: () => Promise.resolve(),
    flush: () => device.flush(),
    discard: () => Promise.resolve(),
    writeZeroes: () => Promise.resolve(),
    close: () => device.close(),
  });

  for (const [name, wrap] of [
    ['no device', idle],
    ['a file', (device: BlockDevice) => device],
  ] as const) {
    it(`4 KiB at depth 64 on ${name} (printed)`, async () => {
      const base = options(join(directory, 'disk.img'), 64 * MIB);
      disk = await openDisk({
        ...base,
        openDevice: async (path) => wrap(await openBlockDevice(path, { exclusive: true })),
      });
      const { store } = await makeVolume(disk);
      const full = stamped(1, 256);
      for (let n = 0; n < 32; n += 1) await store.write(n * MIB, filled(full), checksumsOf(full));
      const { kvBatches, deviceWrites } = disk.counters;
      const rounds = name === 'a file' ? 300 : 1500;
      await overwrite(store, 100);
      const before = process.cpuUsage();
      await overwrite(store, rounds);
      const used = process.cpuUsage(before);
      const us = (used.user + used.system) / (rounds * DEPTH);
      console.log(`overwrite of 4 KiB on ${name}: ${us.toFixed(2)} us of CPU`);
      expect(disk.counters.kvBatches).toBe(kvBatches);
      expect(disk.counters.deviceWrites - deviceWrites).toBe((rounds + 100) * DEPTH);
    });
  }
});

const DEPTH = 64;

async function overwrite(store: ReplicaStore, rounds: number): Promise<void> {
  const checksums = checksumsOf(stamped(5, 1));
  const work: Array<Promise<void>> = [];
  for (let round = 0; round < rounds; round += 1) {
    for (let n = 0; n < DEPTH; n += 1) {
      const at = ((round * 7919 + n * 104729) % (32 * 256)) * BLOCK_SIZE;
      work[n] = store.write(at, pool.acquire(BLOCK_SIZE), checksums);
    }
    await Promise.all(work);
  }
}
