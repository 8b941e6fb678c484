/** Requests over a raw socket: every misuse has its error number, and the stream stays in step
 *  afterwards. */
import { AssertionError } from 'node:assert';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { StorageError } from '../../../common/errors.js';
import { COMMAND as C, NBD_ERROR as E, COMMAND_FLAG as F } from '../../../engine/nbd/constants.js';
import { errorAnswer } from '../../../engine/nbd/error-number.js';
import { MemoryVolume } from '../../support/memory-volume.js';
import { ConnectionLost, RawClient, type RequestFields } from './raw-client.js';
import { startServer, type TestServer } from './test-server.js';

const SIZE = 40 << 20;
const MIB = 1 << 20;
const NOT_DURABLE = { fua: false };

interface Row {
  readonly name: string;
  readonly request: RequestFields;
  readonly payload?: Buffer;
  readonly want: number;
  readonly on?: { readonly export?: string; readonly structured?: boolean; blockSizes?: boolean };
}

const rows: Row[] = [
  { name: 'unknown command', request: { type: 99 }, want: E.EINVAL },
  { name: 'RESIZE is not offered', request: { type: 8, length: 512 }, want: E.EINVAL },
  {
    name: 'unknown flag on READ',
    request: { type: C.READ, flags: 1 << 9, length: 512 },
    want: E.EINVAL,
  },
  {
    name: 'DF without structured replies',
    request: { type: C.READ, flags: F.DF, length: 512 },
    want: E.EINVAL,
    on: { structured: false },
  },
  {
    name: 'NO_HOLE on WRITE drains the payload',
    request: { type: C.WRITE, flags: F.NO_HOLE, length: 4096 },
    payload: Buffer.alloc(4096),
    want: E.EINVAL,
  },
  {
    name: 'payload length flag without extended headers',
    request: { type: C.WRITE, flags: 1 << 5, length: 512 },
    payload: Buffer.alloc(512),
    want: E.EINVAL,
  },
  { name: 'REQ_ONE on READ', request: { type: C.READ, flags: F.REQ_ONE, length: 1 }, want: 22 },
  { name: 'FAST_ZERO on TRIM', request: { type: C.TRIM, flags: F.FAST_ZERO, length: 1 }, want: 22 },
  {
    name: 'READ past the end',
    request: { type: C.READ, offset: SIZE - 511, length: 512 },
    want: E.EINVAL,
  },
  {
    name: 'WRITE past the end',
    request: { type: C.WRITE, offset: SIZE - 511, length: 512 },
    payload: Buffer.alloc(512),
    want: E.ENOSPC,
  },
  {
    name: 'WRITE_ZEROES past the end',
    request: { type: C.WRITE_ZEROES, offset: SIZE, length: 512 },
    want: E.ENOSPC,
  },
  {
    name: 'TRIM past the end',
    request: { type: C.TRIM, offset: SIZE, length: 512 },
    want: E.EINVAL,
  },
  {
    name: 'CACHE past the end',
    request: { type: C.CACHE, offset: SIZE, length: 512 },
    want: E.EINVAL,
  },
  {
    name: 'BLOCK_STATUS past the end',
    request: { type: C.BLOCK_STATUS, offset: SIZE, length: 512 },
    want: E.EINVAL,
  },
  {
    name: 'offset + length overflows 2^64',
    request: { type: C.READ, offset: 0xfffffffffffffe00n, length: 1024 },
    want: E.EINVAL,
  },
  {
    name: 'offset 2^53 + 1 is not rounded into range',
    request: { type: C.WRITE, offset: (1n << 53n) + 1n, length: 512 },
    payload: Buffer.alloc(512),
    want: E.ENOSPC,
  },
  {
    name: 'READ of 2^32-1 bytes',
    request: { type: C.READ, length: 0xffffffff },
    want: E.EINVAL,
  },
  {
    name: 'READ above 32 MiB',
    request: { type: C.READ, length: 32 * MIB + 1 },
    want: E.EINVAL,
  },
  {
    name: 'READ above 32 MiB in one piece',
    request: { type: C.READ, flags: F.DF, length: 32 * MIB + 1 },
    want: E.EOVERFLOW,
  },
  {
    name: 'FLUSH of a range',
    request: { type: C.FLUSH, offset: 512, length: 512 },
    want: E.EINVAL,
  },
  {
    name: 'BLOCK_STATUS without a context',
    request: { type: C.BLOCK_STATUS, length: 512 },
    want: E.EINVAL,
    on: { structured: false },
  },
  { name: 'BLOCK_STATUS of nothing', request: { type: C.BLOCK_STATUS }, want: E.EINVAL },
  {
    name: 'unaligned READ with negotiated block sizes',
    request: { type: C.READ, offset: 1, length: 512 },
    want: E.EINVAL,
    on: { blockSizes: true },
  },
  {
    name: 'unaligned WRITE with negotiated block sizes',
    request: { type: C.WRITE, offset: 0, length: 100 },
    payload: Buffer.alloc(100),
    want: E.EINVAL,
    on: { blockSizes: true },
  },
  {
    name: 'WRITE to a read-only export',
    request: { type: C.WRITE, length: 8192 },
    payload: Buffer.alloc(8192, 1),
    want: E.EPERM,
    on: { export: 'ro' },
  },
  {
    name: 'TRIM of a read-only export',
    request: { type: C.TRIM, length: 512 },
    want: E.EPERM,
    on: { export: 'ro' },
  },
  {
    name: 'WRITE_ZEROES to a read-only export',
    request: { type: C.WRITE_ZEROES, length: 512 },
    want: E.EPERM,
    on: { export: 'ro' },
  },
  {
    name: 'unaligned FAST_ZERO is not fast',
    request: { type: C.WRITE_ZEROES, flags: F.FAST_ZERO, offset: 512, length: 4096 },
    want: E.ENOTSUP,
  },
  {
    name: 'FAST_ZERO that must allocate is not fast',
    request: { type: C.WRITE_ZEROES, flags: F.FAST_ZERO | F.NO_HOLE, length: 4096 },
    want: E.ENOTSUP,
  },
  {
    name: 'aligned FAST_ZERO',
    request: { type: C.WRITE_ZEROES, flags: F.FAST_ZERO, offset: 4096, length: 8192 },
    want: 0,
  },
  {
    name: 'FUA is accepted with a command that has no use for it',
    request: { type: C.READ, flags: F.FUA, length: 512 },
    want: 0,
  },
  { name: 'READ of nothing', request: { type: C.READ, offset: SIZE }, want: 0 },
  { name: 'WRITE of nothing', request: { type: C.WRITE, offset: 7 }, want: 0 },
  { name: 'TRIM of nothing', request: { type: C.TRIM }, want: 0 },
  { name: 'CACHE', request: { type: C.CACHE, length: 65536 }, want: 0 },
  { name: 'READ of 32 MiB', request: { type: C.READ, offset: 1, length: 32 * MIB }, want: 0 },
  { name: 'TRIM of everything', request: { type: C.TRIM, length: SIZE }, want: 0 },
];

