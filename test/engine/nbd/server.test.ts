/** The server around the protocol: address, exports, closing, and what it costs. */
import { chmod, lstat, mkdtemp, rename, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { SystemClock } from '../../../common/clock.js';
import { StorageError } from '../../../common/errors.js';
import { COMMAND as C, OPTION } from '../../../engine/nbd/constants.js';
import { NbdServer } from '../../../engine/nbd/server.js';
import { MemoryVolume } from '../../support/memory-volume.js';
import { liveBytes } from './live-bytes.js';
import { encodeInfo, RawClient } from './raw-client.js';
import { memoryLog, startServer, type TestServer } from './test-server.js';

const SIZE = 8 << 20;

interface Latch {
  readonly wait: Promise<void>;
  readonly open: () => void;
}

function latch(): Latch {
  let open = (): void => undefined;
  const wait = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { wait, open };
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

describe('unix socket', () => {
  const made: string[] = [];
  const listen = (path: string): Promise<NbdServer> =>
    NbdServer.listen({
      exports: [{ name: 'v1', volume: new MemoryVolume({ sizeBytes: SIZE }) }],
      address: { path },
      log: memoryLog([]),
      clock: new SystemClock(),
    });
  const directory = async (): Promise<string> => {
    const path = await mkdtemp(join(tmpdir(), 'aurochs-nbd-'));
    made.push(path);
    return path;
  };
  afterEach(async () => {
    for (const path of made.splice(0)) await rm(path, { recursive: true, force: true });
  });

  it('is private, in a private directory, and gone after close', async () => {
    const inside = join(await directory(), 'a', 'b');
    const path = join(inside, 'nbd.sock');
    const server = await listen(path);
    expect((await stat(inside)).mode & 0o777).toBe(0o700);
    expect((await lstat(path)).mode & 0o777).toBe(0o600);
    expect(server.uri).toBe(`nbd+unix:///v1?socket=${path}`);
    await server.close({ drain: true });
    await expect(lstat(path)).rejects.toThrow('ENOENT');
  });

  it('replaces the socket of a dead server', async () => {
    const path = join(await directory(), 'nbd.sock');
    // a listener in a process that is killed leaves its socket file: so does this one
    const dead = createServer();
    await new Promise<void>((resolve) => dead.listen(path, resolve));
    const other = join(await directory(), 'elsewhere');
    await rename(path, other);
    await new Promise((resolve) => dead.close(resolve));
    await rename(other, path);
    const server = await listen(path);
    const client = await RawClient.open({ path });
    await client.go({ name: 'v1' });
    client.destroy();
    await server.close({ drain: false });
  });

  it('does not take the socket of a live server, nor a file', async () => {
    const path = join(await directory(), 'nbd.sock');
    const server = await listen(path);
    await expect(listen(path)).rejects.toMatchObject({ code: 'CONFLICT' });
    const client = await RawClient.open({ path });
    await client.go({ name: 'v1' });
    client.destroy();
    await server.close({ drain: false });
    await writeFile(path, 'precious');
    await expect(listen(path)).rejects.toMatchObject({ code: 'CONFLICT' });
  });

  it('refuses a path that the kernel would cut', async () => {
    const path = join(await directory(), 'x'.repeat(120));
    await expect(listen(path)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  it('says why it cannot listen', async () => {
    const inside = await directory();
    await chmod(inside, 0o500);
    const path = join(inside, 'file', 'nbd.sock');
    await writeFile(join(inside, 'file'), '').catch(() => undefined);
    await expect(listen(path)).rejects.toBeInstanceOf(StorageError);
  });
});

describe('TCP', () => {
  it('tells the port it was given, and a second server that it is taken', async () => {
    const volume = new MemoryVolume({ sizeBytes: SIZE });
    const listen = (port: number): Promise<NbdServer> =>
      NbdServer.listen({
        exports: [{ name: 'a b', volume }],
        address: { host: '127.0.0.1', port },
        log: memoryLog([]),
        clock: new SystemClock(),
      });
    const server = await listen(0);
    const match = /^nbd:\/\/127\.0\.0\.1:([0-9]+)\/a%20b$/.exec(server.uri);
    const port = Number(match?.[1]);
    const client = await RawClient.open({ host: '127.0.0.1', port });
    await client.go({ name: 'a b' });
    await expect(listen(port)).rejects.toMatchObject({ code: 'CONFLICT' });
    client.destroy();
    await server.close({ drain: false });
  });
});

describe('the end of a TCP connection', () => {
  it('does not cut off the last reply, whatever the peer still sends', async () => {
    const volume = new MemoryVolume({ sizeBytes: 32 << 20 });
    const data = Buffer.alloc(32 << 20, 0x42);
    await volume.write(0, data.length, [data], { fua: false });
    const server = await NbdServer.listen({
      exports: [{ name: 'v1', volume }],
      address: { host: '127.0.0.1', port: 0 },
      log: memoryLog([]),
      clock: new SystemClock(),
    });
    const port = Number(new URL(server.uri).port);
    const client = await RawClient.open({ host: '127.0.0.1', port });
    await client.go({ name: 'v1' });
    client.socket.pause();
    const read = { type: C.READ, offset: 0, length: data.length };
    client.request(read);
    await until(() => volume.bytesAdmission.used > 0);
    client.request({ type: C.DISC });
    client.send(Buffer.alloc(3 << 20, 1));
    for (let i = 0; i < 100; i += 1) await new Promise((resolve) => setImmediate(resolve));
    client.socket.resume();
    const reply = await client.readReply(read);
    expect(reply.data.equals(data)).toBe(true);
    client.destroy();
    await server.close({ drain: true });
  });
});

describe('exports', () => {
  let under: TestServer;
  afterEach(() => under.stop());

  it('come and go while others are served', async () => {
    under = await startServer();
    const { server, volume, path } = under;
    server.addExport({ name: 'v2', volume: new MemoryVolume({ sizeBytes: 1 << 20 }) });
    expect(() => server.addExport({ name: 'v2', volume })).toThrow(/exists/);
    expect(() => server.addExport({ name: 'a\0b', volume })).toThrow(/cannot be/);
    const stays = await RawClient.open({ path });
    await stays.go({ name: 'v1' });
    const leaves = await RawClient.open({ path });
    await leaves.go({ name: 'v2' });
    expect(leaves.size).toBe(1 << 20);
    await server.removeExport('v2');
    await leaves.closed();
    expect(await stays.call({ type: C.READ, length: 512 })).toMatchObject({ error: 0 });
    const late = await RawClient.open({ path });
    await late.greet();
    const [reply] = await late.option(OPTION.GO, encodeInfo('v2'));
    expect(reply?.type).toBe(0x80000006);
    await server.removeExport('v2');
    stays.destroy();
    late.destroy();
  });
});

describe('close', () => {
  it('answers what is in flight, reads nothing more, and refuses newcomers', async () => {
    const under = await startServer({ sizeBytes: SIZE });
    const client = await RawClient.open({ path: under.path });
    await client.go({ name: 'v1' });
    const idle = await RawClient.open({ path: under.path });
    await idle.go({ name: 'v1' });
    const shy = await RawClient.open({ path: under.path });
    await shy.greet();
    const gate = latch();
    const started = latch();
    under.volume.before = () => {
      started.open();
      return gate.wait;
    };
    const payload = Buffer.alloc(1 << 20, 5);
    client.request({ type: C.WRITE, cookie: 1n, length: payload.length }, payload);
    client.request({ type: C.READ, cookie: 2n, offset: 0, length: 1 << 20 });
    await started.wait;
    const closing = under.server.close({ drain: true });
    client.request({ type: C.READ, cookie: 3n, length: 512 });
    await expect(RawClient.open({ path: under.path })).rejects.toThrow();
    await idle.closed();
    await shy.closed();
    gate.open();
    const first = await client.readReply();
    expect(first).toMatchObject({ cookie: 1n, error: 0 });
    const rest = await client.closed();
    expect(rest.length === 0 || rest.readBigUInt64BE(8) === 2n).toBe(true);
    client.destroy();
    await closing;
    expect(under.server.connections).toBe(0);
    under.volume.before = undefined;
    under.volume.assertBalanced();
    await under.stop();
  });

  it('does not wait for ever: neither for the volume nor for a peer', async () => {
    const under = await startServer({ sizeBytes: SIZE, limits: { drainMs: 50 } });
    const gate = latch();
    const client = await RawClient.open({ path: under.path });
    await client.go({ name: 'v1' });
    const started = latch();
    under.volume.before = () => {
      started.open();
      return gate.wait;
    };
    client.request({ type: C.READ, length: 512 });
    await started.wait;
    await under.server.close({ drain: true });
    expect(under.log.some((line) => String(line['msg']).includes('did not drain'))).toBe(true);
    gate.open();
    await until(() => under.server.connections === 0);
    under.volume.assertBalanced();
    await under.stop();
  });

  it('without drain leaves nothing borrowed once the volume is done', async () => {
    const under = await startServer({ sizeBytes: SIZE });
    const gate = latch();
    const started = latch();
    under.volume.before = () => {
      started.open();
      return gate.wait;
    };
    const client = await RawClient.open({ path: under.path });
    await client.go({ name: 'v1' });
    for (let i = 0; i < 8; i += 1) client.request({ type: C.READ, length: 65_536 });
    await started.wait;
    const closing = under.server.close({ drain: false });
    gate.open();
    await closing;
    under.volume.assertBalanced();
    await under.stop();
  });
});

describe('a client that goes away (scenario 30)', () => {
  it.each(['in the middle of a payload', 'with reads in flight', 'with replies unsent'])(
    '%s gives back everything',
    async (when) => {
      const under = await startServer({ sizeBytes: SIZE });
      const gate = latch();
      const client = await RawClient.open({ path: under.path });
      await client.go({ name: 'v1' });
      under.volume.journal = [];
      if (when === 'in the middle of a payload') {
        client.request({ type: C.WRITE, length: 1 << 20 }, Buffer.alloc(1000));
      } else {
        // data, because zeroes travel as a few bytes
        await under.volume.write(0, 1 << 20, [Buffer.alloc(1 << 20, 1)], { fua: false });
        if (when === 'with replies unsent') client.socket.pause();
        else under.volume.before = () => gate.wait;
        for (let i = 0; i < 16; i += 1) client.request({ type: C.READ, length: 1 << 20 });
      }
      await until(() => under.volume.bytesAdmission.used >= 1 << 20);
      client.destroy();
      gate.open();
      await until(() => under.server.connections === 0);
      const started = under.volume.journal.some((each) => each.call !== 'write');
      expect(started).toBe(when !== 'in the middle of a payload');
      under.volume.assertBalanced();
      await under.stop();
    },
  );
});

describe('idle connections (correctness 3.3)', () => {
  it('cost under 20 KiB each', async () => {
    const under = await startServer({ sizeBytes: SIZE });
    const clients: RawClient[] = [];
    const open = async (count: number): Promise<void> => {
      for (let i = 0; i < count; i += 1) {
        const client = await RawClient.open({ path: under.path });
        await client.go({ name: 'v1' });
        await client.call({ type: C.READ, length: 4096 });
        clients.push(client);
      }
    };
    await open(50);
    const before = liveBytes();
    await open(200);
    // both ends live in this process, so a connection is counted twice
    const each = (liveBytes() - before) / 200;
    expect(each).toBeLessThan(40 * 1024);
    for (const client of clients) client.destroy();
    await under.stop();
  });
});
