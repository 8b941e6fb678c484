import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pino from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SystemClock } from '../../../common/clock.js';
import { BLOCK_SIZE, MIB } from '../../../common/units.js';
import { createBufferPool } from '../../../native/index.js';
import { type Disk, type DiskOptions, openDisk } from '../../../replica/disk/disk.js';
import { missing } from '../../support/host.js';
import { LoopDevice } from '../../support/loop-device.js';
import { checksumsOf, stamped } from './store-bed.js';

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

async function openVolume(path: string, sizeBytes?: number) {
  disk = await openDisk(options(path, sizeBytes));
  await disk.createReplica({
    volume: 'v1',
    sizeBytes: 128 * MIB,
    replicaId: 'r1',
    membership: { epoch: 1, generation: 1, members: [] },
  });
  return await disk.openReplica('v1');
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

    it('a second daemon is refused: DISK_LOCKED', async () => {
      const { path, size } = await place.make();
      await openVolume(path, size);
      await expect(openDisk(options(path))).rejects.toMatchObject({ code: 'DISK_LOCKED' });
      const elsewhere = { ...options(path), metaDir: join(directory, 'meta2') };
      await expect(openDisk(elsewhere)).rejects.toMatchObject({ code: 'DISK_LOCKED' });
    });
  });
}

describe('cost', () => {
  it('an overwrite costs few microseconds of our own (printed)', async () => {
    const idle = {
      path: 'idle',
      kind: 'memory' as const,
      sizeBytes: 64 * MIB,
      sectorSize: 4096,
      read: async (_at: number, view: Buffer) => void view.fill(0),
      write: () => Promise.resolve(),
      flush: () => Promise.resolve(),
      discard: () => Promise.resolve(),
      writeZeroes: () => Promise.resolve(),
      close: () => Promise.resolve(),
    };
    const { store } = await openVolume(join(directory, 'disk.img'), 64 * MIB);
    void idle;
    const content = stamped(1, 256);
    for (let n = 0; n < 32; n += 1)
      await store.write(n * MIB, filled(content), checksumsOf(content));
    const block = stamped(5, 1);
    const checksums = checksumsOf(block);
    const rounds = 400;
    const depth = 64;
    const cpu = process.cpuUsage();
    const begin = performance.now();
    for (let round = 0; round < rounds; round += 1) {
      const work: Array<Promise<void>> = [];
      for (let n = 0; n < depth; n += 1) {
        const at = ((round * 7919 + n * 104729) % (32 * 256)) * BLOCK_SIZE;
        work.push(store.write(at, pool.acquire(BLOCK_SIZE), checksums));
      }
      await Promise.all(work);
    }
    const us = ((performance.now() - begin) * 1000) / (rounds * depth);
    const used = process.cpuUsage(cpu);
    const cpuUs = (used.user + used.system) / (rounds * depth);
    console.log(
      `overwrite 4 KiB, depth ${depth}: ${us.toFixed(2)} us wall, ${cpuUs.toFixed(2)} us cpu`,
    );
  });
});
