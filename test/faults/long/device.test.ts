/** The block device over an engine that is killed, and a device process that is killed itself. */
import { readFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { MIB } from '../../../common/units.js';
import type { Cluster } from '../../support/cluster.js';
import { missing } from '../../support/host.js';
import { DeviceLoadClient } from '../../support/load-client.js';
import { run } from '../../support/process.js';
import type { StampedLoad } from '../../support/stamped-load.js';
import { expectSound, FaultBed } from '../beds/fault-bed.js';

const lacks = missing('root', 'fuse', 'loop', 'losetup', 'mkfs.ext4');
const LIMIT_MS = 240_000;

describe.skipIf(lacks !== undefined)(`the block device ${lacks ?? ''}`, () => {
  const bed = FaultBed.use();

  async function loaded(): Promise<{ cluster: Cluster; load: StampedLoad }> {
    const cluster = await bed.startCluster({ device: true });
    const load = bed.load(cluster, {
      bytes: 32 * MIB,
      // The device takes FUA as a flush, and its flushes are slow.
      mix: { flush: 1, fuaPercent: 1 },
      connect: () => DeviceLoadClient.open(cluster.device),
    });
    await load.start();
    await load.more(200);
    return { cluster, load };
  }

  async function devicePid(cluster: Cluster): Promise<number> {
    return Number.parseInt(await readFile(`${cluster.dir}/run/vol.device.pid`, 'utf8'), 10);
  }

  it(
    'scenario 2: engine and daemons are killed under it: requests wait, each has one effect',
    async () => {
      const { cluster, load } = await loaded();
      for (let round = 0; round < 6; round += 1) {
        await bed.someTime(50, 400);
        const all = round % 3 === 2;
        if (all) await cluster.stop('SIGKILL');
        else await cluster.stopEngine('SIGKILL');
        load.crashed();
        await bed.someTime(0, 500);
        if (all) await cluster.startDaemons();
        await cluster.startEngine();
        load.served();
        await load.more(100);
      }
      await load.stop();
      // Nobody heard an error, and nobody's request was lost.
      expect(load.history.operations.filter(({ outcome }) => outcome !== 'ok')).toEqual([]);
      await load.sweep();
      expectSound(load);
      await cluster.stop();
      await cluster.expectEqual();
    },
    LIMIT_MS,
  );

  it(
    'scenario 11: its process is killed with requests pending: errors, and a device again',
    async () => {
      const { cluster, load } = await loaded();
      for (let round = 0; round < 3; round += 1) {
        await bed.someTime(50, 300);
        process.kill(await devicePid(cluster), 'SIGKILL');
        await load.ended();
        load.crashed();
        await cluster.stopEngine('SIGKILL');
        await cluster.startEngine();
        load.served();
        await load.sweep(1);
        await load.start();
        await load.more(100);
      }
      await load.stop();
      expectSound(load);
      await cluster.stop();
      await cluster.expectEqual();
    },
    LIMIT_MS,
  );

  it(
    'scenario 11: under a file system: no hang, umount works, and it mounts again',
    async () => {
      const cluster = await bed.startCluster({ device: true, size: '256MiB', diskSize: '1GiB' });
      await run('mkfs.ext4', ['-q', cluster.device]);
      const dir = await bed.lab.makeDir('mnt');
      await run('mount', [cluster.device, dir]);
      await run('sh', ['-c', `echo kept > ${dir}/kept; sync ${dir}/kept`]);
      const writing = run('dd', ['if=/dev/zero', `of=${dir}/file`, 'bs=64k', 'count=100000']).catch(
        () => undefined,
      );
      await bed.someTime(500, 1500);
      process.kill(await devicePid(cluster), 'SIGKILL');
      await writing;
      await run('umount', [dir]);
      await cluster.stopEngine();
      await cluster.startEngine();
      await run('mount', [cluster.device, dir]);
      const { stdout } = await run('cat', [`${dir}/kept`]);
      expect(stdout).toBe('kept\n');
      await run('umount', [dir]);
      await run('e2fsck', ['-fn', cluster.device]);
      await cluster.stop();
      await cluster.expectEqual();
    },
    LIMIT_MS,
  );
});
