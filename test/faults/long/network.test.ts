/** Networks between engine and copies that are cut, one-sided, slow, lossy or silent (F1, F2). */
import { describe, expect, it } from 'vitest';
import { MIB } from '../../../common/units.js';
import { NbdLoadClient } from '../../support/load-client.js';
import { expectSound, FaultBed, until } from '../beds/fault-bed.js';
import {
  makeNetworkCluster,
  networkClusterLacks,
  startNetworkCluster,
} from '../beds/network-cluster.js';

const lacks = networkClusterLacks();
const LIMIT_MS = 300_000;
/** longer than any deadline of an operation */
const LONG_MS = 14_000;

describe.skipIf(lacks !== undefined)(`network faults ${lacks ?? ''}`, () => {
  const bed = FaultBed.use();
  const pause = (ms: number): Promise<void> => bed.someTime(ms, ms + 1);

  it.each([
    { scenario: 22, name: 'both ways', from: 'both' },
    { scenario: 24, name: 'answers are lost', from: 'replica1' },
    { scenario: 25, name: 'requests are lost', from: 'engine' },
  ])(
    'scenario $scenario: one copy is cut off, $name: no error, caught up afterwards',
    async ({ from }) => {
      const { network, cluster } = await startNetworkCluster(bed);
      const load = bed.load(cluster);
      await load.start();
      await load.more(200);
      load.slowestMs = 0;
      const to = from === 'engine' ? 'replica1' : 'engine';
      const heal =
        from === 'both'
          ? await network.cut('engine', 'replica1')
          : await network.cutOneWay(from, to);
      load.note('cut');
      await until('the copy is excluded', LONG_MS, async () => {
        return (await cluster.status()).state === 'degraded';
      });
      await load.more(200);
      // By deadlines of our own, not by TCP's patience.
      expect(load.slowestMs).toBeLessThan(LONG_MS);
      await heal();
      load.note('healed');
      await cluster.whenHealthy(90_000);
      await load.more(100);
      await load.stop();
      expect(load.refusals).toEqual([]);
      await load.sweep();
      expectSound(load);
      await cluster.stop();
      await cluster.expectEqual();
    },
    LIMIT_MS,
  );

  it(
    'scenario 34: a copy vanishes without a word, idle: noticed within 10 s',
    async () => {
      const { network, cluster } = await startNetworkCluster(bed);
      const client = await NbdLoadClient.connect(cluster.socket);
      await client.write(0, Buffer.alloc(MIB, 1), { fua: true });
      await client.close();
      await pause(2000);
      await network.link('replica2', 'down');
      await until('the copy is excluded', 10_000, async () => {
        return (await cluster.status()).state === 'degraded';
      });
      await network.link('replica2', 'up');
      await cluster.whenHealthy();
    },
    LIMIT_MS,
  );

  it(
    'scenario 23: all copies are cut off for 15 s: nothing is acknowledged, then it goes on',
    async () => {
      const { network, cluster } = await startNetworkCluster(bed);
      const load = bed.load(cluster);
      await load.start();
      await load.more(200);
      await network.link('engine', 'down');
      load.note('cut');
      await pause(500);
      const acknowledged = load.acknowledged;
      await pause(15_000);
      expect(load.acknowledged).toBe(acknowledged);
      await network.link('engine', 'up');
      load.note('healed');
      await load.more(200);
      await load.stop();
      expect(load.refusals).toEqual([]);
      await cluster.whenHealthy(90_000);
      await load.sweep();
      expectSound(load);
      await cluster.stop();
      await cluster.expectEqual();
    },
    LIMIT_MS,
  );

  it(
    'scenario 23: for longer than I/O may wait: EIO, and service without a restart',
    async () => {
      const { network, cluster } = await startNetworkCluster(bed);
      const load = bed.load(cluster);
      await load.start();
      await load.more(100);
      await network.link('engine', 'down');
      await until('I/O is refused', 100_000, () => load.refusals.length > 0);
      await network.link('engine', 'up');
      await load.more(100);
      await load.stop();
      await cluster.whenHealthy(90_000);
      await load.sweep();
      expectSound(load);
      await cluster.stop();
      await cluster.expectEqual();
    },
    LIMIT_MS,
  );

  it(
    'scenario 27: a link flaps every second: no storm of rebuilds, and peace afterwards',
    async () => {
      const { network, cluster } = await startNetworkCluster(bed);
      const load = bed.load(cluster, { rate: 300 });
      await load.start();
      for (let flap = 0; flap < 40; flap += 1) {
        await network.link('replica3', flap % 2 === 0 ? 'down' : 'up');
        await pause(1000);
      }
      const events = await cluster.events();
      const returns = events.filter(({ kind }) => kind === 'in-sync');
      expect(returns.length).toBeLessThan(10);
      await cluster.whenHealthy(90_000);
      await load.stop();
      expect(load.refusals).toEqual([]);
      await load.sweep();
      expectSound(load);
      await cluster.stop();
      await cluster.expectEqual();
    },
    LIMIT_MS,
  );

  it.each([{ percent: 5 }, { percent: 15 }, { percent: 30 }])(
    'scenario 29: $percent % of the packets of two copies are lost: correct',
    async ({ percent }) => {
      const { network, cluster } = await startNetworkCluster(bed);
      const load = bed.load(cluster, { rate: 200, depth: 4 });
      await load.start();
      const heals = [
        await network.lose('replica1', percent),
        await network.lose('replica2', percent),
      ];
      await pause(15_000);
      for (const heal of heals) await heal();
      await cluster.whenHealthy(90_000);
      await load.more(100);
      await load.stop();
      expect(load.refusals).toEqual([]);
      await load.sweep();
      expectSound(load);
      await cluster.stop();
      await cluster.expectEqual();
    },
    LIMIT_MS,
  );

  it(
    'scenario 28: 4 Mbit/s to one copy: the load is slowed down, memory is not used up',
    async () => {
      const { network, cluster } = await startNetworkCluster(bed);
      await network.limit('replica1', 4);
      await network.limit('engine', 20);
      const load = bed.load(cluster, { depth: 64, rate: 50_000, mix: { read: 5 } });
      await load.start();
      await pause(20_000);
      const { readFile } = await import('node:fs/promises');
      const status = await readFile(`/proc/${cluster.engine?.pid}/status`, 'utf8');
      expect(Number(/VmRSS:\s+(\d+)/.exec(status)?.[1])).toBeLessThan(300_000);
      await network.limit('replica1', 1000);
      await network.limit('engine', 1000);
      await load.stop();
      expect(load.refusals).toEqual([]);
      await cluster.whenHealthy(90_000);
      await load.sweep();
      expectSound(load);
      await cluster.stop();
      await cluster.expectEqual();
    },
    LIMIT_MS,
  );

  it(
    'scenario 36: a partition with an engine on each side: one of them can acknowledge',
    async () => {
      const { network, cluster } = await makeNetworkCluster(bed);
      await cluster.startDaemons();
      await cluster.startEngine();
      const load = bed.load(cluster);
      await load.start();
      await load.more(100);
      // engine and replica1 here, second, replica2 and replica3 there
      const heals: Array<() => Promise<void>> = [];
      for (const here of ['engine', 'replica1']) {
        for (const there of ['second', 'replica2', 'replica3']) {
          heals.push(await network.cut(here, there));
        }
      }
      const startedMs = performance.now();
      await expect(cluster.startSecondEngine('second')).rejects.toThrow(/MEMBERSHIP_UNPROVEN/);
      // Its process has ended, too, whatever TCP still tries.
      expect(performance.now() - startedMs).toBeLessThan(20_000);
      await load.more(100);
      await load.stop();
      expect(load.refusals).toEqual([]);
      for (const heal of heals) await heal();
      await cluster.whenHealthy(90_000);
      await load.sweep();
      expectSound(load);
      await cluster.stop();
      await cluster.expectEqual();
    },
    LIMIT_MS,
  );
});