describe('requests (correctness 3.2, NBD transmission)', () => {
  let under: TestServer;
  let client: RawClient;

  beforeEach(async () => {
    const volume = new MemoryVolume({ sizeBytes: SIZE });
    const exports = [
      { name: 'v1', volume },
      { name: 'ro', volume, readOnly: true },
    ];
    under = await startServer({ volume, exports });
    client = await RawClient.open({ path: under.path });
  });
  afterEach(async () => {
    client.destroy();
    await under.stop();
    under.volume.assertBalanced();
  });

  it.each(rows)('$name: error $want', async (row) => {
    const { export: name = 'v1', ...options } = row.on ?? {};
    await client.go({ name, ...options });
    const cookie = 0xfedcba9876543210n;
    const reply = await client.call({ ...row.request, cookie }, row.payload);
    expect({ cookie: reply.cookie, error: reply.error }).toEqual({ cookie, error: row.want });
    const next = await client.call({ type: C.READ, cookie: 2n, offset: 0, length: 512 });
    expect(next).toMatchObject({ cookie: 2n, error: 0 });
    expect(next.data.equals(under.volume.peek(0, 512))).toBe(true);
  });

  it('answers structured only where it was negotiated', async () => {
    await client.go({ name: 'v1', structured: false });
    expect(await client.call({ type: C.READ, length: 512 })).toMatchObject({ simple: true });
    const bad = await client.call({ type: C.READ, offset: SIZE, length: 512 });
    expect(bad).toMatchObject({ simple: true, error: E.EINVAL });
    const other = await RawClient.open({ path: under.path });
    await other.go({ name: 'v1' });
    const failed = await other.call({ type: C.READ, offset: SIZE, length: 512 });
    expect(failed).toMatchObject({ simple: false, error: E.EINVAL });
    other.destroy();
  });

  it('sends zeroes as holes, and one piece where DF asks for it', async () => {
    await client.go({ name: 'v1' });
    const data = Buffer.alloc(128 << 10, 7);
    await under.volume.write(256 << 10, data.length, [data], NOT_DURABLE);
    const read = { type: C.READ, offset: 64 << 10, length: 512 << 10 };
    const mixed = await client.call(read);
    expect(mixed.chunks).toEqual([2, 1, 2]);
    const whole = await client.call({ ...read, flags: F.DF });
    expect(whole.chunks).toEqual([1]);
    for (const each of [mixed, whole]) {
      expect(each.data.equals(under.volume.peek(64 << 10, 512 << 10))).toBe(true);
    }
  });

  it('passes FUA and NO_HOLE on (D2)', async () => {
    under.volume.journal = [];
    await client.go({ name: 'v1' });
    const length = 4096;
    await client.call({ type: C.WRITE, flags: F.FUA, length }, Buffer.alloc(length, 1));
    await client.call({ type: C.WRITE, length }, Buffer.alloc(length, 1));
    await client.call({ type: C.TRIM, flags: F.FUA, length });
    await client.call({ type: C.WRITE_ZEROES, flags: F.FUA | F.NO_HOLE, length });
    await client.call({ type: C.WRITE_ZEROES, length });
    await client.call({ type: C.FLUSH });
    const seen = under.volume.journal.map(({ call, fua, noHole }) => [call, fua, noHole]);
    expect(seen).toEqual([
      ['write', true, false],
      ['write', false, false],
      ['trim', true, false],
      ['writeZeroes', true, true],
      ['writeZeroes', false, false],
      ['flush', false, false],
    ]);
  });

  it.each([
    ['IO_ERROR', E.EIO, E.EIO],
    ['NO_SPACE', E.ENOSPC, E.ENOSPC],
    ['READ_ONLY', E.EPERM, E.EPERM],
    ['OVERLOADED', E.ENOMEM, E.ENOMEM],
    ['OUT_OF_RANGE', E.EINVAL, E.ENOSPC],
    ['CLOSED', E.ESHUTDOWN, E.ESHUTDOWN],
    ['UNSUPPORTED', E.ENOTSUP, E.ENOTSUP],
    ['CORRUPT_BLOCK', E.EIO, E.EIO],
  ] as const)('volume error %s: read %i, write %i', async (code, onRead, onWrite) => {
    await client.go({ name: 'v1' });
    under.volume.before = () => Promise.reject(new StorageError(code, 'made to fail'));
    const length = 8192;
    const read = await client.call({ type: C.READ, length });
    const write = await client.call({ type: C.WRITE, length }, Buffer.alloc(length));
    const status = await client.call({ type: C.BLOCK_STATUS, length });
    expect([read.error, write.error, status.error]).toEqual([onRead, onWrite, onRead]);
  });

  it('answers an error that is not ours as EIO and lives on', async () => {
    await client.go({ name: 'v1' });
    under.volume.before = () => Promise.reject(new TypeError('surprise'));
    expect(await client.call({ type: C.FLUSH })).toMatchObject({ error: E.EIO });
    under.volume.before = undefined;
    expect(await client.call({ type: C.FLUSH })).toMatchObject({ error: 0 });
  });

  it('does not hide a failed assertion of the volume', () => {
    const broken = new AssertionError({ message: 'invariant' });
    expect(() => errorAnswer(broken, E.EINVAL)).toThrow(broken);
  });

  it('reports status in merged runs, and one with REQ_ONE', async () => {
    await client.go({ name: 'v1' });
    await under.volume.write(MIB, 8192, [Buffer.alloc(8192, 1)], NOT_DURABLE);
    const status = { type: C.BLOCK_STATUS, offset: 0, length: 2 * MIB };
    const runs = (data: Buffer): number[] =>
      Array.from({ length: data.length / 4 }, (_, i) => data.readUInt32BE(i * 4));
    expect(runs((await client.call(status)).data)).toEqual([1, MIB, 3, 8192, 0, MIB - 8192, 3]);
    expect(runs((await client.call({ ...status, flags: F.REQ_ONE })).data)).toEqual([1, MIB, 3]);
  });

  it('bounds a giant block status (CVE-2025-47711 class)', async () => {
    await client.go({ name: 'v1' });
    const block = Buffer.alloc(4096, 1);
    for (let at = 0; at < SIZE; at += 8192) {
      await under.volume.write(at, 4096, [block], NOT_DURABLE);
    }
    const { data } = await client.call({ type: C.BLOCK_STATUS, offset: 0, length: SIZE });
    expect(data.length).toBe(4 + 8 * 8192);
  });

  it('serves duplicate cookies', async () => {
    await client.go({ name: 'v1' });
    for (let i = 0; i < 3; i += 1) client.request({ type: C.READ, cookie: 5n, length: 512 });
    for (let i = 0; i < 3; i += 1) {
      expect(await client.readReply({ type: C.READ, length: 512 })).toMatchObject({ cookie: 5n });
    }
  });

  it('finishes what is pending when DISC comes', async () => {
    await client.go({ name: 'v1' });
    let release = (): void => undefined;
    const gate = new Promise<void>((resolve) => {
      release = resolve;
    });
    under.volume.before = () => gate;
    client.request({ type: C.WRITE, cookie: 1n, length: 4096 }, Buffer.alloc(4096, 9));
    client.request({ type: C.DISC });
    client.request({ type: C.READ, cookie: 2n, length: 512 });
    setImmediate(release);
    expect(await client.readReply()).toMatchObject({ cookie: 1n, error: 0 });
    expect(await client.closed()).toHaveLength(0);
    expect(under.volume.peek(0, 1)[0]).toBe(9);
  });

  it.each([
    ['bad request magic', { type: C.READ, magic: 0x12345678, length: 512 }],
    ['WRITE above 32 MiB', { type: C.WRITE, length: 32 * MIB + 1 }],
    ['WRITE of 2^32-1 bytes', { type: C.WRITE, length: 0xffffffff }],
  ] as const)('drops the connection for %s', async (_name, request) => {
    await client.go({ name: 'v1' });
    client.request(request);
    await expect(client.readReply()).rejects.toThrow(ConnectionLost);
  });

  it('sees the new size after growth, on old connections too', async () => {
    await client.go({ name: 'v1' });
    const write = { type: C.WRITE, offset: SIZE, length: 512 };
    expect(await client.call(write, Buffer.alloc(512, 3))).toMatchObject({ error: E.ENOSPC });
    under.volume.grow(SIZE + MIB);
    expect(await client.call(write, Buffer.alloc(512, 3))).toMatchObject({ error: 0 });
    const fresh = await RawClient.open({ path: under.path });
    await fresh.go({ name: 'v1' });
    expect([client.size, fresh.size]).toEqual([SIZE, SIZE + MIB]);
    fresh.destroy();
  });

  it('takes a payload however it is cut, at any alignment', async () => {
    await client.go({ name: 'v1' });
    const length = 70_001;
    const payload = Buffer.from(Array.from({ length }, (_, i) => (i * 7) & 0xff));
    client.request({ type: C.WRITE, offset: 777, length });
    let at = 0;
    for (const size of [1, 1, 2, 3, 5000, 1, 4096, 1, 30_000, 7]) {
      client.send(payload.subarray(at, at + size));
      at += size;
      await new Promise((resolve) => setImmediate(resolve));
    }
    client.send(payload.subarray(at));
    expect(await client.readReply()).toMatchObject({ error: 0 });
    expect(under.volume.peek(777, length).equals(payload)).toBe(true);
  });

  it('keeps small replies intact until a slow client takes them', async () => {
    await client.go({ name: 'v1' });
    const pages = 400;
    for (let i = 0; i < pages; i += 1) {
      await under.volume.write(i * 8192, 8192, [Buffer.alloc(8192, 1 + (i % 250))], NOT_DURABLE);
    }
    const other = await RawClient.open({ path: under.path });
    await other.go({ name: 'v1' });
    client.socket.pause();
    const read = (i: number): RequestFields => ({ type: C.READ, offset: i * 8192, length: 8192 });
    for (let i = 0; i < pages; i += 1) client.request({ ...read(i), cookie: BigInt(i) });
    await other.call(read(0));
    client.socket.resume();
    const readAll = async (): Promise<void> => {
      for (let i = 0; i < pages; i += 1) {
        const { cookie, data } = await client.readReply(read(i));
        expect(cookie).toBe(BigInt(i));
        expect(data.equals(under.volume.peek(i * 8192, 8192)), `page ${i}`).toBe(true);
      }
    };
    // meanwhile the other one uses the same pool of buffers
    const disturb = async (): Promise<void> => {
      for (let i = 0; i < pages; i += 1) await other.call(read(pages - 1 - i));
    };
    await Promise.all([readAll(), disturb()]);
    other.destroy();
  });

  it('puts out read data of every size whole', async () => {
    await client.go({ name: 'v1' });
    const all = Buffer.from(Array.from({ length: 3 * MIB }, (_, i) => (i * 31 + (i >> 8)) & 0xff));
    await under.volume.write(0, all.length, [all], NOT_DURABLE);
    for (const length of [1, 511, 4096, 16_384, 16_385, 65_536, 300_000, 2 * MIB + 13]) {
      const read = { type: C.READ, offset: 99, length };
      const { data } = await client.call(read);
      expect(data.equals(all.subarray(99, 99 + length)), `${length} bytes`).toBe(true);
    }
  });
});
