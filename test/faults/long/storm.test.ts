/** Kills at random, again and again, and mixes of three faults at once: whatever happens, no rule
 *  is broken. AUROCHS_KILLS and AUROCHS_MIXES set how many. */
import { describe, expect, it } from 'vitest';
import { MIB } from '../../../common/units.js';
import type { Cluster } from '../../support/cluster.js';
import type { StampedLoad } from '../../support/stamped-load.js';
import { expectSound, FaultBed } from '../beds/fault-bed.js';
import { FaultDisk, faultDiskLacks } from '../beds/fault-disk.js';
import { ProxyCluster } from '../beds/proxy-cluster.js';

const KILLS = Number(process.env['AUROCHS_KILLS'] ?? 60);
const MIXES = Number(process.env['AUROCHS_MIXES'] ?? 10);
const LIMIT_MS = 60 * 60_000;

describe('kills at random', () => {
  const bed = FaultBed.use();

  /** `e`: the engine; a digit: that daemon. */
  const VICTIMS = ['e', 'e', 'e', '0', '1', '2', '0', '1', '2', '01', '12', 'e1', 'e02', 'e012'];

  it(
    `scenario 9: ${KILLS} of engine and daemons under load: no rule is broken`,
    async () => {
      const cluster = await bed.startCluster();
      const load = bed.load(cluster, { rate: 400, bytes: 32 * MIB });
      await load.start();
      for (let kill = 1; kill <= KILLS; kill += 1) {
        await bed.someTime(50, 700);
        const victims = bed.random.pick(VICTIMS);
        load.note(`kill ${kill}: ${victims}`);
        await strike(cluster, load, victims);
        if (kill % 10 !== 0) continue;
        await cluster.whenHealthy(120_000);
        await load.sweep(1);
        expectSound(load);
      }
      await cluster.whenHealthy(120_000);
      await load.stop();
      expect(load.refusals).toEqual([]);
      await load.sweep();
      expectSound(load);
      await cluster.stop();
      await cluster.expectEqual();
    },
    LIMIT_MS,
  );

  async function strike(cluster: Cluster, load: StampedLoad, victims: string): Promise<void> {
    const daemons = [...victims].filter((victim) => victim !== 'e').map(Number);
    const engine = victims.includes('e');
    await Promise.all([
      ...daemons.map((index) => cluster.stopDaemon(index, 'SIGKILL')),
      ...(engine ? [cluster.stopEngine('SIGKILL')] : []),
    ]);
    if (engine) await load.ended();
    load.crashed();
    await bed.someTime(0, 500);
    await Promise.all(daemons.map((index) => cluster.startDaemon(index)));
    if (!engine) return;
    await cluster.startEngine();
    load.served();
    await load.start();
  }
});

const lacks = faultDiskLacks();

