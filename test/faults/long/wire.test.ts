/** What a proxy between engine and copies can do to the bytes on their way (R5, R8, N3). Plain TCP
 *  on loopback, no root. */
import { connect } from 'node:net';
import { describe, expect, it } from 'vitest';
import { expectSound, FaultBed, until } from '../beds/fault-bed.js';
import { ProxyCluster } from '../beds/proxy-cluster.js';
import type { TcpProxy } from '../beds/tcp-proxy.js';

const LIMIT_MS = 240_000;

describe('a spoiled wire', () => {
  const bed = FaultBed.use();
  const proxyOf = (proxied: ProxyCluster, index: number): TcpProxy =>
    proxied.proxies[index] as TcpProxy;

  it.each([{ act: 'rst' as const }, { act: 'fin' as const }])(
    'scenario 30: $act in the middle of messages, both directions: nothing partial is accepted',
    async ({ act }) => {
      const proxied = await ProxyCluster.start(bed);
      const { cluster } = proxied;
      const load = bed.load(cluster);
      await load.start();
      for (let round = 0; round < 4; round += 1) {
        await load.more(50);
        const direction = round % 2 === 0 ? 'up' : 'down';
        const index = bed.random.below(3);
        const proxy = proxyOf(proxied, index);
        load.note(`${act} ${direction} ${index}`);
        proxy.spoil(direction, act, bed.random.below(200_000));
        await until('the connection is ended', 30_000, () => proxy.spoiled(direction));
        await load.more(50);
        await cluster.whenHealthy();
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

  it.each([{ direction: 'up' as const }, { direction: 'down' as const }])(
    'scenario 33: a bit is flipped, $direction, six times: found, and never stored or returned',
    async ({ direction }) => {
      const proxied = await ProxyCluster.start(bed);
      const { cluster } = proxied;
      const load = bed.load(cluster);
      await load.start();
      for (let round = 0; round < 6; round += 1) {
        await load.more(30);
        const index = bed.random.below(3);
        const proxy = proxyOf(proxied, index);
        load.note(`flip ${direction} ${index}`);
        proxy.spoil(direction, 'flip', bed.random.below(300_000));
        await until('a bit is flipped', 60_000, () => proxy.spoiled(direction));
        await load.more(50);
        await cluster.whenHealthy();
      }
      expect(proxied.proxies.reduce((sum, { flips }) => sum + flips, 0)).toBe(6);
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
    'scenario 28: 100 ms there and back, 10 Mbit/s: slow and correct',
    async () => {
      const proxied = await ProxyCluster.start(bed);
      const { cluster } = proxied;
      for (const proxy of proxied.proxies) {
        proxy.shape({ delayMs: 50, bytesPerSecond: 1_250_000 });
      }
      const load = bed.load(cluster, { depth: 8 });
      await load.start();
      await load.more(150);
      await load.stop();
      expect(load.refusals).toEqual([]);
      expect((await cluster.status()).state).toBe('healthy');
      await load.sweep(1);
      expectSound(load);
      for (const proxy of proxied.proxies) proxy.shape({});
      await cluster.stop();
      await cluster.expectEqual();
    },
    LIMIT_MS,
  );

  it(
    'scenario 32: overlapping writes over wires of different speed end equal (N3)',
    async () => {
      const proxied = await ProxyCluster.start(bed);
      const { cluster } = proxied;
      const mix = { write: 80, read: 10, trim: 0, zero: 0, flush: 0 };
      const load = bed.load(cluster, { bytes: 1 << 20, depth: 32, connections: 4, mix });
      await load.start();
      for (let round = 0; round < 20; round += 1) {
        for (const proxy of proxied.proxies) proxy.shape({ delayMs: bed.random.below(40) });
        await bed.someTime(50, 150);
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

  it(
    'scenario 31: the stream of an older epoch, replayed, changes nothing (R5)',
    async () => {
      const proxied = await ProxyCluster.start(bed);
      const { cluster } = proxied;
      const load = bed.load(cluster);
      const proxy = proxyOf(proxied, 0);
      await cluster.stopEngine();
      proxy.recorded = [];
      await cluster.startEngine();
      load.served();
      await load.start();
      await load.more(200);
      await load.stop();
      const recorded = proxy.recorded.map(({ up }) => Buffer.concat(up));
      proxy.recorded = undefined;
      await cluster.stopEngine();
      await cluster.startEngine();
      load.served();
      await load.start();
      await load.more(200);
      // Straight to the daemon, beside the stream of the living engine.
      for (const bytes of recorded) await replay(proxy.target, bytes);
      await load.more(100);
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
    'scenario 31: the stream of the living engine, replayed, does not bring old data back',
    async () => {
      const proxied = await ProxyCluster.start(bed);
      const { cluster } = proxied;
      const load = bed.load(cluster);
      const proxy = proxyOf(proxied, 0);
      await cluster.stopEngine();
      proxy.recorded = [];
      await cluster.startEngine();
      load.served();
      await load.start();
      await load.more(300);
      const recorded = proxy.recorded.map(({ up }) => Buffer.concat(up));
      await load.more(200);
      for (const bytes of recorded) await replay(proxy.target, bytes);
      load.note('replayed');
      await load.more(100);
      await cluster.whenHealthy();
      await load.stop();
      expect(load.refusals).toEqual([]);
      await load.sweep(3);
      expectSound(load);
      await cluster.stop();
      await cluster.expectEqual();
    },
    LIMIT_MS,
  );

  it(
    'scenario 35: a daemon at the address of another one is found out, or found by its name (R8)',
    async () => {
      const proxied = await ProxyCluster.start(bed);
      const { cluster } = proxied;
      const load = bed.load(cluster);
      await load.start();
      await load.more(100);
      // A stranger, empty, where the first daemon was.
      const first = proxyOf(proxied, 0);
      const address = first.target;
      const other = await bed.startCluster({ replicas: 1 });
      first.target = other.listening[0] ?? '';
      first.cut('rst');
      await bed.someTime(3000, 4000);
      expect((await cluster.status()).state).toBe('degraded');
      await load.more(100);
      first.target = address;
      await cluster.whenHealthy();
      // Two that changed places are both themselves.
      const [a, b] = [proxyOf(proxied, 1), proxyOf(proxied, 2)];
      [a.target, b.target] = [b.target, a.target];
      a.cut('rst');
      await load.more(50);
      await cluster.whenHealthy();
      await load.stop();
      expect(load.refusals).toEqual([]);
      await load.sweep();
      expectSound(load);
      await cluster.stop();
      await cluster.expectEqual();
      // The stranger's own volume is as it was.
      expect((await other.status()).state).toBe('healthy');
      await other.stop();
    },
    LIMIT_MS,
  );

  it(
    'scenario 80: a thousand idle or half-open connections harm nobody',
    async () => {
      const proxied = await ProxyCluster.start(bed);
      const { cluster } = proxied;
      const load = bed.load(cluster, { rate: 300 });
      await load.start();
      await load.more(100);
      const idle = Array.from({ length: 1000 }, (_, n) => {
        const [host = '', port = ''] = proxyOf(proxied, 0).target.split(':');
        const socket = n % 2 === 0 ? connect(cluster.socket) : connect(Number(port), host);
        socket.on('error', () => undefined);
        // Half of them say a first byte, and no more.
        if (n % 4 < 2) socket.write(Buffer.from([0x50]));
        return socket;
      });
      load.slowestMs = 0;
      await load.more(400);
      expect(load.slowestMs).toBeLessThan(5000);
      expect((await cluster.status()).state).toBe('healthy');
      for (const socket of idle) socket.destroy();
      await load.more(50);
      await load.stop();
      expect(load.refusals).toEqual([]);
      await load.sweep();
      expectSound(load);
    },
    LIMIT_MS,
  );
});

/** Sends the bytes to the daemon and resolves when it has ended the connection, or after a
 *  while. */
function replay(target: string, bytes: Buffer): Promise<void> {
  return new Promise((resolve) => {
    const [host = '', port = ''] = target.split(':');
    const socket = connect(Number(port), host, () => socket.write(bytes));
    socket.on('error', () => undefined);
    socket.on('close', () => resolve());
    socket.resume();
    setTimeout(() => socket.destroy(), 3000);
  });
}
