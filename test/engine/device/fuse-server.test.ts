/** The FUSE side without a kernel: requests as bytes in, replies as bytes out, over a scripted NBD
 *  server. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SystemClock } from '../../../common/clock.js';
import { StorageError } from '../../../common/errors.js';
import { createLogger } from '../../../common/log.js';
import { type FuseChannel, FuseServer } from '../../../engine/device/fuse-server.js';
import { FUSE_OP } from '../../../engine/device/fuse-wire.js';
import { NbdClient } from '../../../engine/device/nbd-client.js';
import { RequestArena } from '../../../engine/device/request-arena.js';
import {
  FakeNbdServer,
  FLUSH,
  READ,
  type SeenRequest,
  TRIM,
  WRITE,
  WRITE_ZEROES,
} from './fake-nbd-server.js';

const MIB = 1024 * 1024;
const NOSYS = -38;
const INVAL = -22;
const log = createLogger('test');
log.level = 'silent';

interface Reply {
  readonly errno: number;
  readonly body: Buffer;
}

/** Plays the kernel: `ask` sends a request and resolves with its reply. */
class Kernel implements FuseChannel {
  #unique = 2;
  #queue: Buffer[] = [];
  #reader: { view: Buffer; resolve: (n: number) => void; reject: (e: unknown) => void } | undefined;
  readonly #waiting = new Map<number, (reply: Reply) => void>();
  readonly replies: number[] = [];

  ask(opcode: number, body: Buffer = Buffer.alloc(0), node = 2): Promise<Reply> {
    const unique = this.#unique;
    this.#unique += 2;
    return new Promise((resolve) => {
      this.#waiting.set(unique, resolve);
      this.post(opcode, { body, node, unique });
    });
  }

  post(opcode: number, request: { body: Buffer; node: number; unique: number }): void {
    const header = Buffer.alloc(40);
    header.writeUInt32LE(40 + request.body.length, 0);
    header.writeUInt32LE(opcode, 4);
    header.writeUInt32LE(request.unique, 8);
    header.writeUInt32LE(request.node, 16);
    this.raw(Buffer.concat([header, request.body]));
  }

  raw(bytes: Buffer): void {
    this.#queue.push(bytes);
    this.#serve();
  }

  interruptRead(): void {
    const reader = this.#reader;
    this.#reader = undefined;
    reader?.reject(new StorageError('IO_ERROR', 'read', { errno: 'ENOENT' }));
  }

  unmount(): void {
    this.#reader?.reject(new StorageError('CLOSED', 'unmounted'));
  }

  read(view: Buffer): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#reader = { view, resolve, reject };
      this.#serve();
    });
  }

  write(views: Buffer[]): number {
    const bytes = Buffer.from(Buffer.concat(views));
    expect(bytes.readUInt32LE(0)).toBe(bytes.length);
    const unique = bytes.readUInt32LE(8);
    this.replies.push(unique);
    this.#waiting.get(unique)?.({ errno: bytes.readInt32LE(4), body: bytes.subarray(16) });
    return bytes.length;
  }

  #serve(): void {
    const next = this.#queue[0];
    const reader = this.#reader;
    if (next === undefined || reader === undefined) return;
    this.#queue.shift();
    this.#reader = undefined;
    reader.resolve(next.copy(reader.view));
  }
}

let dir = '';
let nbd: FakeNbdServer;
let client: NbdClient;
let kernel: Kernel;
let server: FuseServer;
let running: Promise<void>;
let unused = 0;

async function start(options: { flags?: number; requestsMax?: number; slabsMax?: number } = {}) {
  const path = join(dir, 's.sock');
  const { flags, requestsMax = 64 } = options;
  const given = flags === undefined ? {} : { flags };
  nbd = await FakeNbdServer.listen({ path, sizeBytes: 4 * MIB, ...given });
  client = await NbdClient.connect({
    socketPath: path,
    exportName: 'vol',
    log,
    clock: new SystemClock(),
    connections: 1,
    connectTimeoutMs: 1000,
    giveUpMs: 1000,
    requestsMax,
    readBytesMax: MIB,
  });
  kernel = new Kernel();
  server = new FuseServer({
    channel: kernel,
    client,
    arena: new RequestArena({
      reserveBytes: MIB + 80,
      slabBytes: 2 * MIB,
      slabsMax: options.slabsMax ?? 4,
    }),
    log,
    requestsMax,
    ioBytesMax: MIB,
    onUnused: () => {
      unused += 1;
    },
  });
  running = server.run();
}

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'aurochs-fuse-'));
  unused = 0;
});

