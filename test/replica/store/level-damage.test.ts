/** Files of the metadata database, each flipped, cut, emptied and deleted: refused or unharmed,
 * never silently less (52). */
import { cp, mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pino from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SystemClock } from '../../../common/clock.js';
import { isErrorCode, StorageError } from '../../../common/errors.js';
import { BLOCK_SIZE, MIB } from '../../../common/units.js';
import { openDisk } from '../../../replica/disk/disk.js';
import { openLevelKv } from '../../../replica/store/level-kv.js';
import { MemoryBufferPool, MemoryDisk } from '../../support/memory-device.js';
import { checksumsOf, MEMBERSHIP, stamped } from './store-bed.js';

const EXTENTS = 60;
const medium = new MemoryDisk({ sizeBytes: (EXTENTS + 8) * MIB });
const pool = new MemoryBufferPool();
let directory: string;
let good: string;
let names: string[];

function options(metaDir: string) {
  return {
    path: '/dev/null', // stands for the medium, which openDevice opens
    metaDir,
    identity: { clusterId: 'cluster', daemonId: 'daemon' },
    incarnation: 'i',
    bootId: 'b',
    pool,
    log: pino({ level: 'silent' }),
    clock: new SystemClock(),
    reserveBytes: 0,
    openDevice: async (path: string) => medium.open(path),
  };
}

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'aurochs-level-'));
  good = join(directory, 'good');
  for (let session = 0; session < 3; session += 1) {
    const disk = await openDisk({
      ...options(good),
      openKv: (path, kv) => openLevelKv(path, { ...kv, writeBufferBytes: 64 * 1024 }),
    });
    await disk.createReplica({
      volume: 'v1',
      sizeBytes: EXTENTS * MIB,
      replicaId: 'r1',
      membership: MEMBERSHIP,
    });
    const handle = await disk.openReplica('v1');
    for (let extent = 0; extent < EXTENTS; extent += 1) {
      for (const at of [session, session + 10]) {
        const content = stamped(extent + 1, 1);
        const data = pool.acquire(BLOCK_SIZE);
        content.copy(data.bytes);
        await handle.store.write(extent * MIB + at * BLOCK_SIZE, data, checksumsOf(content));
      }
    }
    await disk.close();
  }
  const [diskId] = await readdir(good);
  names = await readdir(join(good, diskId ?? '', 'level'));
});

afterAll(() => rm(directory, { recursive: true, force: true }));

/** Every block that was written is there: or the open, or a read, says that it cannot. */
async function openDamaged(metaDir: string): Promise<'whole' | string> {
  let disk: Awaited<ReturnType<typeof openDisk>> | undefined;
  try {
    disk = await openDisk(options(metaDir));
    const handle = await disk.openReplica('v1');
    for (let extent = 0; extent < EXTENTS; extent += 1) {
      for (const at of [0, 1, 2, 10, 11, 12]) {
        const read = await handle.store.read(extent * MIB + at * BLOCK_SIZE, BLOCK_SIZE);
        const same = read.data?.bytes.equals(stamped(extent + 1, 1)) === true;
        read.data?.release();
        if (!same) return 'LOST DATA';
      }
    }
    return 'whole';
  } catch (error) {
    if (error instanceof StorageError && isErrorCode(error.code)) return error.code;
    return `unexpected ${String(error)}`;
  } finally {
    await disk?.close();
  }
}

const DAMAGES: ReadonlyArray<readonly [string, (file: string) => Promise<void>]> = [
  ['deleted', (file) => rm(file)],
  ['emptied', (file) => truncate(file, 0)],
  ['cut in half', async (file) => truncate(file, Math.floor((await stat(file)).size / 2))],
  ['flipped near its start', (file) => flip(file, 0.05)],
  ['flipped in its middle', (file) => flip(file, 0.5)],
  ['flipped near its end', (file) => flip(file, 0.97)],
  ['zeroed', async (file) => writeFile(file, Buffer.alloc((await stat(file)).size))],
];

async function flip(file: string, where: number): Promise<void> {
  const bytes = await readFile(file);
  const at = Math.floor(bytes.length * where);
  if (bytes.length > 0) bytes[at] = (bytes[at] ?? 0) ^ 0x10;
  await writeFile(file, bytes);
}

describe('R7: a damaged metadata database', () => {
  it('has the kinds of files that this test is about', () => {
    const kinds = names.map((name) => name.replace(/[0-9-]+/, '').replace('.', ''));
    expect(kinds).toEqual(expect.arrayContaining(['CURRENT', 'MANIFEST', 'log', 'ldb']));
  });

  for (const [what, damage] of DAMAGES) {
    it(`each file ${what}: refused with a reason, or nothing is lost`, async () => {
      const image = medium.peek(0, medium.sizeBytes);
      const outcomes: Record<string, string> = {};
      for (const name of names) {
        if (name === 'LOCK' || name === 'LOG' || name === 'LOG.old') continue;
        const copy = join(directory, 'damaged');
        await cp(good, copy, { recursive: true });
        const [diskId] = await readdir(copy);
        await damage(join(copy, diskId ?? '', 'level', name));
        outcomes[name] = await openDamaged(copy);
        await rm(copy, { recursive: true });
        medium.poke(0, image);
      }
      const allowed = /^(whole|CORRUPT_METADATA|DISK_ROLLED_BACK|DISK_MISMATCH|IO_ERROR)$/;
      for (const outcome of Object.values(outcomes))
        expect(outcome, JSON.stringify(outcomes)).toMatch(allowed);
      if (what === 'deleted') expect(Object.values(outcomes)).not.toContain('whole');
    });
  }
});

describe('the contract of Kv over level', () => {
  it('a synced batch makes older logs durable: they are synced by name', async () => {
    const synced: string[] = [];
    const path = join(directory, 'kv');
    const kv = await openLevelKv(path, {
      create: true,
      writeBufferBytes: 64 * 1024,
      syncFile: async (file) => void synced.push(file),
    });
    const value = Buffer.alloc(20_000, 7);
    await kv.batch([{ key: Buffer.from('a'), value }], { sync: true });
    expect(synced).toEqual([]);
    for (let n = 0; n < 200 && synced.length === 0; n += 1) {
      for (let m = 0; m < 3; m += 1) {
        await kv.batch([{ key: Buffer.from(`b${n}.${m}`), value }], { sync: false });
      }
      await kv.batch([{ key: Buffer.from('c'), value: Buffer.alloc(1) }], { sync: true });
    }
    expect(synced.length).toBeGreaterThan(0);
    await kv.close();
  });

  it('refuses a second opening, a missing one, and making it twice', async () => {
    const path = join(directory, 'kv2');
    await expect(openLevelKv(path, { create: false })).rejects.toMatchObject({
      code: 'DISK_MISMATCH',
    });
    const kv = await openLevelKv(path, { create: true });
    await expect(openLevelKv(path, { create: false })).rejects.toMatchObject({
      code: 'DISK_LOCKED',
    });
    await kv.close();
    await expect(openLevelKv(path, { create: true })).rejects.toMatchObject({
      code: 'ALREADY_EXISTS',
    });
  });
});
