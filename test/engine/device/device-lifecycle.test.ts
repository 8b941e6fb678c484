/** Attach and detach: idempotent, refused while in use, and nothing left behind whoever is killed
 *  when. */
import { spawn } from 'node:child_process';
import { mkdir, open, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SystemClock, sleep } from '../../../common/clock.js';
import {
  chooseDeviceFrontend,
  type DeviceFrontend,
  deviceStatus,
} from '../../../engine/device/device-frontend.js';
import { run } from '../../support/process.js';
import { DeviceBed, deviceLacks, ENTRY } from './device-bed.js';

const lacks = deviceLacks('mkfs.ext4');

describe.skipIf(lacks !== undefined)(`device life ${lacks ?? ''}`, () => {
  let bed: DeviceBed;

  beforeEach(async () => {
    bed = await DeviceBed.make();
  });
  afterEach(() => bed.destroy());

  const status = () => deviceStatus({ name: 'vol', runDir: bed.runDir });

  it('attach and detach are idempotent; the link names the device', async () => {
    await bed.serve('memory', '16M');
    expect((await status()).state).toBe('detached');
    const device = await bed.attach();
    expect(await readlink(device.linkPath)).toBe(device.devicePath);
    expect(await bed.attach()).toEqual(device);
    expect(await status()).toMatchObject({ state: 'attached', pid: device.pid, connected: true });
    const elsewhere = bed.attach({ socketPath: join(bed.dir, 'other.sock') });
    await expect(elsewhere).rejects.toMatchObject({ code: 'CONFLICT' });
    await bed.detach();
    await bed.detach();
    expect((await status()).state).toBe('detached');
    expect(await bed.leftovers()).toEqual([]);
  });

  it('devices live side by side; attaches of one name at once make one device', async () => {
    await bed.serve('memory', '16M');
    const [a, b] = await Promise.all([bed.attach({ name: 'a' }), bed.attach({ name: 'b' })]);
    expect(a.devicePath).not.toBe(b.devicePath);
    const [first, second, third] = await Promise.all([bed.attach(), bed.attach(), bed.attach()]);
    expect(second).toEqual(first);
    expect(third).toEqual(first);
    for (const name of ['a', 'b', 'vol']) await bed.detach(name);
    expect(await bed.leftovers()).toEqual([]);
  });

  it('refuses to detach what is mounted, or open, and says where', async () => {
    await bed.serve('memory', '64M');
    const { devicePath } = await bed.attach();
    await run('mkfs.ext4', ['-q', devicePath]);
    const dir = await bed.mount(devicePath);
    await expect(bed.detach()).rejects.toMatchObject({
      code: 'CONFLICT',
      message: expect.stringContaining(dir),
    });
    expect((await status()).user).toBe(`mounted at ${dir}`);
    await bed.unmount(dir);
    const handle = await open(devicePath, 'r');
    const refused = bed.detach();
    await expect(refused).rejects.toMatchObject({
      code: 'CONFLICT',
      message: expect.stringContaining(`open in process ${process.pid}`),
    });
    await handle.close();
    await bed.detach();
    expect(await bed.leftovers()).toEqual([]);
  });

  it('SIGINT and SIGHUP do nothing; SIGTERM detaches only an unused device', async () => {
    await bed.serve('memory', '64M');
    const { devicePath, pid } = await bed.attach();
    await run('mkfs.ext4', ['-q', devicePath]);
    const dir = await bed.mount(devicePath);
    process.kill(pid, 'SIGINT');
    process.kill(pid, 'SIGHUP');
    process.kill(pid, 'SIGTERM');
    await run('cp', ['/etc/hostname', join(dir, 'file')]);
    await run('sync', ['-f', dir]);
    expect((await status()).state).toBe('attached');
    await bed.unmount(dir);
    process.kill(pid, 'SIGTERM');
    while ((await bed.leftovers()).length > 0) await sleep(new SystemClock(), 10);
    expect((await status()).state).toBe('detached');
  });

  it('without an engine the attach fails and leaves nothing', async () => {
    const attach = bed.attach({ timeoutMs: 2000 });
    await expect(attach).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    expect(await bed.leftovers()).toEqual([]);
  });

  it('a killed process: detach cleans up, attach makes a new device (scenario 11)', async () => {
    await bed.serve('memory', '64M');
    const first = await bed.attach();
    process.kill(first.pid, 'SIGKILL');
    while ((await status()).state !== 'dead') await sleep(new SystemClock(), 5);
    await bed.detach();
    expect(await bed.leftovers()).toEqual([]);
    const second = await bed.attach();
    process.kill(second.pid, 'SIGKILL');
    const third = await bed.attach();
    expect(third.pid).not.toBe(second.pid);
    await run('dd', ['if=/dev/zero', `of=${third.devicePath}`, 'bs=64k', 'count=4']);
    await bed.detach();
    expect(await bed.leftovers()).toEqual([]);
  });

  it('killed under a mount: detach names it, attach works beside it (scenario 11)', async () => {
    await bed.serve('memory', '64M');
    const first = await bed.attach();
    await run('mkfs.ext4', ['-q', first.devicePath]);
    const stale = await bed.mount(first.devicePath);
    process.kill(first.pid, 'SIGKILL');
    await expect(bed.detach()).rejects.toMatchObject({
      code: 'CONFLICT',
      message: expect.stringContaining(stale),
    });
    const second = await bed.attach();
    expect(second.devicePath).not.toBe(first.devicePath);
    await run('e2fsck', ['-fp', second.devicePath]).catch((error: { code: number }) => {
      if (error.code !== 1) throw error;
    });
    const fresh = await bed.mount(second.devicePath);
    await run('cp', ['/etc/hostname', join(fresh, 'file')]);
    await bed.unmount(fresh);
    await bed.unmount(stale);
    await bed.detach();
    expect(await bed.leftovers()).toEqual([]);
    const { stdout } = await run('losetup', ['--all']);
    expect(stdout).not.toContain(first.devicePath);
  });

  it('killed at any step of the attach, the next one cleans up', async () => {
    await bed.serve('memory', '16M');
    await bed.attach();
    await bed.detach();
    const argv = ['--name', 'vol', '--export', 'vol', '--socket', bed.socket];
    const limits = ['--connections', '1', '--give-up-ms', '1000', '--wait-ms', '1000'];
    for (let delayMs = 40; delayMs <= 160; delayMs += 24) {
      const args = [ENTRY, ...argv, '--run-dir', bed.runDir, ...limits];
      const child = spawn(process.execPath, args, { stdio: 'ignore' });
      const ended = new Promise((resolve) => child.once('exit', resolve));
      await sleep(new SystemClock(), delayMs);
      child.kill('SIGKILL');
      await ended;
      const { devicePath } = await bed.attach();
      await run('dd', [`if=${devicePath}`, 'of=/dev/null', 'bs=64k', 'count=1']);
      await bed.detach();
      expect(await bed.leftovers()).toEqual([]);
    }
  });

  it('a forced detach ends a device that is in use', async () => {
    await bed.serve('memory', '64M');
    const { devicePath } = await bed.attach();
    const handle = await open(devicePath, 'r');
    await bed.destroyDevice();
    await handle.close();
    expect((await bed.leftovers()).filter((left) => !left.startsWith('/dev/'))).toEqual([]);
  });

  it('refuses names that are paths, and socket paths that cannot be', async () => {
    await expect(bed.attach({ name: '../x' })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    bed.names.delete('../x');
    await bed.serve('memory', '16M');
    const runDir = join(bed.dir, 'x'.repeat(90));
    await mkdir(runDir);
    await expect(bed.attach({ runDir })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });
});

describe('choice of the frontend', () => {
  const fake = (kind: string, obstacle: string | undefined): DeviceFrontend => ({
    kind,
    obstacle: async () => obstacle,
    attach: () => Promise.reject(new Error('not used')),
    detach: () => Promise.reject(new Error('not used')),
    status: () => Promise.reject(new Error('not used')),
    resize: () => Promise.reject(new Error('not used')),
  });

  it('takes the first that works and says why not the ones before', async () => {
    const list = [fake('ublk', 'no ublk_drv'), fake('loop', undefined), fake('last', undefined)];
    const { frontend, reason } = await chooseDeviceFrontend(list);
    expect(frontend.kind).toBe('loop');
    expect(reason).toBe('loop (ublk: no ublk_drv)');
  });

  it('says what is missing when none works', async () => {
    const none = chooseDeviceFrontend([fake('ublk', 'no ublk_drv'), fake('loop', 'needs root')]);
    await expect(none).rejects.toMatchObject({
      code: 'UNSUPPORTED',
      message: expect.stringContaining('loop: needs root'),
    });
  });
});
