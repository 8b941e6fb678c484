/** What is written through the device is what the server holds: under load, over restarts, with
 *  flush and discard. */
import { spawn } from 'node:child_process';
import { readFile, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SystemClock, sleep } from '../../../common/clock.js';
import { deviceStatus, resizeDevice } from '../../../engine/device/device-frontend.js';
import { loopSizeBytes } from '../../../engine/device/loop-device.js';
import { NbdServer } from '../../../engine/nbd/server.js';
import { MemoryVolume } from '../../support/memory-volume.js';
import { run } from '../../support/process.js';
import { DeviceBed, deviceLacks } from './device-bed.js';
import { FakeNbdServer, FLUSH, WRITE } from './fake-nbd-server.js';

const MIB = 1024 * 1024;
const lacks = deviceLacks('mkfs.ext4', 'fio', 'fstrim', 'resize2fs');
if (lacks !== undefined) console.log(`device tests skipped: ${lacks}`);

describe.skipIf(lacks !== undefined)(`data through the device ${lacks ?? ''}`, () => {
  let bed: DeviceBed;

  beforeEach(async () => {
    bed = await DeviceBed.make();
  });
  afterEach(() => bed.destroy());

  async function image(sizeBytes: number): Promise<string> {
    const path = join(bed.dir, 'disk.img');
    await writeFile(path, '');
    await truncate(path, sizeBytes);
    return path;
  }

  it.each([
    { bs: '4k', size: '24M', slow: [] },
    { bs: '64k', size: '128M', slow: [] },
    { bs: '64k', size: '24M', slow: ['--filter=delay', 'wdelay=3ms'] },
    { bs: '1500k', size: '96M', slow: [] },
  ])('fio verifies every $bs write at depth 16, direct I/O $slow', async ({ bs, size, slow }) => {
    const [filter, ...delay] = slow;
    await bed.serve(...(filter === undefined ? [] : [filter]), 'memory', '192M', ...delay);
    const { devicePath } = await bed.attach();
    await run('fio', [
      ...['--name=v', `--filename=${devicePath}`, '--direct=1', '--ioengine=libaio'],
      ...['--rw=randwrite', `--bs=${bs}`, `--size=${size}`, '--iodepth=16'],
      ...['--verify=crc32c', '--verify_state_save=0', '--do_verify=1', '--verify_fatal=1'],
    ]);
    await bed.detach();
    expect(await bed.leftovers()).toEqual([]);
  });

  it('a tree on ext4 is the same after unmount, detach and attach', async () => {
    const disk = await image(256 * MIB);
    await bed.serve('file', disk);
    const first = await bed.attach();
    await run('mkfs.ext4', ['-q', first.devicePath]);
    const before = await bed.mount(first.devicePath);
    await run('cp', ['-a', '/usr/include/linux', before]);
    await bed.unmount(before);
    await bed.detach();
    expect(await bed.leftovers()).toEqual([]);
    await run('e2fsck', ['-fn', disk]);
    const second = await bed.attach();
    const after = await bed.mount(second.devicePath, 'ro');
    await run('diff', ['-r', '/usr/include/linux', join(after, 'linux')]);
    await bed.unmount(after);
    await bed.detach();
  });

  it('fdatasync arrives as FLUSH (D1), fstrim as TRIM, and the space comes back', async () => {
    const disk = await image(512 * MIB);
    const logFile = join(bed.dir, 'nbd.log');
    await bed.serve('--filter=log', 'file', disk, `logfile=${logFile}`);
    const { devicePath } = await bed.attach();
    await run('mkfs.ext4', ['-q', '-E', 'nodiscard', devicePath]);
    const dir = await bed.mount(devicePath);
    const big = join(dir, 'big');
    const flushes = async (): Promise<number> => {
      return (await readFile(logFile, 'utf8')).match(/ Flush id=/g)?.length ?? 0;
    };
    const before = await flushes();
    await run('dd', ['if=/dev/zero', `of=${big}`, 'bs=1M', 'count=64', 'conv=fdatasync']);
    expect(await flushes()).toBeGreaterThan(before);
    const full = (await stat(disk)).blocks * 512;
    expect(full).toBeGreaterThan(64 * MIB);
    await run('rm', [big]);
    await run('sync', ['-f', dir]);
    await run('fstrim', [dir]);
    expect(await readFile(logFile, 'utf8')).toMatch(/ Trim id=/);
    expect((await stat(disk)).blocks * 512).toBeLessThan(full - 60 * MIB);
    await bed.unmount(dir);
    await bed.detach();
  });

  it('write zeroes and discards longer than one NBD request arrive whole', async () => {
    const disk = await image(5 * 1024 * MIB);
    await bed.serve('file', disk);
    const { devicePath } = await bed.attach();
    const at = [0, 2047, 4095, 5119];
    for (const seek of at) {
      const of = [`of=${devicePath}`, `seek=${seek}`, 'oflag=direct', 'bs=1M', 'count=1'];
      await run('dd', ['if=/dev/urandom', ...of]);
    }
    const bytesOf = async () => (await stat(disk)).blocks * 512;
    expect(await bytesOf()).toBe(at.length * MIB);
    await run('blkdiscard', ['-f', devicePath]);
    expect(await bytesOf()).toBe(0);
    await run('blkdiscard', ['-f', '-z', '-o', String(MIB), '-l', String(3 * MIB), devicePath]);
    await run('cmp', ['-n', String(8 * MIB), devicePath, '/dev/zero']);
    await bed.detach();
  });

  it('a server killed and restarted under a writing ext4 goes unnoticed (scenario 2)', async () => {
    const disk = await image(256 * MIB);
    let server = await bed.serve('file', disk);
    const { devicePath } = await bed.attach();
    await run('mkfs.ext4', ['-q', devicePath]);
    const dir = await bed.mount(devicePath, 'errors=remount-ro');
    const writer = spawn('fio', [
      ...['--name=w', `--directory=${dir}`, '--rw=randwrite', '--bs=16k', '--size=24M'],
      ...[
        '--fsync=16',
        '--verify=crc32c',
        '--verify_state_save=0',
        '--do_verify=1',
        '--loops=2',
        '--status-interval=1',
      ],
    ]);
    const ended = new Promise<number | null>((resolve) => writer.once('exit', resolve));
    await new Promise((resolve) => writer.stdout.once('data', resolve));
    for (let round = 0; round < 3 && writer.exitCode === null; round += 1) {
      await bed.kill(server);
      server = await bed.serve('file', disk);
      await run('dd', ['if=/dev/urandom', `of=${dir}/r${round}`, 'bs=1M', 'count=4', 'conv=fsync']);
    }
    expect(await ended).toBe(0);
    await bed.unmount(dir);
    await bed.detach();
    await run('e2fsck', ['-fn', disk]);
  });

  it("the engine's NBD server, drained or cut off under fio, loses nothing", async () => {
    const volume = new MemoryVolume({ name: 'vol', sizeBytes: 64 * MIB });
    const listen = () =>
      NbdServer.listen({
        exports: [{ name: 'vol', volume }],
        address: { path: bed.socket },
        log: bed.log,
        clock: new SystemClock(),
      });
    let server = await listen();
    try {
      const { devicePath } = await bed.attach();
      const fio = run('fio', [
        ...['--name=v', `--filename=${devicePath}`, '--direct=1', '--ioengine=libaio'],
        ...['--rw=randwrite', '--bs=16k', '--size=64M', '--iodepth=16', '--fsync=32'],
        ...[
          '--verify=crc32c',
          '--verify_state_save=0',
          '--do_verify=1',
          '--verify_fatal=1',
          '--rate_iops=1500',
        ],
      ]);
      let ended = false;
      const done = fio.finally(() => {
        ended = true;
      });
      for (let round = 0; !ended; round += 1) {
        await sleep(new SystemClock(), 150);
        await server.close({ drain: round % 2 === 0 });
        server = await listen();
      }
      await done;
      expect((await deviceStatus({ name: 'vol', runDir: bed.runDir })).reconnects).toBeGreaterThan(
        2,
      );
      await bed.detach();
      expect(volume.flushes).toBeGreaterThan(0);
      expect(volume.borrowed).toBe(0);
    } finally {
      await server.close({ drain: false });
    }
  });

  it('grows in use: the loop device follows the export, and ext4 the loop device', async () => {
    const disk = await image(64 * MIB);
    await bed.serve('file', disk);
    const { devicePath } = await bed.attach();
    await run('mkfs.ext4', ['-q', devicePath]);
    const dir = await bed.mount(devicePath);
    const ref = { name: 'vol', runDir: bed.runDir };
    expect(await resizeDevice(ref)).toEqual({ sizeBytes: 64 * MIB });
    await truncate(disk, 160 * MIB);
    expect(await resizeDevice(ref)).toEqual({ sizeBytes: 160 * MIB });
    expect(await loopSizeBytes(devicePath)).toBe(160 * MIB);
    // Growing a mounted ext4 takes CAP_SYS_RESOURCE, which containers may lack: then it is grown
    // unmounted.
    const online = await run('resize2fs', [devicePath]).then(
      () => true,
      (error: { stderr: string }) => {
        expect(error.stderr).toContain('Permission denied to resize');
        return false;
      },
    );
    await bed.unmount(dir);
    if (!online) {
      await run('e2fsck', ['-fp', devicePath]);
      await run('resize2fs', [devicePath]);
    }
    const grown = await bed.mount(devicePath);
    await run('dd', ['if=/dev/urandom', `of=${grown}/big`, 'bs=1M', 'count=100', 'conv=fsync']);
    await bed.unmount(grown);
    await bed.detach();
    await run('e2fsck', ['-fn', disk]);
  });

  it('a read-only export makes a read-only device', async () => {
    await bed.serve('-r', 'memory', '16M');
    const { devicePath } = await bed.attach();
    const { stdout } = await run('blockdev', ['--getro', devicePath]);
    expect(stdout.trim()).toBe('1');
    await run('cmp', ['-n', '65536', devicePath, '/dev/zero']);
    await bed.detach();
  });

  it.each([
    { what: 'write', type: WRITE, argv: ['oflag=direct'] },
    { what: 'flush', type: FLUSH, argv: ['conv=fsync'] },
  ])('an error of a $what reaches the program (D3, N5)', async ({ type, argv }) => {
    const server = await FakeNbdServer.listen({ path: bed.socket, sizeBytes: 16 * MIB });
    try {
      const { devicePath } = await bed.attach();
      server.onRequest = (request) => request.reply(request.type === type ? 5 : 0);
      const dd = run('dd', ['if=/dev/zero', `of=${devicePath}`, 'bs=4k', 'count=1', ...argv]);
      await expect(dd).rejects.toMatchObject({ stderr: expect.stringContaining('Input/output') });
      server.onRequest = (request) => request.reply();
      await run('dd', ['if=/dev/urandom', `of=${devicePath}`, 'bs=4k', 'count=1', ...argv]);
      await bed.detach();
      expect(server.disconnects).toBe(1);
      expect(server.seen.at(-1)?.type).toBe(FLUSH);
    } finally {
      await server.kill();
    }
  });

  it('without a server for too long requests end with an error instead of hanging', async () => {
    const server = await bed.serve('memory', '16M');
    const { devicePath } = await bed.attach({ giveUpMs: 200 });
    await bed.kill(server);
    const argv = ['if=/dev/zero', `of=${devicePath}`, 'bs=4k', 'count=1', 'oflag=direct'];
    await expect(run('dd', argv)).rejects.toThrow('Input/output');
    await bed.serve('memory', '16M');
    let stillRefused = true;
    while (stillRefused) {
      stillRefused = await run('dd', argv).then(
        () => false,
        () => true,
      );
    }
    await bed.detach();
  });
});
