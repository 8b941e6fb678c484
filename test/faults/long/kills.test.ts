/** kill -9 at awkward moments (F1, F2, R1-R4). */
import { readdir, readFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import type { Cluster } from '../../support/cluster.js';
import { NbdLoadClient } from '../../support/load-client.js';
import type { StampedLoad } from '../../support/stamped-load.js';
import { expectSound, FaultBed, recoveredBytes, until } from '../beds/fault-bed.js';

const LIMIT_MS = 240_000;

describe('kill -9 of the engine', () => {
  const bed = FaultBed.use();

  /** The engine is gone; another one serves. */
  async function restartEngine(cluster: Cluster, load: StampedLoad): Promise<void> {
    await load.ended();
    load.crashed();
    await cluster.startEngine();
    load.served();
  }

  it(
    'scenario 1: idle: it is back within 15 s and copies nothing',
    async () => {
      const cluster = await bed.startCluster();
      const load = bed.load(cluster);
      await load.start();
      await load.more(200);
      await load.stop();
      await cluster.stopEngine('SIGKILL');
      load.crashed();
      const startedMs = performance.now();
      await cluster.startEngine();
      expect(performance.now() - startedMs).toBeLessThan(15_000);
      load.served();
      await load.sweep();
      expectSound(load);
      // The daemons lived, and nothing was in flight.
      expect(await recoveredBytes(cluster)).toBe(0);
    },
    LIMIT_MS,
  );

  it(
    'scenario 2: with 32-128 writes in flight, ten times: old or new, and equal (R1)',
    async () => {
      const cluster = await bed.startCluster();
      const load = bed.load(cluster, {
        connections: 4,
        depth: 32,
        mix: { read: 10 },
        rate: 20_000,
      });
      for (let round = 0; round < 10; round += 1) {
        await load.start();
        await load.more(50);
        await bed.someTime(0, 150);
        await cluster.stopEngine('SIGKILL');
        await restartEngine(cluster, load);
        await load.sweep();
      }
      expectSound(load);
      await cluster.stop();
      await cluster.expectEqual();
    },
    LIMIT_MS,
  );

  it(
    'scenario 3: between the flushes of two copies: it was not answered, copies are equal (D1)',
    async () => {
      const cluster = await bed.startCluster();
      const load = bed.load(cluster, { mix: { flush: 30 } });
      await load.start();
      await load.more(100);
      // One copy takes nothing: flushes are done on the others and wait for it.
      cluster.daemons[1]?.process.kill('SIGSTOP');
      await bed.someTime(300, 900);
      const waiting = load.history.operations.filter((o) => o.kind === 'F' && !o.outcome);
      expect(waiting.length).toBeGreaterThan(0);
      await cluster.stopEngine('SIGKILL');
      cluster.daemons[1]?.process.kill('SIGCONT');
      await restartEngine(cluster, load);
      await load.sweep();
      expectSound(load);
      await cluster.stop();
      await cluster.expectEqual();
    },
    LIMIT_MS,
  );

  it(
    'scenario 4: during dirty start, ten times in a row: what was decided stays (R2)',
    async () => {
      const cluster = await bed.startCluster();
      const load = bed.load(cluster);
      await load.start();
      await load.more(300);
      await cluster.stop('SIGKILL');
      await load.ended();
      load.crashed();
      await cluster.startDaemons();
      for (let attempt = 0; attempt < 10; attempt += 1) {
        const opened = cluster.startEngine().then(
          () => true,
          () => false,
        );
        await Promise.race([opened, bed.someTime(100, 900)]);
        load.note(`attempt ${attempt} is killed`);
        const ready =
          cluster.uri !== '' && cluster.engine?.lines.some((l) => l.startsWith('ready'));
        if (ready === true) {
          load.served();
          await load.sweep(1);
        }
        await cluster.stopEngine('SIGKILL');
        await opened;
        load.crashed();
      }
      await cluster.startEngine();
      load.served();
      await load.sweep();
      expectSound(load);
      await cluster.stop();
      await cluster.expectEqual();
    },
    LIMIT_MS,
  );

  it(
    'scenario 5: between the failure of a copy and its recorded exclusion (R3, P3)',
    async () => {
      const cluster = await bed.startCluster();
      const load = bed.load(cluster);
      await load.start();
      await load.more(200);
      // The exclusion of the first cannot be stored on the second, which does not answer.
      cluster.daemons[1]?.process.kill('SIGSTOP');
      await cluster.stopDaemon(0, 'SIGKILL');
      const before = load.acknowledged;
      await bed.someTime(500, 2500);
      expect(load.acknowledged - before).toBeLessThan(50);
      await cluster.stopEngine('SIGKILL');
      cluster.daemons[1]?.process.kill('SIGCONT');
      await cluster.startDaemon(0);
      await restartEngine(cluster, load);
      await load.sweep();
      expectSound(load);
      // The exclusion may have been stored after all, on everybody who remains.
      const inSync = await cluster.inSync();
      expect(inSync.filter((index) => index !== 0)).toEqual([1, 2]);
      await cluster.stop();
      await cluster.expectEqual(inSync);
    },
    LIMIT_MS,
  );
});

describe('kill -9 of daemons', () => {
  const bed = FaultBed.use();

  it(
    'scenario 7: between data and metadata, into new extents: they agree afterwards (R7)',
    async () => {
      const cluster = await bed.startCluster();
      const load = bed.load(cluster, { mix: { trim: 8, flush: 1, fuaPercent: 0 } });
      for (let round = 0; round < 5; round += 1) {
        await load.start();
        await load.more(100);
        await bed.someTime(0, 200);
        await cluster.stop('SIGKILL');
        await load.ended();
        load.crashed();
        await cluster.startDaemons();
        await cluster.startEngine();
        load.served();
        await load.sweep(1);
      }
      expectSound(load);
      for (const name of ['replica1', 'replica2', 'replica3', 'engine']) {
        expect(await bed.logged(cluster, name, /CORRUPT|found twice/)).toBe(false);
      }
      await cluster.stop();
      await cluster.expectEqual();
    },
    LIMIT_MS,
  );

  it(
    'scenario 8: fifty times in a row: no error, the engine does not grow',
    async () => {
      const cluster = await bed.startCluster();
      const load = bed.load(cluster, { rate: 200 });
      await load.start();
      await load.more(50);
      const measure = async (): Promise<{ fds: number; rssKib: number }> => {
        const pid = cluster.engine?.pid;
        const status = await readFile(`/proc/${pid}/status`, 'utf8');
        const rssKib = Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]);
        return { fds: (await readdir(`/proc/${pid}/fd`)).length, rssKib };
      };
      const before = await measure();
      for (let round = 0; round < 50; round += 1) {
        await cluster.stopDaemon(2, 'SIGKILL');
        const restarted = cluster.startDaemon(2).catch(() => undefined);
        await bed.someTime(0, 300);
        cluster.daemons[2]?.process.kill('SIGKILL');
        await restarted;
      }
      const after = await measure();
      expect(after.fds - before.fds).toBeLessThan(10);
      expect(after.rssKib - before.rssKib).toBeLessThan(60_000);
      expect(load.refusals).toEqual([]);
      load.crashed();
      await cluster.startDaemon(2);
      await cluster.whenHealthy(90_000);
      await load.stop();
      await load.sweep();
      expectSound(load);
      await cluster.stop();
      await cluster.expectEqual();
    },
    LIMIT_MS,
  );

  it(
    'scenario 14: a second daemon on the same folder or disk is refused, not after a kill',
    async () => {
      const cluster = await bed.startCluster();
      const other = await bed.makeCluster({
        dataDir: () => cluster.dataDir(0),
        disk: () => cluster.disk(0),
      });
      await expect(other.startDaemon(0)).rejects.toThrow(/DISK_LOCKED/);
      const foreign = await bed.makeCluster({ disk: () => cluster.disk(0) });
      await expect(foreign.startDaemon(0)).rejects.toThrow(/DISK_LOCKED/);
      const client = await NbdLoadClient.connect(cluster.socket);
      await client.write(0, Buffer.alloc(4096, 1), { fua: true });
      await client.close();
      await cluster.stopDaemon(0, 'SIGKILL');
      await cluster.startDaemon(0);
    },
    LIMIT_MS,
  );

  it(
    'scenario 6: under load: at most 5 s without an answer, and no error',
    async () => {
      const cluster = await bed.startCluster();
      const load = bed.load(cluster);
      await load.start();
      await load.more(200);
      load.slowestMs = 0;
      await cluster.stopDaemon(0, 'SIGKILL');
      load.crashed();
      await load.more(400);
      expect(load.slowestMs).toBeLessThan(5000);
      expect(load.refusals).toEqual([]);
      await until('the copy is excluded', 5000, async () => {
        return (await cluster.status()).state === 'degraded';
      });
      await cluster.startDaemon(0);
      await cluster.whenHealthy();
      await load.stop();
      await load.sweep();
      expectSound(load);
      await cluster.stop();
      await cluster.expectEqual();
    },
    LIMIT_MS,
  );
});
