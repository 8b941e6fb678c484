/** Copies that come back or are made anew while everything else goes wrong (R6, P6). */
import { describe, expect, it } from 'vitest';
import { MIB } from '../../../common/units.js';
import { EngineControlClient } from '../../../proto/control.js';
import type { Cluster } from '../../support/cluster.js';
import type { StampedLoad } from '../../support/stamped-load.js';
import { startDiskCluster } from '../beds/disk-cluster.js';
import { expectSound, FaultBed, untilRecovered } from '../beds/fault-bed.js';
import { type FaultDisk, faultDiskLacks } from '../beds/fault-disk.js';

const LIMIT_MS = 300_000;

describe('a rebuild', () => {
  const bed = FaultBed.use();

  /** A load has written, then one copy is away and a whole one has to be made in its place. */
  async function emptied(): Promise<{ cluster: Cluster; load: StampedLoad }> {
    const cluster = await bed.startCluster({ size: '64MiB' });
    const load = bed.load(cluster);
    await load.start();
    await load.more(400);
    return { cluster, load };
  }

  /** Takes the second copy off and adds an empty one on the same daemon. */
  async function replace(cluster: Cluster): Promise<string> {
    await untilRecovered(cluster);
    const status = await cluster.status();
    const old = status.replicas.find(({ address }) => address === cluster.address(1));
    const control = new EngineControlClient({ address: `unix:${cluster.dir}/run/control.sock` });
    try {
      const replicaId = old?.replicaId ?? '';
      await control.removeReplica({ replicaId, deleteData: true, address: '' });
      return (await control.addReplica({ address: cluster.address(1) })).replicaId;
    } finally {
      control.close();
    }
  }

  async function endsWell(cluster: Cluster, load: StampedLoad): Promise<void> {
    await cluster.whenHealthy(120_000);
    await load.stop();
    expect(load.refusals).toEqual([]);
    await load.sweep();
    expectSound(load);
    await cluster.stop();
    await cluster.expectEqual();
  }

  const INTERRUPTIONS = [
    { name: 'the target is killed', victims: ['target'] },
    { name: 'a source is killed', victims: ['source'] },
    { name: 'the engine is killed', victims: ['engine'] },
    { name: 'target and engine are killed', victims: ['target', 'engine'] },
    { name: 'everything is killed', victims: ['target', 'source', 'other', 'engine'] },
  ] as const;

  it.each(INTERRUPTIONS)(
    'scenario 64: $name at five points of it: never promoted early, done in the end (R6)',
    async ({ victims }) => {
      const { cluster, load } = await emptied();
      for (let round = 0; round < 5; round += 1) {
        await replace(cluster);
        await bed.someTime(0, 250 * round + 1);
        load.note(`round ${round}: kill ${victims.join(', ')}`);
        await kill(cluster, victims);
        if (victims.some((victim) => victim === 'engine')) await load.ended();
        load.crashed();
        await revive(cluster, load, victims);
        await load.more(50);
        await cluster.whenHealthy(120_000);
      }
      await endsWell(cluster, load);
    },
    LIMIT_MS,
  );

  async function kill(cluster: Cluster, victims: readonly string[]): Promise<void> {
    await Promise.all(
      victims.map((victim) => {
        if (victim === 'engine') return cluster.stopEngine('SIGKILL');
        return cluster.stopDaemon(daemonOf(victim), 'SIGKILL');
      }),
    );
  }

  async function revive(
    cluster: Cluster,
    load: StampedLoad,
    victims: readonly string[],
  ): Promise<void> {
    const daemons = victims.filter((victim) => victim !== 'engine').map(daemonOf);
    await Promise.all(daemons.map((index) => cluster.startDaemon(index)));
    if (!victims.includes('engine')) return;
    await cluster.startEngine();
    load.served();
    await load.start();
  }

  const daemonOf = (victim: string): number => ({ target: 1, source: 0, other: 2 })[victim] ?? 0;

  it(
    'scenario 65: writes and trims race it on the same extents (R6)',
    async () => {
      const mix = { write: 60, read: 20, trim: 15, zero: 5 };
      const cluster = await bed.startCluster({ size: '16MiB' });
      const load = bed.load(cluster, { mix, cuts: [0, 512, 1000, 3333], depth: 24 });
      await load.start();
      for (let round = 0; round < 4; round += 1) {
        await load.more(100);
        await replace(cluster);
        await load.more(150);
        await cluster.whenHealthy(120_000);
      }
      await endsWell(cluster, load);
    },
    LIMIT_MS,
  );

  const lacks = faultDiskLacks();
  it.skipIf(lacks !== undefined)(
    `scenario 43: the source cannot read a block: another source, no hole ${lacks ?? ''}`,
    async () => {
      const { cluster, disks } = await startDiskCluster(bed);
      const load = bed.load(cluster, { bytes: 32 * MIB });
      await load.start();
      await load.more(300);
      await load.stop();
      const bad = { ops: ['read'], mishap: { kind: 'error', errno: 'EIO' } } as const;
      await (disks[0] as FaultDisk).arm({
        ...bad,
        range: { offsetBytes: 4 * MIB, lengthBytes: 4 * MIB },
      });
      await (disks[2] as FaultDisk).arm({
        ...bad,
        range: { offsetBytes: 12 * MIB, lengthBytes: 4 * MIB },
      });
      await replace(cluster);
      await cluster.whenHealthy(120_000);
      // From the new copy alone.
      await cluster.stopDaemon(0, 'SIGKILL');
      await cluster.stopDaemon(2, 'SIGKILL');
      load.crashed();
      await load.sweep();
      expectSound(load);
    },
    LIMIT_MS,
  );
});
