/** The service behind the real listener, spoken to by the real clients; the disks are in memory. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SystemClock } from '../../../common/clock.js';
import { StorageError } from '../../../common/errors.js';
import { BLOCK_SIZE, MIB } from '../../../common/units.js';
import { crc32cBlocks } from '../../../native/index.js';
import { replicaControlService } from '../../../proto/control.js';
import { IO_FLAG, IO_OP } from '../../../proto/io-codec.js';
import { listenTransport, type TransportListener } from '../../../proto/transport.js';
import { acquirePlain, IoClient } from './io-client.js';
import { createFixture, type Fixture, RECORD, SIZE_BYTES, turns } from './service-fixture.js';

const V1 = { volume: 'v1', replicaId: 'r1' };

let dir: string;
let fixture: Fixture;
let listener: TransportListener;
const clients: IoClient[] = [];

async function start(kind: 'tcp' | 'unix'): Promise<void> {
  fixture = await createFixture();
  listener = await listenTransport({
    address: kind === 'tcp' ? '127.0.0.1:0' : `unix:${join(dir, 'replica.sock')}`,
    acquire: acquirePlain,
    onIoStream: (stream) => fixture.streams.accept(stream),
    services: [replicaControlService(fixture.control)],
    log: pino({ level: 'silent' }),
    clock: new SystemClock(),
  });
}

function client(): IoClient {
  const made = new IoClient(listener.address);
  clients.push(made);
  return made;
}

async function opened(epoch: number): Promise<IoClient> {
  const made = client();
  const engineId = `e${epoch}`;
  await made.control.openReplica({ ...V1, epoch, engineId });
  await made.connect({ ...V1, epoch, engineId });
  return made;
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return 'OK';
  } catch (error) {
    return error instanceof StorageError ? error.code : String(error);
  }
}

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'aurochs-transport-'));
});
afterEach(async () => {
  for (const made of clients.splice(0)) await made.close();
  await fixture.streams.finish();
  await listener.close();
  await rm(dir, { recursive: true, force: true });
  await turns();
  expect(fixture.streams.count).toBe(0);
  expect(fixture.pool.usedBytes).toBe(0);
});

describe.each(['tcp', 'unix'] as const)('over %s', (kind) => {
  it('create, open, write, read, flush, trim', async () => {
    await start(kind);
    const made = client();
    const request = { volume: 'v2', replicaId: 'r7', sizeBytes: SIZE_BYTES, membership: RECORD };
    const info = await made.control.createReplica(request);
    expect(info).toMatchObject({ volume: 'v2', replicaId: 'r7', epoch: 0, failed: false });
    const tenure = { volume: 'v2', replicaId: 'r7', epoch: 1, engineId: 'e1' };
    const open = await made.control.openReplica(tenure);
    expect(open).toMatchObject({ incarnation: 'i1', window: [], dirtyRegions: [] });
    const hello = await made.connect(tenure);
    expect(hello.incarnation).toBe('i1');
    const data = Buffer.alloc(MIB);
    for (let i = 0; i < data.length; i += 4) data.writeUInt32LE((i * 2654435761) >>> 0, i);
    await Promise.all([
      made.write(0, data),
      made.write(4 * MIB, data.subarray(0, BLOCK_SIZE), IO_FLAG.FUA),
    ]);
    await made.command(IO_OP.FLUSH);
    expect((await made.read(0, MIB)).equals(data)).toBe(true);
    await made.command(IO_OP.TRIM, 0, MIB);
    expect((await made.read(0, MIB)).length).toBe(0);
    expect((await made.read(4 * MIB, BLOCK_SIZE)).equals(data.subarray(0, BLOCK_SIZE))).toBe(true);
    const { replicas } = await made.control.identify({ volume: 'v2' });
    expect(replicas[0]?.allocatedBytes).toBe(BLOCK_SIZE);
  });

  it('catch-up: replace, sparse read and hash, regions by control calls', async () => {
    await start(kind);
    const made = await opened(1);
    const payload = Buffer.concat([1, 2, 3].map((fill) => Buffer.alloc(BLOCK_SIZE, fill)));
    const checksums = Buffer.alloc(12);
    crc32cBlocks(payload, 0, payload.length, checksums, 0);
    const range = { offsetBytes: MIB, lengthBytes: MIB };
    const bitmap = Buffer.alloc(32);
    for (const block of [0, 100, 255]) bitmap.writeUInt8(1 << (block & 7), block >> 3);
    await made.replace(range, { bitmap, checksums, payload: [payload] });
    const sparse = await made.ask({ op: IO_OP.READ, flags: IO_FLAG.SPARSE, ...range });
    expect(sparse.payload.equals(payload)).toBe(true);
    expect(sparse.checksums.equals(Buffer.concat([bitmap, checksums]))).toBe(true);
    const hashed = await made.ask({ op: IO_OP.HASH, flags: 0, ...range });
    expect(hashed.payload).toHaveLength(256 * 16);
    expect(hashed.checksums.equals(Buffer.concat([bitmap, Buffer.alloc(32)]))).toBe(true);
    fixture.handle().store.dirty.add(2);
    const call = { ...V1, epoch: 1 };
    const { regions } = await made.control.listRegions({ ...call, firstRegion: 0, count: 4 });
    expect(regions).toMatchObject([{ number: 2, dirty: true }]);
    const { extents } = await made.control.listExtents({ ...call, region: 2 });
    expect(extents).toMatchObject([{ number: 128, allocated: true, written: false }]);
    const tag = { epoch: 1, counter: 8 };
    const extentTags = [{ extent: 128, tag }];
    await made.control.cleanRegion({ ...call, region: 2, tag, extentTags });
    const late = made.control.listExtents({ ...call, epoch: 2, region: 2 });
    expect(await codeOf(late)).toBe('STALE_EPOCH');
  });

  it('R5: a new engine’s open ends the old engine’s stream with STALE_EPOCH', async () => {
    await start(kind);
    const old = await opened(1);
    await old.write(0, Buffer.alloc(BLOCK_SIZE, 1));
    const next = await opened(2);
    expect(await codeOf(old.write(0, Buffer.alloc(BLOCK_SIZE, 2)))).toBe('STALE_EPOCH');
    expect((await next.read(0, BLOCK_SIZE))[0]).toBe(1);
    const again = client();
    expect(await codeOf(again.connect({ ...V1, epoch: 1, engineId: 'e1' }))).toBe('STALE_EPOCH');
    expect(await codeOf(again.control.openReplica({ ...V1, epoch: 1, engineId: 'e1' }))).toBe(
      'STALE_EPOCH',
    );
  });
});

it('R8: a hello for what is not here is refused with IDENTITY_MISMATCH', async () => {
  await start('unix');
  await opened(1);
  const made = client();
  const hello = { volume: 'v1', replicaId: 'r2', epoch: 1, engineId: 'e1' };
  expect(await codeOf(made.connect(hello))).toBe('IDENTITY_MISMATCH');
});

it('thousands of writes at depth 256 are each answered once', async () => {
  await start('unix');
  const made = await opened(1);
  const payload = Buffer.alloc(BLOCK_SIZE, 3);
  let done = 0;
  const worker = async (first: number): Promise<void> => {
    for (let i = first; i < 8192; i += 256) {
      await made.write(i * BLOCK_SIZE, payload);
      done += 1;
    }
  };
  await Promise.all(Array.from({ length: 256 }, (_, i) => worker(i)));
  expect(done).toBe(8192);
  expect(fixture.handle().store.allocatedBytes).toBe(8192 * BLOCK_SIZE);
});

it('large reads in flight far beyond the memory are all answered', async () => {
  await start('unix');
  const made = await opened(1);
  await made.write(0, Buffer.alloc(MIB, 9));
  const reads = await Promise.all(Array.from({ length: 200 }, () => made.read(0, MIB)));
  expect(reads.every((bytes) => bytes.length === MIB && bytes[5] === 9)).toBe(true);
});