describe.skipIf(lacks !== undefined)(`faults mixed at random ${lacks ?? ''}`, () => {
  const bed = FaultBed.use();

  interface World {
    readonly proxied: ProxyCluster;
    readonly cluster: Cluster;
    readonly disks: readonly FaultDisk[];
    readonly load: StampedLoad;
    /** daemons whose disk may have failed, so that they have to be started anew */
    readonly ill: Set<number>;
  }

  type Fault = (world: World, index: number) => Promise<() => Promise<void>>;
  const nothing = async (): Promise<void> => undefined;

  const onDisk =
    (fault: Parameters<FaultDisk['arm']>[0]): Fault =>
    async ({ disks, ill }, index) => {
      ill.add(index);
      return (await disks[index]?.arm(fault)) ?? nothing;
    };

  /** One disk alone may fail at a time: with two of three failed nothing is left to compare. */
  const ON_DISK: Record<string, Fault> = {
    'write error': onDisk({ ops: ['write'], mishap: { kind: 'error', errno: 'EIO' }, oneIn: 20 }),
    'flush error': onDisk({ ops: ['flush'], mishap: { kind: 'error', errno: 'EIO' }, count: 1 }),
    'read error': onDisk({ ops: ['read'], mishap: { kind: 'error', errno: 'EIO' }, oneIn: 5 }),
    slow: onDisk({ ops: ['write', 'flush'], mishap: { kind: 'delay', ms: 200 } }),
    stalled: onDisk({ ops: ['write'], mishap: { kind: 'delay', ms: 12_000 }, oneIn: 30 }),
    'lost writes': onDisk({ ops: ['write'], mishap: { kind: 'lost' }, count: 3 }),
  };

  const ELSEWHERE: Record<string, Fault> = {
    'killed daemon': async ({ cluster, load }, index) => {
      await cluster.stopDaemon(index, 'SIGKILL');
      load.crashed();
      return () => cluster.startDaemon(index);
    },
    'stopped daemon': async ({ cluster }, index) => {
      cluster.daemons[index]?.process.kill('SIGSTOP');
      return async () => void cluster.daemons[index]?.process.kill('SIGCONT');
    },
    'killed engine': async ({ cluster, load }) => {
      await cluster.stopEngine('SIGKILL');
      await load.ended();
      load.crashed();
      return async () => {
        await cluster.startEngine();
        load.served();
        await load.start();
      };
    },
    reset: async ({ proxied }, index) => {
      proxied.proxies[index]?.cut('rst');
      return nothing;
    },
    'answers held': async ({ proxied }, index) => {
      proxied.proxies[index]?.hold('down', true);
      return async () => proxied.proxies[index]?.hold('down', false);
    },
    'requests held': async ({ proxied }, index) => {
      proxied.proxies[index]?.hold('up', true);
      return async () => proxied.proxies[index]?.hold('up', false);
    },
    'a flipped bit': async ({ proxied }, index) => {
      const direction = bed.random.pick(['up', 'down'] as const);
      proxied.proxies[index]?.spoil(direction, 'flip', bed.random.below(100_000));
      return nothing;
    },
    delay: async ({ proxied }, index) => {
      proxied.proxies[index]?.shape({ delayMs: 60 });
      return async () => proxied.proxies[index]?.shape({});
    },
  };

  it(
    `scenario 82: ${MIXES} mixes of three faults: no rule is broken`,
    async () => {
      const world = await build();
      const { cluster, load } = world;
      for (let mix = 0; mix < MIXES; mix += 1) {
        await load.more(50);
        await trouble(world);
        await load.more(30);
        await cluster.whenHealthy(180_000);
        await cluster.scrub();
        await load.sweep(1);
        expectSound(load);
      }
      await load.stop();
      expect(load.refusals).toEqual([]);
      await load.sweep();
      expectSound(load);
      await cluster.stop();
      await cluster.expectEqual();
    },
    LIMIT_MS,
  );

  async function build(): Promise<World> {
    const disks: FaultDisk[] = [];
    for (let n = 0; n < 3; n += 1) {
      const options = { name: `disk${n}`, sizeBytes: 256 * MIB, seed: bed.seed + n };
      disks.push(await FaultDisk.create(bed.lab, options));
    }
    const disk = (index: number): string => disks[index]?.device ?? '';
    const proxied = await ProxyCluster.start(bed, { disk });
    const { cluster } = proxied;
    const load = bed.load(cluster, { rate: 400, bytes: 32 * MIB });
    await load.start();
    return { proxied, cluster, disks, load, ill: new Set() };
  }

  /** Two faults anywhere and one on a disk, for a while; then all is mended. */
  async function trouble(world: World): Promise<void> {
    const { load, ill, proxied } = world;
    const heals: Array<() => Promise<void>> = [];
    const strike = async (faults: Record<string, Fault>): Promise<void> => {
      const name = bed.random.pick(Object.keys(faults));
      const index = bed.random.below(3);
      load.note(`${name} at ${index}`);
      heals.push((await faults[name]?.(world, index)) ?? nothing);
    };
    await strike(ON_DISK);
    await bed.someTime(0, 1500);
    await strike(ELSEWHERE);
    await bed.someTime(0, 1500);
    await strike(ELSEWHERE);
    await bed.someTime(500, 4000);
    for (const heal of heals.reverse()) await heal();
    for (const index of ill) {
      await world.cluster.stopDaemon(index, 'SIGKILL');
      load.crashed();
      await proxied.startDaemon(index);
    }
    ill.clear();
  }
});
