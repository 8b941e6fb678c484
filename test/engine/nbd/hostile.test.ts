/** Peers that take without giving (scenario 80, correctness 3.2 and 3.3): bounded, and the others
 *  are served. */
import { connect, type Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { SystemClock } from '../../../common/clock.js';
import { COMMAND as C } from '../../../engine/nbd/constants.js';
import { NbdServer } from '../../../engine/nbd/server.js';
import { ManualClock } from '../../common/manual-clock.js';
import { MemoryVolume } from '../../support/memory-volume.js';
import { encodeOption, encodeRequest, RawClient } from './raw-client.js';
import { memoryLog, startServer, type TestServer, type TestServerOptions } from './test-server.js';

const MIB = 1 << 20;
const SIZE = 64 * MIB;

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i += 1) await new Promise((resolve) => setImmediate(resolve));
}

describe('hostile peers', () => {
  let under: TestServer;
  let clock: ManualClock;
  const sockets: Socket[] = [];
  const clients: RawClient[] = [];

  const start = async (options: TestServerOptions = {}): Promise<void> => {
    clock = new ManualClock();
    const volume = options.volume ?? new MemoryVolume({ sizeBytes: SIZE });
    under = await startServer({ clock, ...options, volume });
  };
  const good = async (): Promise<RawClient> => {
    const client = await RawClient.open({ path: under.path });
    clients.push(client);
    await client.go({ name: 'v1' });
    return client;
  };
  const fill = async (): Promise<void> => {
    for (let at = 0; at < SIZE; at += MIB) {
      await under.volume.write(at, MIB, [Buffer.alloc(MIB, 0xab)], { fua: false });
    }
  };
  const isServed = async (client: RawClient): Promise<void> => {
    const payload = Buffer.alloc(4096, 0x11);
    const write = await client.call({ type: C.WRITE, offset: 4096, length: 4096 }, payload);
    expect(write.error).toBe(0);
    const read = await client.call({ type: C.READ, offset: 4096, length: 4096 });
    expect(read.data.equals(payload)).toBe(true);
  };
  afterEach(async () => {
    for (const socket of sockets.splice(0)) socket.destroy();
    for (const client of clients.splice(0)) client.destroy();
    await until(() => under.server.connections === 0);
    under.volume.assertBalanced();
    await under.stop();
  });

  const halfOpen = (greets: boolean): Promise<Socket> =>
    new Promise((resolve) => {
      const socket = connect(under.path);
      sockets.push(socket);
      socket.on('error', () => undefined);
      if (greets) socket.write(Buffer.concat([Buffer.from([0, 0, 0, 3]), encodeOption(99)]));
      // served or pushed out: both are an answer
      socket.once('data', () => resolve(socket));
      socket.once('close', () => resolve(socket));
    });

  /** The best of three: what other processes do to this machine is not the question. */
  const p99 = async (client: RawClient): Promise<number> => {
    let best = Number.POSITIVE_INFINITY;
    for (let round = 0; round < 3; round += 1) {
      const samples: number[] = [];
      for (let i = 0; i < 200; i += 1) {
        const startMs = performance.now();
        await client.call({ type: C.READ, offset: 0, length: 4096 });
        samples.push(performance.now() - startMs);
      }
      samples.sort((a, b) => a - b);
      best = Math.min(best, samples[198] ?? best);
    }
    return best;
  };

  it('1,000 half-open connections: capped, victim unharmed, gone at the deadline', async () => {
    await start();
    const victim = await good();
    const quietMs = await p99(victim);
    for (let i = 0; i < 1000; i += 1) await halfOpen(i % 2 === 0);
    await until(() => under.server.connections <= 129);
    // slack for a busy machine: the point is that it does not grow with the number of peers
    expect(await p99(victim)).toBeLessThan(2 * quietMs + 5);
    await isServed(victim);
    await isServed(await good());
    clock.advance(11_000);
    await until(() => under.server.connections === 2);
    await isServed(victim);
    expect(under.log.length).toBeLessThan(60);
  });

  it('1,000 idle connections: the victim is served, one too many is closed', async () => {
    await start({ limits: { connectionsMax: 1001, handshakesMax: 2000 } });
    const victim = await good();
    const quietMs = await p99(victim);
    for (let i = 0; i < 1000; i += 1) await good();
    expect(await p99(victim)).toBeLessThan(2 * quietMs + 5);
    const late = await RawClient.open({ path: under.path });
    expect(await late.closed()).toHaveLength(0);
    clients[500]?.destroy();
    await until(() => under.server.connections === 1000);
    await isServed(await good());
  });

  it('a handshake in drips ends at the deadline', async () => {
    await start();
    const drip = await RawClient.open({ path: under.path });
    clients.push(drip);
    await drip.greet();
    const option = encodeOption(99, Buffer.alloc(60_000));
    for (let i = 0; i < 20 && !drip.isEnded; i += 1) {
      drip.socket.write(option.subarray(i, i + 1));
      await turns(3);
      clock.advance(1000);
    }
    expect(await drip.closed()).toHaveLength(0);
    expect(JSON.stringify(under.log)).toContain('handshake not finished');
  });

  it('a flood from one address does not push out the handshake of another', async () => {
    await start();
    const server = await NbdServer.listen({
      exports: [{ name: 'v1', volume: under.volume }],
      address: { host: '127.0.0.1', port: 0 },
      limits: { handshakesMax: 8 },
      log: memoryLog([]),
      clock: new SystemClock(),
    });
    const port = Number(new URL(server.uri).port);
    const open = (localAddress: string): Promise<Socket> =>
      new Promise((resolve) => {
        const socket = connect({ host: '127.0.0.1', port, localAddress });
        sockets.push(socket);
        socket.on('error', () => undefined);
        socket.once('connect', () => resolve(socket));
      });
    const slow = new RawClient(await open('127.0.0.2'));
    for (let i = 0; i < 30; i += 1) await open('127.0.0.1');
    await until(() => server.connections <= 8);
    await slow.go({ name: 'v1' });
    expect(await slow.call({ type: C.READ, length: 512 })).toMatchObject({ error: 0 });
    await server.close({ drain: false });
  });

  it('a client that never reads holds little, and is dropped', async () => {
    await start();
    await fill();
    const hog = await good();
    hog.socket.pause();
    for (let i = 0; i < 64; i += 1) hog.request({ type: C.READ, offset: i * MIB, length: MIB });
    await until(() => under.volume.bytesAdmission.used >= 7 * MIB);
    await turns(50);
    expect(under.volume.bytesAdmission.used).toBeLessThanOrEqual(8 * MIB);
    const victim = await good();
    await isServed(victim);
    clock.advance(29_000);
    await turns(5);
    expect(under.server.connections).toBe(2);
    clock.advance(3_000);
    await until(() => under.server.connections === 1);
    await isServed(victim);
  });

  it('a client that reads slowly but steadily is not dropped', async () => {
    await start();
    await fill();
    const slow = await good();
    slow.socket.pause();
    for (let i = 0; i < 8; i += 1) slow.request({ type: C.READ, offset: i * MIB, length: MIB });
    await until(() => under.volume.bytesAdmission.used >= 7 * MIB);
    for (let i = 0; i < 4; i += 1) {
      clock.advance(25_000);
      const before = under.volume.bytesAdmission.used;
      slow.socket.resume();
      await until(() => under.volume.bytesAdmission.used < before);
      slow.socket.pause();
    }
    slow.socket.resume();
    for (let i = 0; i < 8; i += 1) {
      const read = { type: C.READ, offset: i * MIB, length: MIB };
      expect(await slow.readReply(read)).toMatchObject({ error: 0 });
    }
  });

  it('clients that never read give way as soon as others wait', async () => {
    await start({ volume: new MemoryVolume({ sizeBytes: SIZE, admissionBytes: 32 * MIB }) });
    await fill();
    for (let h = 0; h < 5; h += 1) {
      const hog = await good();
      hog.socket.pause();
      for (let i = 0; i < 16; i += 1) hog.request({ type: C.READ, offset: i * MIB, length: MIB });
    }
    await until(() => under.volume.bytesAdmission.waiting > 0);
    const victim = await good();
    const read = victim.call({ type: C.READ, offset: 0, length: MIB });
    for (let i = 0; i < 10 && under.server.connections > 1; i += 1) {
      await turns(5);
      clock.advance(1_000);
    }
    expect(await read).toMatchObject({ error: 0 });
    await isServed(victim);
  });

  it('WRITE headers without body hold nothing that small requests need', async () => {
    await start();
    for (let i = 0; i < 6; i += 1) {
      const hog = await good();
      hog.request({ type: C.WRITE, length: 32 * MIB }, Buffer.alloc(1000));
    }
    await until(() => under.volume.bytesAdmission.used > 0);
    await turns(20);
    expect(under.volume.bytesAdmission.used).toBeLessThanOrEqual(32 * MIB);
    const victim = await good();
    await isServed(victim);
    const large = Buffer.alloc(2 * MIB, 0x21);
    const write = victim.call({ type: C.WRITE, offset: 0, length: large.length }, large);
    // each holder of the budget is dropped in its turn, until it is the victim's
    for (let i = 0; i < 60 && under.server.connections > 1; i += 1) {
      await turns(20);
      clock.advance(1_000);
    }
    expect(await write).toMatchObject({ error: 0 });
    expect(under.volume.peek(0, large.length).equals(large)).toBe(true);
  });

  it('a payload in drips is dropped, a steady one is not', async () => {
    await start({ limits: { smallPayloadBytes: 4096 } });
    const drip = await good();
    const steady = await good();
    const length = 8 * MIB;
    const header = { type: C.WRITE, length };
    drip.request(header);
    steady.request({ ...header, offset: 16 * MIB });
    for (let i = 0; i < 64; i += 1) {
      if (!drip.isEnded) drip.socket.write(Buffer.alloc(10));
      steady.send(Buffer.alloc(length / 64));
      await turns(10);
      clock.advance(1_000);
    }
    expect(await drip.closed()).toHaveLength(0);
    expect(await steady.readReply()).toMatchObject({ error: 0 });
  });

  it('no more requests run at once than the limit, and all are answered', async () => {
    await start({ limits: { inFlightMax: 32 } });
    let running = 0;
    let most = 0;
    under.volume.before = async () => {
      running += 1;
      most = Math.max(most, running);
      await new Promise((resolve) => setImmediate(resolve));
      running -= 1;
    };
    const client = await good();
    const count = 5000;
    client.send(...Array.from({ length: count }, () => encodeRequest({ type: C.FLUSH })));
    for (let i = 0; i < count; i += 1) expect((await client.readReply()).error).toBe(0);
    expect(most).toBe(32);
  });

  it('while the volume hangs nothing is read ahead (scenario 77)', async () => {
    await start();
    const client = await good();
    const request = encodeRequest({ type: C.WRITE, offset: 0, length: 4096 });
    const one = Buffer.concat([request, Buffer.alloc(4096, 1)]);
    const hundred = Buffer.concat(Array.from({ length: 100 }, () => one));
    let open = (): void => undefined;
    const gate = new Promise<void>((resolve) => {
      open = resolve;
    });
    under.volume.before = () => gate;
    let sent = 0;
    let most = 0;
    // stops when the kernel's buffers are full: the server must not have read on
    while (client.socket.writableLength < 8 * MIB) {
      client.socket.write(hundred);
      sent += 100;
      await turns(2);
      most = Math.max(most, under.volume.bytesAdmission.used);
    }
    expect(most).toBeLessThanOrEqual(256 * 4096);
    open();
    for (let i = 0; i < sent; i += 1) expect((await client.readReply()).error).toBe(0);
  });

  it('waits for admission without losing order or requests', async () => {
    const volume = new MemoryVolume({ sizeBytes: SIZE, admissionBytes: MIB, admissionCount: 3 });
    await start({ volume });
    under.volume.before = () => new Promise((resolve) => setImmediate(resolve));
    const users = await Promise.all(Array.from({ length: 8 }, () => good()));
    await Promise.all(
      users.map(async (client, u) => {
        const length = 300_000 + u;
        for (let i = 0; i < 6; i += 1) {
          const payload = Buffer.alloc(length, u * 8 + i);
          const range = { offset: u * 4 * MIB + i * length, length };
          client.request({ type: C.WRITE, ...range }, payload);
          expect((await client.readReply()).error).toBe(0);
          const read = await client.call({ type: C.READ, ...range });
          expect(read.data.equals(payload)).toBe(true);
        }
      }),
    );
  });
});