afterEach(async () => {
  kernel.unmount();
  await running;
  client.close();
  await nbd.kill();
  await rm(dir, { recursive: true, force: true });
});

function u64(...values: number[]): Buffer {
  const out = Buffer.alloc(values.length * 8);
  for (const [i, value] of values.entries()) out.writeBigUInt64LE(BigInt(value), i * 8);
  return out;
}

const readBody = (offset: number, size: number) => u64(0, offset, size, 0, 0);
const writeBody = (offset: number, data: Buffer) =>
  Buffer.concat([u64(0, offset, data.length, 0, 0), data]);
const fallocateBody = (offset: number, length: number, mode: number) =>
  u64(0, offset, length, mode);

describe('FUSE server', () => {
  it('negotiates asynchronous direct I/O of 1 MiB, refuses a kernel too old', async () => {
    await start();
    const init = (major: number, minor: number): Buffer => {
      const body = Buffer.alloc(64);
      body.writeUInt32LE(major, 0);
      body.writeUInt32LE(minor, 4);
      body.writeUInt32LE(0x7fff_ffff, 12);
      return body;
    };
    const reply = await kernel.ask(FUSE_OP.INIT, init(7, 31), 0);
    expect(reply.errno).toBe(0);
    expect(reply.body.length).toBe(64);
    expect([reply.body.readUInt32LE(0), reply.body.readUInt32LE(4)]).toEqual([7, 31]);
    expect(reply.body.readUInt32LE(12)).toBe((1 << 5) | (1 << 15) | (1 << 22));
    expect([reply.body.readUInt32LE(20), reply.body.readUInt16LE(28)]).toEqual([MIB, 256]);
    expect((await kernel.ask(FUSE_OP.INIT, init(7, 12), 0)).errno).toBe(INVAL);
    expect((await kernel.ask(FUSE_OP.INIT, Buffer.alloc(8), 0)).errno).toBe(INVAL);
  });

  it('knows one name, its size now and after a resize, and counts its handles', async () => {
    await start();
    const lookup = (name: string) => kernel.ask(FUSE_OP.LOOKUP, Buffer.from(`${name}\0`), 1);
    const found = await lookup('volume');
    expect(found.body.readUInt32LE(0)).toBe(2);
    expect(Number(found.body.readBigUInt64LE(48))).toBe(4 * MIB);
    expect((await lookup('other')).errno).toBe(-2);
    Object.assign(nbd.options, { sizeBytes: 6 * MIB });
    await client.refresh();
    const attributes = await kernel.ask(FUSE_OP.GETATTR, Buffer.alloc(16));
    expect(Number(attributes.body.readBigUInt64LE(0))).toBe(0);
    expect(Number(attributes.body.readBigUInt64LE(24))).toBe(6 * MIB);
    for (const _ of [1, 2]) await kernel.ask(FUSE_OP.OPEN, u64(2));
    await kernel.ask(FUSE_OP.RELEASE, Buffer.alloc(24));
    expect([server.openHandles, unused]).toEqual([1, 0]);
    await kernel.ask(FUSE_OP.RELEASE, Buffer.alloc(24));
    expect([server.openHandles, unused]).toEqual([0, 1]);
    expect((await kernel.ask(5)).errno).toBe(NOSYS);
  });

  it('reads, writes, flushes; a read at the end is short, past the end empty', async () => {
    await start();
    const data = Buffer.from(Array.from({ length: 8192 }, (_, i) => i & 0xff));
    const written = await kernel.ask(FUSE_OP.WRITE, writeBody(4 * MIB - 8192, data));
    expect([written.errno, written.body.readUInt32LE(0)]).toEqual([0, 8192]);
    const read = await kernel.ask(FUSE_OP.READ, readBody(4 * MIB - 8192, 65536));
    expect(read.body.equals(data)).toBe(true);
    expect((await kernel.ask(FUSE_OP.READ, readBody(5 * MIB, 4096))).body.length).toBe(0);
    expect((await kernel.ask(FUSE_OP.FSYNC, u64(0, 0))).errno).toBe(0);
    expect(nbd.seen.map((request) => request.type)).toEqual([WRITE, READ, FLUSH]);
    expect((await kernel.ask(FUSE_OP.FLUSH, u64(0, 0, 0))).errno).toBe(0);
    expect(nbd.count(FLUSH)).toBe(1);
  });

  it('a punched hole is TRIM, a zeroed range WRITE_ZEROES without hole (N4)', async () => {
    await start();
    nbd.disk.fill(1);
    expect((await kernel.ask(FUSE_OP.FALLOCATE, fallocateBody(0, MIB, 3))).errno).toBe(0);
    expect((await kernel.ask(FUSE_OP.FALLOCATE, fallocateBody(MIB, MIB, 0x11))).errno).toBe(0);
    expect(nbd.seen.map(({ type, flags }) => [type, flags])).toEqual([
      [TRIM, 0],
      [WRITE_ZEROES, 2],
    ]);
    const errnoOf = async (offset: number, length: number, mode: number) =>
      (await kernel.ask(FUSE_OP.FALLOCATE, fallocateBody(offset, length, mode))).errno;
    expect(await errnoOf(0, MIB, 0)).toBe(-95);
    expect(await errnoOf(3 * MIB, 2 * MIB, 3)).toBe(INVAL);
    expect(await errnoOf(0, 2 ** 53, 3)).toBe(INVAL);
  });

  it('without TRIM a hole is zeroes; without both it is refused', async () => {
    await start({ flags: 0b0100_0101 });
    expect((await kernel.ask(FUSE_OP.FALLOCATE, fallocateBody(0, MIB, 3))).errno).toBe(0);
    expect(nbd.seen.map(({ type, flags }) => [type, flags])).toEqual([[WRITE_ZEROES, 0]]);
  });

  it('a read-only export cannot be opened for writing, and has no holes to punch', async () => {
    await start({ flags: 0b0000_0011 });
    expect((await kernel.ask(FUSE_OP.OPEN, u64(2))).errno).toBe(-30);
    expect((await kernel.ask(FUSE_OP.OPEN, u64(0))).errno).toBe(0);
    expect((await kernel.ask(FUSE_OP.FALLOCATE, fallocateBody(0, MIB, 3))).errno).toBe(-95);
  });

  it('never gives the memory of an unanswered write to another request', async () => {
    await start({ slabsMax: 2 });
    const held: SeenRequest[] = [];
    nbd.onRequest = (request) => held.push(request);
    const lengths = [4096, 512, MIB, 4096, 65536, MIB, 512, 4096];
    const writes = lengths.map((length, i) => {
      const data = Buffer.alloc(length, i + 1);
      return kernel.ask(FUSE_OP.WRITE, writeBody(i * 256 * 1024 + (i >= 3 ? MIB : 0), data));
    });
    let answered = 0;
    while (answered < writes.length) {
      const request = held.splice(Math.floor(held.length / 2), 1)[0];
      if (request !== undefined) {
        const first = request.payload[0] ?? 0;
        expect(request.payload.equals(Buffer.alloc(lengths[first - 1] ?? 0, first))).toBe(true);
        request.reply();
        answered += 1;
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect((await Promise.all(writes)).map((reply) => reply.errno)).toEqual(lengths.map(() => 0));
  });

  it('takes no more requests than it may, and goes on as answers come', async () => {
    await start({ requestsMax: 3 });
    const held: SeenRequest[] = [];
    nbd.onRequest = (request) => held.push(request);
    const reads = Array.from({ length: 10 }, (_, i) =>
      kernel.ask(FUSE_OP.READ, readBody(i * 4096, 4096)),
    );
    let most = 0;
    for (let answered = 0; answered < 10; ) {
      most = Math.max(most, server.inFlight);
      const request = held.shift();
      if (request !== undefined) {
        request.reply();
        answered += 1;
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(most).toBe(3);
    expect((await Promise.all(reads)).every((reply) => reply.errno === 0)).toBe(true);
  });

  it('goes on after a request that was taken back, and after bytes that do not parse', async () => {
    await start();
    kernel.interruptRead();
    kernel.raw(Buffer.alloc(12));
    const wrongLength = Buffer.alloc(48);
    wrongLength.writeUInt32LE(47, 0);
    kernel.raw(wrongLength);
    expect((await kernel.ask(FUSE_OP.READ, Buffer.alloc(8))).errno).toBe(INVAL);
    expect((await kernel.ask(FUSE_OP.READ, readBody(0, 2 * MIB))).errno).toBe(INVAL);
    expect((await kernel.ask(FUSE_OP.WRITE, u64(0, 0, 4096, 0, 0))).errno).toBe(INVAL);
    kernel.post(FUSE_OP.FORGET, { body: u64(1), node: 2, unique: 999_998 });
    kernel.post(FUSE_OP.INTERRUPT, { body: u64(2), node: 0, unique: 999_996 });
    expect((await kernel.ask(FUSE_OP.READ, readBody(0, 512))).errno).toBe(0);
    expect(kernel.replies).not.toContain(999_998);
    expect(kernel.replies).not.toContain(999_996);
  });
});
