import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SystemClock } from '../../../common/clock.js';
import { StorageError } from '../../../common/errors.js';
import { createLogger } from '../../../common/log.js';
import { NbdClient, type NbdClientOptions } from '../../../engine/device/nbd-client.js';
import { NbdRequest } from '../../../engine/device/nbd-request.js';
import { describeExport } from '../../../engine/nbd/description.js';
import { FakeNbdServer, FLUSH, READ, type SeenRequest, WRITE } from './fake-nbd-server.js';

const MIB = 1024 * 1024;
const log = createLogger('test');
log.level = 'silent';

class TestRequest extends NbdRequest {
  holds = 0;
  readonly done: Promise<{ errno: number; data: Buffer | undefined }>;
  #finish: (result: { errno: number; data: Buffer | undefined }) => void = () => undefined;

  constructor(type: number, offset: number, bytes: number | Buffer) {
    super();
    this.type = type;
    this.offsetBytes = offset;
    this.lengthBytes = typeof bytes === 'number' ? bytes : bytes.length;
    const payload = typeof bytes === 'number' ? Buffer.alloc(0) : bytes;
    this.frame = Buffer.concat([Buffer.alloc(28), payload]);
    this.done = new Promise((resolve) => {
      this.#finish = resolve;
    });
  }

  holdFrame(): void {
    this.holds += 1;
  }
  releaseFrame(): void {
    this.holds -= 1;
  }
  complete(errno: number, reply: Buffer | undefined): void {
    this.#finish({
      errno,
      data: reply === undefined ? undefined : Buffer.from(reply.subarray(16)),
    });
  }
}

let dir = '';
let path = '';
const servers: FakeNbdServer[] = [];
const clients: NbdClient[] = [];

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'aurochs-nbd-'));
  path = join(dir, 's.sock');
});

afterEach(async () => {
  for (const client of clients.splice(0)) client.close();
  for (const server of servers.splice(0)) await server.kill();
  await rm(dir, { recursive: true, force: true });
});

async function serve(
  options: Partial<FakeNbdServer['options']> = {},
  disk?: Buffer,
): Promise<FakeNbdServer> {
  const server = await FakeNbdServer.listen({ path, sizeBytes: 4 * MIB, ...options }, disk);
  servers.push(server);
  return server;
}

async function connect(options: Partial<NbdClientOptions> = {}): Promise<NbdClient> {
  const client = await NbdClient.connect({
    socketPath: path,
    exportName: 'vol',
    log,
    clock: new SystemClock(),
    connections: 1,
    connectTimeoutMs: 1000,
    giveUpMs: 5000,
    requestsMax: 64,
    readBytesMax: MIB,
    ...options,
  });
  clients.push(client);
  return client;
}

function submit<T extends NbdRequest[]>(client: NbdClient, ...requests: T): T {
  for (const request of requests) client.submit(request);
  client.flush();
  return requests;
}

/** Resolves when the server has seen `count` requests. */
function seen(server: FakeNbdServer, count: number): Promise<void> {
  return new Promise((resolve) => {
    const inner = server.onRequest;
    const check = (): void => {
      if (server.seen.length >= count) resolve();
    };
    server.onRequest = (request: SeenRequest) => {
      inner(request);
      check();
    };
    check();
  });
}

/** Resolves when the server was told DISC; the test times out if it never is. */
async function disconnected(server: FakeNbdServer): Promise<void> {
  while (server.disconnects === 0) await new Promise((resolve) => setImmediate(resolve));
}

