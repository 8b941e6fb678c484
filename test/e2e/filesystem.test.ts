/** A real file system and a real database on the block device; the engine goes and comes back under
 *  them. */
import { createHash } from 'node:crypto';
import { chmod, chown, mkdir, readdir, readFile, readlink, stat } from 'node:fs/promises';
import path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { Cluster, ROOT } from '../support/cluster.js';
import { missing, postgresPrograms } from '../support/host.js';
import { LoopDevice } from '../support/loop-device.js';
import { Child, run } from '../support/process.js';

const lacks = missing('root', 'fuse', 'loop', 'losetup', 'mkfs.ext4', 'fstrim');

/** One line per file: path, kind, mode, size, contents' hash or link target. */
async function manifest(root: string): Promise<string[]> {
  const lines: string[] = [];
  for (const entry of await readdir(root, { recursive: true, withFileTypes: true })) {
    const file = path.join(entry.parentPath, entry.name);
    const name = path.relative(root, file);
    if (name.startsWith('lost+found')) continue;
    if (entry.isSymbolicLink()) lines.push(`${name} -> ${await readlink(file)}`);
    else if (entry.isFile()) {
      const hash = createHash('sha256')
        .update(await readFile(file))
        .digest('hex');
      lines.push(`${name} ${(await stat(file)).mode} ${hash}`);
    } else lines.push(`${name}/`);
  }
  return lines.sort();
}

/** Bytes that the disk files really take. */
async function allocated(cluster: Cluster): Promise<number> {
  const sizes = await Promise.all(
    Array.from(
      { length: cluster.count },
      async (_, i) => (await stat(cluster.disk(i))).blocks * 512,
    ),
  );
  return sizes.reduce((sum, size) => sum + size, 0);
}

describe.skipIf(lacks !== undefined)(`file system on the device ${lacks ?? ''}`, () => {
  let cluster: Cluster | undefined;
  let mounted: string | undefined;
  const loops: LoopDevice[] = [];

  afterEach(async () => {
    if (mounted !== undefined) await run('umount', [mounted]).catch(() => undefined);
    mounted = undefined;
    await cluster?.stop().catch(() => undefined);
    for (const loop of loops.splice(0)) await loop.detach().catch(() => undefined);
    await cluster?.destroy();
    cluster = undefined;
  });

  async function mount(device: string, fs = 'ext4'): Promise<string> {
    const dir = path.join((cluster as Cluster).dir, 'mnt');
    await mkdir(dir, { recursive: true });
    await run('mount', ['-t', fs, device, dir]);
    mounted = dir;
    return dir;
  }

  async function unmount(): Promise<void> {
    await run('umount', [mounted as string]);
    mounted = undefined;
  }

  it.each([{ disk: 'file' }, { disk: 'loop device' }])(
    'a tree of real files survives detach, engine restart and attach; replica disks: $disk',
    async ({ disk }) => {
      const onLoop = disk !== 'file';
      cluster = await Cluster.make({
        size: '1GiB',
        device: true,
        ...(onLoop ? { disk: (index: number) => loops[index]?.path ?? '' } : {}),
      });
      for (let index = 0; onLoop && index < 3; index += 1) {
        loops.push(await LoopDevice.create(path.join(cluster.dir, `loop${index}`), 2 ** 31));
      }
      await cluster.startDaemons();
      await cluster.startEngine();
      await run('mkfs.ext4', ['-q', cluster.device]);
      const dir = await mount(cluster.device);
      await run('cp', ['-a', path.join(ROOT, 'node_modules/typescript'), dir]);
      await run('cp', ['-a', '/usr/include', dir]);
      const before = await manifest(dir);
      expect(before.length).toBeGreaterThan(1000);
      await unmount();
      await cluster.stopEngine();
      await cluster.startEngine();
      await run('e2fsck', ['-fn', cluster.device]);
      expect(await manifest(await mount(cluster.device))).toEqual(before);

      if (!onLoop) {
        const full = await allocated(cluster);
        await run('rm', ['-rf', path.join(dir, 'include'), path.join(dir, 'typescript')]);
        await run('sync', ['-f', dir]);
        await run('fstrim', [dir]);
        expect(await allocated(cluster)).toBeLessThan(full / 2);
      }
      await unmount();
      await cluster.stop();
      await cluster.expectEqual();
    },
    180_000,
  );

  it('an engine killed and started again under a writing ext4 goes unnoticed', async () => {
    cluster = await Cluster.start({ size: '512MiB', device: true });
    await run('mkfs.ext4', ['-q', cluster.device]);
    const dir = await mount(cluster.device);
    const writer = new Child('fio', {
      args: [
        ...['--name=w', `--directory=${dir}`, '--rw=randwrite', '--bs=16k', '--size=64M'],
        ...[
          '--fsync=8',
          '--verify=crc32c',
          '--verify_state_save=0',
          '--do_verify=1',
          '--verify_state_save=0',
          '--time_based',
          '--runtime=8',
        ],
      ],
      logPath: path.join(cluster.dir, 'fio.log'),
    });
    for (let round = 0; round < 2; round += 1) {
      await new Promise((resolve) => setTimeout(resolve, 2000));
      await cluster.stopEngine('SIGKILL');
      await cluster.startEngine();
    }
    expect(await writer.ended).toBe(0);
    await unmount();
    await run('e2fsck', ['-fn', cluster.device]);
  }, 90_000);

  const bin = postgresPrograms();
  const noPostgres = bin === undefined ? 'needs postgresql' : missing('runuser');
  it.skipIf(noPostgres !== undefined)(
    `PostgreSQL under pgbench with an engine restart stays clean ${noPostgres ?? ''}`,
    async () => {
      cluster = await Cluster.start({ size: '1GiB', device: true });
      await run('mkfs.ext4', ['-q', cluster.device]);
      const dir = await mount(cluster.device);
      const data = path.join(dir, 'pg');
      const uid = Number((await run('id', ['-u', 'postgres'])).stdout);
      await mkdir(data, { mode: 0o700 });
      await chown(data, uid, uid);
      await chmod(cluster.dir, 0o755);
      const as = (...args: string[]): Promise<{ stdout: string }> =>
        run('runuser', ['-u', 'postgres', '--', ...args], { cwd: '/' });
      const db = ['-h', data, '-p', '54329'];
      await as(`${bin}/initdb`, '-D', data, '-A', 'trust', '--data-checksums');
      const settings = `-k ${data} -p 54329 -c listen_addresses= -c shared_buffers=32MB`;
      const log = path.join(data, 'server.log');
      await as(`${bin}/pg_ctl`, '-D', data, '-o', settings, '-l', log, '-w', 'start');
      try {
        await as(`${bin}/createdb`, ...db, 'bench');
        await as(`${bin}/pgbench`, ...db, '-i', '-s', '5', '-q', 'bench');
        const load = as(`${bin}/pgbench`, ...db, '-c', '4', '-T', '10', 'bench');
        await new Promise((resolve) => setTimeout(resolve, 3000));
        await cluster.stopEngine('SIGKILL');
        await cluster.startEngine();
        await load;
        await as(`${bin}/psql`, ...db, '-d', 'bench', '-c', 'create extension amcheck');
        await as(`${bin}/pg_amcheck`, ...db, '--heapallindexed', '-d', 'bench');
      } finally {
        await as(`${bin}/pg_ctl`, '-D', data, '-m', 'fast', '-w', 'stop').catch(() => undefined);
      }
      await unmount();
      await run('e2fsck', ['-fn', cluster.device]);
    },
    180_000,
  );
});
