/** Opening: facts, flags, locks, refusals; devices of odd size; file systems without direct I/O;
 *  full disks. */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, open, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { KIB, MIB } from '../../common/units.js';
import { createBufferPool, lockFile, openBlockDevice } from '../../native/index.js';
import { isRoot, missing } from '../support/host.js';
import { LoopDevice } from '../support/loop-device.js';

const code = (value: string): unknown => expect.objectContaining({ code: value });
const pool = createBufferPool({ limitBytes: 8 * MIB });
const view = pool.acquire(MIB).bytes;

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'aurochs-open-'));
});
afterAll(() => rm(dir, { recursive: true }));

async function file(name: string, sizeBytes: number): Promise<string> {
  const made = path.join(dir, name);
  await writeFile(made, '');
  await truncate(made, sizeBytes);
  return made;
}

describe('openBlockDevice', () => {
  test.each([
    ['empty', 0, 0],
    ['less than a sector', 100, 0],
    ['not whole sectors', 10 * 4096 + 1, 10 * 4096],
  ])('a file that is %s has its whole sectors', async (name, sizeBytes, want) => {
    const device = await openBlockDevice(await file(name.replaceAll(' ', '-'), sizeBytes));
    expect(device.sizeBytes).toBe(want);
    expect(device.kind).toBe('file');
    await device.flush();
    await expect(device.read(want, view.subarray(0, 4096))).rejects.toEqual(code('OUT_OF_RANGE'));
    await device.close();
  });

  test('refusals carry a code and name the path', async () => {
    const missingFile = path.join(dir, 'nowhere');
    const refused = expect(openBlockDevice(missingFile)).rejects;
    await refused.toEqual(
      expect.objectContaining({
        code: 'NOT_FOUND',
        message: expect.stringContaining(missingFile),
        details: expect.objectContaining({ errno: 'ENOENT' }),
      }),
    );
    await expect(openBlockDevice(dir)).rejects.toEqual(code('INVALID_ARGUMENT'));
    await expect(openBlockDevice('/dev/null')).rejects.toEqual(code('INVALID_ARGUMENT'));
  });

  test('AUROCHS_IO_BACKEND decides for auto, and nonsense in it is refused', async () => {
    const target = await file('backend', MIB);
    const before = process.env['AUROCHS_IO_BACKEND'];
    try {
      process.env['AUROCHS_IO_BACKEND'] = 'threads';
      const device = await openBlockDevice(target);
      expect(device.backend).toBe('threads');
      await device.close();
      process.env['AUROCHS_IO_BACKEND'] = 'magic';
      await expect(openBlockDevice(target)).rejects.toEqual(code('INVALID_ARGUMENT'));
    } finally {
      if (before === undefined) delete process.env['AUROCHS_IO_BACKEND'];
      else process.env['AUROCHS_IO_BACKEND'] = before;
    }
  });

  test('a read-only device reads and refuses every change', async () => {
    const device = await openBlockDevice(await file('read-only', MIB), { readOnly: true });
    await device.read(0, view.subarray(0, 4096));
    await device.flush();
    const zeroes = device.writeZeroes(0, 4096, { mayUnmap: false });
    for (const refused of [device.write(0, view), device.discard(0, 4096), zeroes]) {
      await expect(refused).rejects.toEqual(code('READ_ONLY'));
    }
    await device.close();
  });

  test('a file cut short behind our back: IO_ERROR, never a short read', async () => {
    const target = await file('cut', MIB);
    for (const backend of ['io_uring', 'threads'] as const) {
      const device = await openBlockDevice(target, { backend });
      await truncate(target, 512 * KIB);
      await expect(device.read(0, view)).rejects.toEqual(code('IO_ERROR'));
      await truncate(target, MIB);
      await device.close();
    }
  });

  test('scenario 14: a second exclusive holder gets DISK_LOCKED', async () => {
    const target = await file('locked', MIB);
    const link = path.join(dir, 'alias');
    await symlink(target, link);
    const first = await openBlockDevice(target, { exclusive: true });
    await expect(openBlockDevice(link, { exclusive: true })).rejects.toEqual(code('DISK_LOCKED'));
    await first.close();
    const second = await openBlockDevice(link, { exclusive: true });
    await second.close();
  });

  test('memory that is not of a pool is a programmer error', async () => {
    const device = await openBlockDevice(await file('foreign', MIB));
    const foreign = Buffer.alloc(8192).subarray(0, 4096);
    await expect((async () => device.write(0, foreign))()).rejects.toThrow('BufferPool');
    await device.close();
  });

  test('a buffer is not released while an operation uses it, nor used after that', async () => {
    const device = await openBlockDevice(await file('borrowed', MIB));
    const buffer = pool.acquire(4096);
    const { bytes } = buffer;
    const written = device.write(0, bytes);
    expect(() => buffer.release()).toThrow('while an operation uses it');
    await written;
    buffer.release();
    await expect((async () => device.write(0, bytes))()).rejects.toThrow('released');
    await device.close();
  });
});