describe('NBD client: one connection', () => {
  it('tells size and flags, sends the export name, reads what it wrote', async () => {
    const server = await serve();
    const client = await connect();
    expect(server.exportName).toBe('vol');
    expect(client.info.sizeBytes).toBe(4 * MIB);
    const data = Buffer.alloc(8192, 7);
    const [write] = submit(client, new TestRequest(WRITE, 4096, data));
    expect((await write.done).errno).toBe(0);
    const [read] = submit(client, new TestRequest(READ, 0, 16384));
    const expected = Buffer.concat([Buffer.alloc(4096), data, Buffer.alloc(4096)]);
    expect((await read.done).data?.equals(expected)).toBe(true);
  });

  it.each([1, 7, 16, 17, 4096, 5000])(
    'reads replies cut into pieces of %i bytes',
    async (pieceBytes) => {
      const server = await serve({ pieceBytes, sizeBytes: 256 * 1024 });
      for (let i = 0; i < server.disk.length; i += 1) server.disk[i] = (i * 7 + (i >> 8)) & 0xff;
      const client = await connect();
      const lengths = [512, 1024, 4096, 3, 1];
      const reads = lengths.map((length, i) => new TestRequest(READ, i * 4096 + i, length));
      submit(client, ...reads, new TestRequest(FLUSH, 0, 0));
      for (const read of reads) {
        const { errno, data } = await read.done;
        expect(errno).toBe(0);
        const { offsetBytes: at, lengthBytes } = read;
        expect(data?.equals(server.disk.subarray(at, at + lengthBytes))).toBe(true);
      }
    },
  );

  it('reads 1 MiB that spans many receive buffers, mixed with small reads', async () => {
    const server = await serve();
    for (let i = 0; i < server.disk.length; i += 4)
      server.disk.writeUInt32LE((i * 2654435761) % 2 ** 32, i);
    const client = await connect();
    const reads = [0, 1, 2].flatMap((i) => [
      new TestRequest(READ, i * MIB, MIB),
      new TestRequest(READ, i * 4096, 4096),
    ]);
    submit(client, ...reads);
    for (const read of reads) {
      const { data } = await read.done;
      const at = read.offsetBytes;
      expect(data?.equals(server.disk.subarray(at, at + read.lengthBytes))).toBe(true);
    }
  });

  it('matches replies by cookie, in any order, and passes errno on', async () => {
    const held: SeenRequest[] = [];
    const server = await serve({ onRequest: (request) => held.push(request) });
    const client = await connect();
    const reads = [0, 1, 2, 3].map((i) => new TestRequest(READ, i * 4096, 4096));
    const all = seen(server, 4);
    submit(client, ...reads);
    await all;
    server.disk.fill(9);
    held[2]?.reply(28);
    held[3]?.reply();
    held[0]?.reply(5);
    held[1]?.reply(4711);
    expect(await Promise.all(reads.map((read) => read.done.then((done) => done.errno)))).toEqual([
      5, 5, 28, 0,
    ]);
  });

  it('holds the memory of large writes until the socket let go of it', async () => {
    const server = await serve();
    const client = await connect();
    const writes = [0, 1, 2].map((i) => new TestRequest(WRITE, i * MIB, Buffer.alloc(MIB, i + 1)));
    submit(client, ...writes);
    expect(writes.some((write) => write.holds > 0)).toBe(true);
    await Promise.all(writes.map((write) => write.done));
    const [barrier] = submit(client, new TestRequest(FLUSH, 0, 0));
    await barrier.done;
    expect(writes.map((write) => write.holds)).toEqual([0, 0, 0]);
    expect(server.disk[2 * MIB]).toBe(3);
  });

  it('refuses an unknown export, a server that is not NBD, and one that says nothing', async () => {
    await expect(connect()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    const nonsense = createServer((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'));
    await new Promise<void>((resolve) => nonsense.listen(path, resolve));
    await expect(connect()).rejects.toMatchObject({ code: 'PROTOCOL_ERROR' });
    await new Promise((resolve) => nonsense.close(resolve));
    const silent = createServer((socket) => socket.on('error', () => undefined));
    await new Promise<void>((resolve) => silent.listen(path, resolve));
    await expect(connect({ connectTimeoutMs: 50 })).rejects.toMatchObject({ code: 'DEADLINE' });
    silent.close();
  });
});

describe('NBD client: surviving the engine (scenarios 1, 2, 9, 11)', () => {
  it('sends what is unanswered again, with its own bytes, after kill and restart', async () => {
    const first = await serve({ onRequest: () => undefined });
    const client = await connect();
    const writes = [1, 2, 3].map((i) => new TestRequest(WRITE, i * 65536, Buffer.alloc(32768, i)));
    const read = new TestRequest(READ, 0, 4096);
    const flush = new TestRequest(FLUSH, 0, 0);
    const all = seen(first, 5);
    submit(client, ...writes, read, flush);
    await all;
    await first.kill();
    const late = new TestRequest(WRITE, MIB, Buffer.alloc(4096, 9));
    submit(client, late);
    const second = await serve({}, first.disk);
    const done = await Promise.all([...writes, read, flush, late].map((request) => request.done));
    expect(done.map((result) => result.errno)).toEqual([0, 0, 0, 0, 0, 0]);
    expect(second.count(WRITE)).toBe(4);
    expect(second.count(FLUSH)).toBe(1);
    for (const i of [1, 2, 3]) expect(second.disk[i * 65536 + 32767]).toBe(i);
    expect(second.disk[MIB]).toBe(9);
    expect(client.reconnects).toBe(1);
    expect(client.unanswered).toBe(0);
  });

  it('takes ESHUTDOWN as no verdict: the request goes to the successor', async () => {
    const first = await serve({ onRequest: (request) => request.reply(108) });
    const client = await connect();
    const write = new TestRequest(WRITE, 0, Buffer.alloc(4096, 5));
    const refused = seen(first, 1);
    submit(client, write);
    await refused;
    first.onRequest = (request) => request.reply();
    expect((await write.done).errno).toBe(0);
    expect(first.count(WRITE)).toBe(2);
    await disconnected(first);
    expect(first.disk[0]).toBe(5);
  });

  it('answers EIO when no server comes back in time, and recovers when one does', async () => {
    const first = await serve({ onRequest: () => undefined });
    const client = await connect({ giveUpMs: 60 });
    const write = new TestRequest(WRITE, 0, Buffer.alloc(4096, 5));
    const arrived = seen(first, 1);
    submit(client, write);
    await arrived;
    await first.kill();
    expect((await write.done).errno).toBe(5);
    const [refused] = submit(client, new TestRequest(READ, 0, 512));
    expect((await refused.done).errno).toBe(5);
    await serve();
    let errno = 5;
    while (errno !== 0) {
      const [again] = submit(client, new TestRequest(READ, 0, 512));
      errno = (await again.done).errno;
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(client.connected).toBe(true);
  });

  it('gives up on a request that ends every server, instead of trying for ever', async () => {
    const server = await serve();
    server.onRequest = () => server.breakConnections();
    const client = await connect({ giveUpMs: 100 });
    const [poison] = submit(client, new TestRequest(WRITE, 0, Buffer.alloc(512, 1)));
    expect((await poison.done).errno).toBe(5);
    expect(server.count(WRITE)).toBeGreaterThan(1);
  });

  it('does not send again what a server that talks nonsense may still do (N5)', async () => {
    const server = await serve();
    const client = await connect();
    server.onRequest = () => undefined;
    const write = new TestRequest(WRITE, 0, Buffer.alloc(512, 1));
    const arrived = seen(server, 1);
    submit(client, write);
    await arrived;
    server.onRequest = (request) => request.reply();
    server.sendGarbage();
    expect((await write.done).errno).toBe(5);
    const [read] = submit(client, new TestRequest(READ, 0, 512));
    expect((await read.done).errno).toBe(0);
    expect(server.count(WRITE)).toBe(1);
  });

  it('holds an overlapping write back, so that sending again cannot undo it (N1, N3)', async () => {
    const held: SeenRequest[] = [];
    const first = await serve({ onRequest: (request) => held.push(request) });
    const client = await connect();
    const older = new TestRequest(WRITE, 0, Buffer.alloc(8192, 1));
    const newer = new TestRequest(WRITE, 4096, Buffer.alloc(8192, 2));
    const apart = new TestRequest(WRITE, 65536, Buffer.alloc(4096, 3));
    const arrived = seen(first, 2);
    submit(client, older, newer, apart);
    await arrived;
    expect(held.map((request) => request.offset)).toEqual([0, 65536]);
    held[0]?.apply();
    await first.kill();
    const second = await serve({}, first.disk);
    await Promise.all([older.done, newer.done, apart.done]);
    expect(second.seen.filter((r) => r.offset !== 65536).map((r) => r.offset)).toEqual([0, 4096]);
    expect([second.disk[0], second.disk[4096], second.disk[12287]]).toEqual([1, 2, 2]);
  });

  it('refuses a successor whose export is smaller (R8) and waits for the right one', async () => {
    const first = await serve({ onRequest: () => undefined });
    const client = await connect();
    const [write] = submit(client, new TestRequest(WRITE, 0, Buffer.alloc(512, 1)));
    await first.kill();
    const wrong = await serve({ sizeBytes: MIB });
    await disconnected(wrong);
    expect(wrong.count(WRITE)).toBe(0);
    await wrong.kill();
    await serve();
    expect((await write.done).errno).toBe(0);
  });

  it('D1: gives up for good when acknowledged writes may be lost (another era)', async () => {
    const first = await serve({ description: describeExport('v', 3), onRequest: () => undefined });
    const client = await connect();
    const [write] = submit(client, new TestRequest(WRITE, 0, Buffer.alloc(512, 1)));
    await first.kill();
    const second = await serve({ description: describeExport('v', 4) });
    expect((await write.done).errno).toBe(5);
    await second.kill();
    const third = await serve({ description: describeExport('v', 3) });
    const [flush] = submit(client, new TestRequest(FLUSH, 0, 0));
    expect((await flush.done).errno).toBe(5);
    expect(second.seen).toEqual([]);
    expect(third.connections).toBe(0);
  });

  it('moves over when another server took the path of one that hangs (scenario 17)', async () => {
    const hanging = await serve({ onRequest: () => undefined });
    const client = await connect({ takeoverCheckMs: 50 });
    const [write] = submit(client, new TestRequest(WRITE, 0, Buffer.alloc(512, 4)));
    await rm(path);
    const successor = await serve();
    expect((await write.done).errno).toBe(0);
    expect(successor.disk[0]).toBe(4);
    expect(hanging.disk[0]).toBe(0);
  });
});

describe('NBD client: several connections and resize', () => {
  it('uses several connections only where a flush covers all of them (D1)', async () => {
    const multi = await serve();
    const client = await connect({ connections: 3 });
    expect(multi.connections).toBe(3);
    client.close();
    await multi.kill();
    const single = await serve({ flags: 0b0_0110_0101 });
    await connect({ connections: 3 });
    expect(single.connections).toBe(1);
  });

  it('keeps other connections busy while one is broken', async () => {
    const server = await serve();
    const client = await connect({ connections: 2 });
    const writes = Array.from(
      { length: 40 },
      (_, i) => new TestRequest(WRITE, i * 512, Buffer.alloc(512, i)),
    );
    let requests = 0;
    server.onRequest = (request) => {
      requests += 1;
      if (requests === 7) server.breakOne(request.connection);
      else request.reply();
    };
    submit(client, ...writes);
    const done = await Promise.all(writes.map((write) => write.done));
    expect(done.every((result) => result.errno === 0)).toBe(true);
    for (let i = 0; i < 40; i += 1) expect(server.disk[i * 512]).toBe(i);
  });

  it('takes over a new size: drains, replaces the connection, fails nothing', async () => {
    const first = await serve({ onRequest: () => undefined });
    const client = await connect();
    const early = new TestRequest(WRITE, 0, Buffer.alloc(512, 1));
    const arrived = seen(first, 1);
    submit(client, early);
    await arrived;
    Object.assign(first.options, { sizeBytes: 8 * MIB });
    const refreshed = client.refresh();
    const late = new TestRequest(READ, 512, 512);
    await new Promise((resolve) => setImmediate(resolve));
    first.onRequest = (request) => request.reply();
    first.seen[0]?.reply();
    submit(client, late);
    expect((await refreshed).sizeBytes).toBe(8 * MIB);
    expect((await early.done).errno).toBe(0);
    expect((await late.done).errno).toBe(0);
    await disconnected(first);
  });

  it('refuses to take over a smaller size', async () => {
    const server = await serve();
    const client = await connect();
    Object.assign(server.options, { sizeBytes: MIB });
    await expect(client.refresh()).rejects.toBeInstanceOf(StorageError);
    expect(client.info.sizeBytes).toBe(4 * MIB);
  });

  it('ends with DISC, and answers EIO to what is left', async () => {
    const server = await serve();
    const client = await connect();
    const [read] = submit(client, new TestRequest(READ, 0, 512));
    await read.done;
    client.close();
    const [refused] = submit(client, new TestRequest(READ, 0, 512));
    expect((await refused.done).errno).toBe(5);
    await disconnected(server);
  });
});
