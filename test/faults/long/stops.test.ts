/** Processes that stop for a while and go on, engines that do not know that they were replaced, and
 *  orderly stops that are cut short (R3, R5). */
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { MIB } from '../../../common/units.js';
import { type Cluster, type Launch, ROOT, type RunningEngine } from '../../support/cluster.js';
import { NbdLoadClient } from '../../support/load-client.js';
import { SimpleNbd } from '../../support/simple-nbd.js';
import type { StampedLoad } from '../../support/stamped-load.js';
import { expectSound, FaultBed, until } from '../beds/fault-bed.js';
import { PowerCluster, powerHostLacks } from '../beds/power-host.js';

const LIMIT_MS = 180_000;
const STALL = path.join(ROOT, 'test/faults/beds/stall.cjs');

describe('a replica daemon that is stopped', () => {
  const bed = FaultBed.use();

  it(
    'scenario 15: for less than the deadline: a pause, and no exclusion',
    async () => {
      const cluster = await bed.startCluster();
      const load = bed.load(cluster);
      await load.start();
      await load.more(100);
      cluster.daemons[1]?.process.kill('SIGSTOP');
      await bed.someTime(3000, 4000);
      cluster.daemons[1]?.process.kill('SIGCONT');
      await load.more(300);
      await load.stop();
      expect(load.refusals).toEqual([]);
      expect((await cluster.status()).state).toBe('healthy');
      await load.sweep();
      expectSound(load);
      await cluster.stop();
      await cluster.expectEqual();
    },
    LIMIT_MS,
  );

  it(
    'scenario 16: for longer: it is excluded before anything is acknowledged without it',
    async () => {
      const cluster = await bed.startCluster();
      const load = bed.load(cluster);
      await load.start();
      await load.more(100);
      cluster.daemons[1]?.process.kill('SIGSTOP');
      await until('the copy is excluded', 30_000, async () => {
        return (await cluster.status()).state === 'degraded';
      });
      await load.more(200);
      // What it still has in its sockets is late, and what it answers counts for nothing.
      cluster.daemons[1]?.process.kill('SIGCONT');
      await load.more(200);
      await cluster.whenHealthy();
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
});

describe('an event loop that is blocked', () => {
  const bed = FaultBed.use();
  const stalling = (who: number | string, ms: number) => ({
    launch: (started: number | string): Launch =>
      started === who ? { env: { NODE_OPTIONS: `--require ${STALL}`, STALL_MS: String(ms) } } : {},
  });

  it.each([
    { name: 'of the engine for 6 s', who: 'engine', ms: 6000 },
    { name: 'of the engine for 15 s', who: 'engine', ms: 15_000 },
    { name: 'of a replica daemon for 4 s', who: 1, ms: 4000 },
  ])(
    'scenario 19: $name blames nobody',
    async ({ who, ms }) => {
      const cluster = await bed.startCluster(stalling(who, ms));
      const load = bed.load(cluster);
      await load.start();
      await load.more(100);
      const child = who === 'engine' ? cluster.engine : cluster.daemons[1];
      child?.process.kill('SIGUSR2');
      await bed.someTime(ms, ms + 100);
      await load.more(200);
      await load.stop();
      expect(load.refusals).toEqual([]);
      expect(load.slowestMs).toBeGreaterThan(ms * 0.8);
      expect((await cluster.status()).state).toBe('healthy');
      await load.sweep();
      expectSound(load);
    },
    LIMIT_MS,
  );

  it(
    'scenario 19: of a replica daemon for 20 s excludes it, cleanly',
    async () => {
      const cluster = await bed.startCluster(stalling(1, 20_000));
      const load = bed.load(cluster);
      await load.start();
      await load.more(100);
      cluster.daemons[1]?.process.kill('SIGUSR2');
      await until('the copy is excluded', 19_000, async () => {
        return (await cluster.status()).state === 'degraded';
      });
      await load.more(200);
      await load.stop();
      expect(load.refusals).toEqual([]);
      await load.sweep();
      expectSound(load);
    },
    LIMIT_MS,
  );
});

describe('two engines of one volume', () => {
  const bed = FaultBed.use();

  const connectTo = (engine: RunningEngine) => () => NbdLoadClient.connect(engine.socket);

  it(
    'scenario 17: the old one, stopped and continued: no write, no stale byte (R5, P4, P13)',
    async () => {
      const cluster = await bed.startCluster();
      const load = bed.load(cluster, { depth: 32 });
      await load.start();
      await load.more(200);
      cluster.engine?.process.kill('SIGSTOP');
      const second = await cluster.startSecondEngine('second');
      load.served();
      await load.start({ connect: connectTo(second) });
      await load.more(200);
      cluster.engine?.process.kill('SIGCONT');
      await load.more(200);
      // The old one has noticed, whatever it was asked.
      const client = await SimpleNbd.connect(cluster.socket, 'vol').catch(() => undefined);
      if (client !== undefined) {
        const answer = client.request(1, 0, 4096, Buffer.alloc(4096, 1));
        await expect(answer).rejects.toThrow();
      }
      await load.stop();
      expectSound(load);
      await second.child.stop('SIGKILL');
    },
    LIMIT_MS,
  );

  it(
    'scenario 72: started at once, twenty times: one at most can acknowledge (R5)',
    async () => {
      const cluster = await bed.startCluster();
      await cluster.stopEngine();
      let acknowledged = 0;
      for (let round = 0; round < 20; round += 1) {
        const started = await Promise.allSettled([
          cluster.startSecondEngine('second'),
          cluster.startSecondEngine('third'),
        ]);
        const engines = started.flatMap((s) => (s.status === 'fulfilled' ? [s.value] : []));
        // Without a manager each may fence the other's half: then neither serves.
        const wrote = await Promise.all(engines.map((engine) => canWrite(engine.socket, round)));
        expect(wrote.filter((ok) => ok).length, `round ${round}`).toBeLessThan(2);
        acknowledged += wrote.filter((ok) => ok).length;
        await Promise.all(engines.map((engine) => engine.child.stop('SIGKILL')));
      }
      expect(acknowledged).toBeGreaterThan(0);
      await cluster.startEngine();
      await cluster.stop();
      await cluster.expectEqual();
    },
    LIMIT_MS,
  );

  async function canWrite(socket: string, round: number): Promise<boolean> {
    try {
      const client = await SimpleNbd.connect(socket, 'vol');
      await client.request(1, 0, 4096, Buffer.alloc(4096, round));
      await client.close();
      return true;
    } catch {
      return false;
    }
  }
});

describe('a stop in order', () => {
  const bed = FaultBed.use();

  async function loaded(cluster: Cluster): Promise<StampedLoad> {
    const made = bed.load(cluster, { mix: { flush: 0, fuaPercent: 0 }, bytes: 32 * MIB });
    await made.start();
    await made.more(200);
    return made;
  }

  it(
    'scenario 74: of an engine under load, killed before its end: a dirty start',
    async () => {
      const cluster = await bed.startCluster();
      const under = await loaded(cluster);
      for (let round = 0; round < 5; round += 1) {
        const stopped = cluster.stopEngine('SIGTERM');
        const engine = cluster.engine;
        await bed.someTime(0, 400);
        engine?.process.kill('SIGKILL');
        await stopped;
        await under.ended();
        under.crashed();
        await cluster.startEngine();
        under.served();
        await under.sweep(1);
        await under.start();
        await under.more(100);
      }
      await under.stop();
      expectSound(under);
      await cluster.stop();
      await cluster.expectEqual();
    },
    LIMIT_MS,
  );

  const lacks = powerHostLacks();
  it.skipIf(lacks !== undefined)(
    `scenario 74: what was acknowledged is durable when the engine has ended ${lacks ?? ''}`,
    async () => {
      const power = await PowerCluster.start(bed.lab, { seed: bed.seed });
      const { cluster } = power;
      const under = await loaded(cluster);
      await under.stop();
      expect(await cluster.stopEngine('SIGTERM')).toBe(0);
      await power.cut();
      await power.restore(() => 'dropped');
      await cluster.startEngine();
      under.crashed();
      under.served();
      await under.sweep();
      expectSound(under);
    },
    LIMIT_MS,
  );
});
