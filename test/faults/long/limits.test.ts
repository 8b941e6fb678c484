/** What runs out or goes wrong around the processes: file descriptors, memory, output, the disk of
 *  the logs, the wall clock. */
import { readFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { describe, expect, it } from 'vitest';
import { MIB } from '../../../common/units.js';
import type { Cluster, Launch } from '../../support/cluster.js';
import { missing } from '../../support/host.js';
import { NbdLoadClient } from '../../support/load-client.js';
import { run } from '../../support/process.js';
import { expectSound, FaultBed, until } from '../beds/fault-bed.js';

const LIMIT_MS = 240_000;

async function rssMib(pid: number | undefined): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024;
}

describe('limits', () => {
  const bed = FaultBed.use();

  const launched = (who: number | string, launch: Launch) => ({
    launch: (started: number | string): Launch => (started === who ? launch : {}),
  });

  async function closesWell(cluster: Cluster): Promise<void> {
    await cluster.stop();
    await cluster.expectEqual();
  }

  /** Opens connections until the other side takes no more, and keeps them. */
  async function exhaust(socketPath: string, count: number): Promise<Socket[]> {
    const sockets: Socket[] = [];
    for (let n = 0; n < count; n += 1) {
      const socket = connect(socketPath);
      socket.on('error', () => undefined);
      sockets.push(socket);
    }
    await bed.someTime(1000, 1001);
    return sockets;
  }

  it.each([{ who: 'engine' }, { who: 1 }])(
    'scenario 76: no file descriptor left for $who: what is open goes on, and it recovers',
    async ({ who }) => {
      const prlimit = { prefix: ['prlimit', '--nofile=80'] };
      const cluster = await bed.startCluster(launched(who, prlimit));
      const load = bed.load(cluster, { rate: 300 });
      await load.start();
      await load.more(100);
      const path = who === 'engine' ? cluster.socket : cluster.address(1).replace('unix:', '');
      const held = await exhaust(path, 200);
      await load.more(200);
      for (const socket of held) socket.destroy();
      await until('a new client is served', 30_000, () =>
        NbdLoadClient.connect(cluster.socket).then(
          (client) => client.close().then(() => true),
          () => false,
        ),
      );
      await cluster.whenHealthy();
      await load.stop();
      expect(load.refusals).toEqual([]);
      await load.sweep();
      expectSound(load);
      await closesWell(cluster);
    },
    LIMIT_MS,
  );

  it(
    'scenario 77: a hundred thousand requests are queued: memory stays in its budget',
    async () => {
      const cluster = await bed.startCluster();
      const before = await rssMib(cluster.engine?.pid);
      let most = 0;
      const clients = await Promise.all(
        Array.from({ length: 50 }, () => NbdLoadClient.connect(cluster.socket)),
      );
      cluster.daemons[1]?.process.kill('SIGSTOP');
      const block = Buffer.alloc(16 * 1024, 7);
      const written: Promise<unknown>[] = [];
      for (let n = 0; n < 100_000; n += 1) {
        const client = clients[n % clients.length] as NbdLoadClient;
        const offset = bed.random.below(4000) * block.length;
        written.push(client.write(offset, block, { fua: false }).catch(() => undefined));
        if (n % 2000 === 0) {
          await new Promise(setImmediate);
          most = Math.max(most, await rssMib(cluster.engine?.pid));
        }
      }
      await bed.someTime(2000, 2001);
      most = Math.max(most, await rssMib(cluster.engine?.pid));
      cluster.daemons[1]?.process.kill('SIGCONT');
      expect(most - before).toBeLessThan(400);
      await Promise.all(written);
      await Promise.all(clients.map((client) => client.close()));
      await cluster.whenHealthy();
      await closesWell(cluster);
    },
    LIMIT_MS,
  );

  it.each([{ who: 'engine' }, { who: 2 }])(
    'scenario 77: $who is killed for its memory: as kill -9 (F1)',
    async ({ who }) => {
      // Too small a heap: it ends by itself, sooner or later, in the middle of something.
      const heap = { env: { NODE_OPTIONS: '--max-old-space-size=12' } };
      const cluster = await bed.makeCluster(launched(who, heap));
      await cluster.startDaemons();
      const load = bed.load(cluster, { depth: 64, rate: 20_000 });
      for (let round = 0; round < 3; round += 1) {
        const opened = await cluster.startEngine().then(
          () => true,
          () => false,
        );
        if (!opened) continue;
        load.served();
        await load.start().catch(() => undefined);
        await Promise.race([load.ended(), bed.someTime(6000, 6001)]);
        await cluster.stopEngine('SIGKILL');
        await load.ended();
        load.crashed();
        if (who === 2) {
          await cluster.stopDaemon(2, 'SIGKILL');
          await cluster.startDaemon(2);
        }
      }
      await cluster.stop('SIGKILL');
      const calm = await bed.makeCluster({
        dataDir: (index) => cluster.dataDir(index),
        disk: (index) => cluster.disk(index),
      });
      await calm.startDaemons();
      await calm.startEngine();
      load.served();
      await load.sweep(2, () => NbdLoadClient.connect(calm.socket));
      expectSound(load);
      await calm.whenHealthy();
      await closesWell(calm);
    },
    LIMIT_MS,
  );

  it(
    'scenario 78: nobody reads the output any more: the data path does not care',
    async () => {
      const cluster = await bed.startCluster();
      const load = bed.load(cluster);
      await load.start();
      await load.more(50);
      for (const child of [cluster.engine, ...cluster.daemons]) {
        child?.process.stdout?.destroy();
        child?.process.stderr?.destroy();
      }
      // Something to complain about.
      await cluster.stopDaemon(1, 'SIGKILL');
      await load.more(100);
      await cluster.startDaemon(1);
      await cluster.whenHealthy();
      await load.stop();
      expect(load.refusals).toEqual([]);
      await load.sweep();
      expectSound(load);
      await closesWell(cluster);
    },
    LIMIT_MS,
  );

  const noFull = missing('root', 'mount');
  it.skipIf(noFull !== undefined)(
    `scenario 78: the disk of logs and events is full: the data path does not care ${noFull ?? ''}`,
    async () => {
      const full = await bed.lab.makeDir('full');
      await run('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', full]);
      const cluster = await bed.startCluster({ engineFlags: ['--run-dir', full] });
      const fill = `dd if=/dev/zero of=${full}/fill bs=4k status=none || true`;
      await run('sh', ['-c', fill]);
      const load = bed.load(cluster);
      await load.start();
      await load.more(50);
      for (let round = 0; round < 2; round += 1) {
        await cluster.stopDaemon(1, 'SIGKILL');
        await load.more(50);
        await cluster.startDaemon(1);
        await cluster.whenHealthy();
      }
      await load.stop();
      expect(load.refusals).toEqual([]);
      await load.sweep();
      expectSound(load);
      await closesWell(cluster);
    },
    LIMIT_MS,
  );

  const noTime = missing('faketime');
  it.skipIf(noTime !== undefined)(
    `scenario 75: clocks that differ by years and go back decide nothing (P12) ${noTime ?? ''}`,
    async () => {
      const shown: Record<string | number, string> = {
        0: '@1970-01-02 00:00:00',
        1: '+370d',
        2: '-1h',
        engine: '+1d',
      };
      const cluster = await bed.makeCluster({
        launch: (who) => ({
          prefix: ['faketime', '--exclude-monotonic', '-f', shown[who] ?? '+0d'],
        }),
      });
      await cluster.startDaemons();
      await cluster.startEngine();
      const load = bed.load(cluster);
      for (let round = 0; round < 3; round += 1) {
        await load.start();
        await load.more(100);
        await cluster.stopDaemon(round, 'SIGKILL');
        await load.more(50);
        // It comes back in another year.
        shown[round] = '-2y';
        await cluster.startDaemon(round);
        await cluster.whenHealthy();
        await cluster.stopEngine('SIGKILL');
        await load.ended();
        load.crashed();
        await cluster.startEngine();
        load.served();
        await load.sweep(1);
      }
      expectSound(load);
      await closesWell(cluster);
    },
    LIMIT_MS,
  );

  it(
    'scenario 71: a volume deleted and made again shows no old byte',
    async () => {
      const cluster = await bed.startCluster({ size: '16MiB', diskSize: '48MiB' });
      const client = await NbdLoadClient.connect(cluster.socket);
      await client.write(0, Buffer.alloc(16 * MIB, 0x5a), { fua: true });
      await client.close();
      await cluster.stopEngine();
      await cluster.deleteVolume();
      await cluster.startEngine();
      const reader = await NbdLoadClient.connect(cluster.socket);
      for (let at = 0; at < 16; at += 1) {
        // Allocates, so that what lay there before would show beside it.
        await reader.write(at * MIB, Buffer.alloc(4096, 1), { fua: false });
        const bytes = await reader.read(at * MIB, MIB);
        expect(bytes.subarray(4096).every((byte) => byte === 0)).toBe(true);
      }
      await reader.close();
      await closesWell(cluster);
    },
    LIMIT_MS,
  );
});