describe.skipIf(missing('root', 'loop') !== undefined)('block devices (root, loop)', () => {
  let loop: LoopDevice;
  beforeEach(async () => {
    loop = await LoopDevice.create(path.join(dir, 'loop'), 8 * MIB);
  });
  afterEach(() => loop.detach());

  test('scenario 14: exclusive is refused while another holder has the device', async () => {
    const first = await openBlockDevice(loop.path, { exclusive: true });
    expect([first.kind, first.sizeBytes, first.sectorSize]).toEqual(['block', 8 * MIB, 512]);
    await expect(openBlockDevice(loop.path, { exclusive: true })).rejects.toEqual(
      code('DISK_LOCKED'),
    );
    await first.close();
    await (await openBlockDevice(loop.path, { exclusive: true })).close();
  });

  test('D1: a flush of the device is a cache flush of the disk', async () => {
    const device = await openBlockDevice(loop.path);
    const before = await loop.flushes();
    await device.write(0, view);
    await device.flush();
    await device.flush();
    expect(await loop.flushes()).toBe(before + 2);
    await device.close();
  });

  test('discard gives the blocks back to the file below', async () => {
    const device = await openBlockDevice(loop.path);
    const below = await open(path.join(dir, 'loop'));
    for (let at = 0; at < 8 * MIB; at += MIB) await device.write(at, view.fill(1));
    await device.flush();
    const full = (await below.stat()).blocks;
    await device.discard(0, 4 * MIB);
    expect(device.discardSupported).toBe(true);
    expect((await below.stat()).blocks).toBeLessThan(full - 7000);
    await below.close();
    await device.close();
  });
});

describe.skipIf(!isRoot)('other file systems (root: mount)', () => {
  let mounted: string;
  const mount = async (type: string, options: string): Promise<void> => {
    mounted = path.join(dir, `mnt-${type}`);
    await mkdir(mounted, { recursive: true });
    execFileSync('mount', ['-t', type, '-o', options, 'aurochs-test', mounted]);
  };
  afterEach(() => {
    execFileSync('umount', [mounted]);
  });

  test('without O_DIRECT the page cache is used, and the device says so', async () => {
    await mount('ramfs', 'mode=700');
    const target = path.join(mounted, 'disk');
    await writeFile(target, Buffer.alloc(MIB, 3));
    for (const backend of ['io_uring', 'threads'] as const) {
      const device = await openBlockDevice(target, { backend });
      expect([device.directIo, device.sectorSize]).toEqual([false, 512]);
      await device.write(512, view.subarray(0, 512).fill(4));
      // Neither hole nor zero range: zeroes are written, discards are let be.
      await device.writeZeroes(4096, 8192, { mayUnmap: true });
      await device.discard(0, 4096);
      expect(device.discardSupported).toBe(false);
      await device.flush();
      await device.read(0, view.subarray(0, 16_384).fill(9));
      expect([0, 512, 1024, 4096, 12_287, 12_288].map((at) => view[at])).toEqual([
        3, 4, 3, 0, 0, 3,
      ]);
      await device.close();
    }
  });

  test('scenarios 37, 38: a full disk is NO_SPACE and reads go on', async () => {
    await mount('tmpfs', 'size=1m');
    const target = path.join(mounted, 'disk');
    await writeFile(target, '');
    await truncate(target, 8 * MIB);
    for (const backend of ['io_uring', 'threads'] as const) {
      const device = await openBlockDevice(target, { backend });
      await device.write(0, view.subarray(0, 512 * KIB).fill(6));
      await expect(device.write(2 * MIB, view)).rejects.toEqual(code('NO_SPACE'));
      await device.read(0, view.fill(0).subarray(0, 4096));
      expect(view[0]).toBe(6);
      await device.close();
    }
  });
});

describe('lockFile', () => {
  test('scenario 14: held once; free again after release; the file stays', async () => {
    const target = path.join(dir, 'daemon.lock');
    const lock = await lockFile(target);
    await expect(lockFile(target)).rejects.toEqual(code('DISK_LOCKED'));
    lock.release();
    lock.release();
    const again = await lockFile(target);
    again.release();
  });

  test('a symlink or a missing folder is refused', async () => {
    const link = path.join(dir, 'link.lock');
    await symlink(path.join(dir, 'elsewhere'), link);
    await expect(lockFile(link)).rejects.toEqual(code('INVALID_ARGUMENT'));
    await expect(lockFile(path.join(dir, 'no', 'such'))).rejects.toEqual(code('NOT_FOUND'));
  });

  test('the lock ends with its process, however that ends', async () => {
    const target = path.join(dir, 'killed.lock');
    await writeFile(target, '');
    const holder = spawn('flock', ['-n', '--no-fork', target, 'sh', '-c', 'echo held; exec cat']);
    await once(holder.stdout, 'data');
    await expect(lockFile(target)).rejects.toEqual(code('DISK_LOCKED'));
    const ended = once(holder, 'close');
    holder.kill('SIGKILL');
    await ended;
    (await lockFile(target)).release();
  });
});
