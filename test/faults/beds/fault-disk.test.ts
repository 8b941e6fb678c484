/** The bed of bad disks, from the side of the kernel: what is armed arrives as errors and delays,
 *  and a power cut keeps exactly what a flush covered. */
import { open, readdir, readFile } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { MIB } from '../../../common/units.js';
import { run } from '../../support/process.js';
import { FaultDisk, faultDiskLacks } from './fault-disk.js';
import { Lab } from './lab.js';

const lacks = faultDiskLacks('mkfs.ext4');

describe.skipIf(lacks !== undefined)(`a disk that fails on request ${lacks ?? ''}`, () => {
  let lab: Lab;
  let disk: FaultDisk;

  beforeEach(async () => {
    lab = await Lab.open();
    disk = await FaultDisk.create(lab, { name: 'disk', sizeBytes: 64 * MIB, seed: 1 });
  });
  afterEach(() => lab.close());

  /** dd past the page cache. */
  const dd = (...args: string[]): Promise<{ stderr: string }> =>
    run('dd', ['bs=4096', 'count=4', 'status=none', ...args]);
  const write = (...args: string[]): Promise<{ stderr: string }> =>
    dd('if=/dev/urandom', `of=${disk.device}`, 'oflag=direct', ...args);
  const read = (): Promise<{ stderr: string }> =>
    dd(`if=${disk.device}`, 'of=/dev/null', 'iflag=direct');

  it('gives EIO, ENOSPC and delays to whoever uses the device, and stops when told', async () => {
    await write();
    await disk.arm({ ops: ['write'], mishap: { kind: 'error', errno: 'EIO' }, count: 1 });
    await expect(write()).rejects.toThrow(/Input\/output error/);
    await disk.arm({ ops: ['write'], mishap: { kind: 'error', errno: 'ENOSPC' }, count: 1 });
    await expect(write()).rejects.toThrow(/No space left/);
    await disk.arm({ ops: ['read'], mishap: { kind: 'error', errno: 'EIO' }, count: 1 });
    await expect(read()).rejects.toThrow(/Input\/output error/);
    await disk.arm({ ops: ['flush'], mishap: { kind: 'error', errno: 'EIO' }, count: 1 });
    await expect(write('conv=fsync')).rejects.toThrow(/Input\/output error/);
    const heal = await disk.arm({ ops: ['flush'], mishap: { kind: 'delay', ms: 300 } });
    const startedMs = performance.now();
    await write('conv=fsync');
    expect(performance.now() - startedMs).toBeGreaterThan(290);
    await heal();
    await write('conv=fsync');
    await read();
  });

  it('that vanishes answers EIO to all', async () => {
    await write();
    await disk.vanish();
    await expect(read()).rejects.toThrow(/Input\/output error/);
    await expect(write()).rejects.toThrow(/Input\/output error/);
  });

  it('after a power cut shows what was flushed, and a file system on it recovers', async () => {
    await run('mkfs.ext4', ['-q', disk.device]);
    const dir = await lab.makeDir('mnt');
    await run('mount', [disk.device, dir]);
    const durable = await open(`${dir}/durable`, 'w');
    await durable.writeFile('durable'.repeat(1000));
    await durable.sync();
    await durable.close();
    const late = await open(`${dir}/late`, 'w');
    await late.writeFile('never flushed');
    await late.close();
    await disk.ask('freeze');
    await disk.ask('powerOff');
    await run('umount', [dir]);
    await disk.detach();
    await disk.ask('powerOn', 'dropped');
    await disk.attach();
    await run('mount', [disk.device, dir]);
    expect(await readFile(`${dir}/durable`, 'utf8')).toBe('durable'.repeat(1000));
    expect(await readdir(dir)).not.toContain('late');
    await run('umount', [dir]);
    await run('e2fsck', ['-fn', disk.device]);
  });
});
