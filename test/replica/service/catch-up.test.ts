/** What a daemon offers to an engine that brings a copy up to date: sparse reads, replaces and
 *  hashes on the data stream, and the calls about regions. */
import { afterEach, describe, expect, it } from 'vitest';
import { StorageError } from '../../../common/errors.js';
import { BLOCK_SIZE, MIB } from '../../../common/units.js';
import { crc32c, crc32cBlocks } from '../../../native/index.js';
import { IO_FLAG, IO_OP, type IoReplaceContent } from '../../../proto/io-codec.js';
import type { FakeStream } from './fake-stream.js';
import { createFixture, type Fixture, turns } from './service-fixture.js';

const V1 = { volume: 'v1', replicaId: 'r1' };
const NONE = { flags: 0, offsetBytes: 0, lengthBytes: 0, arg: 0 };
const block = (fill: number): Buffer => Buffer.alloc(BLOCK_SIZE, fill);

let fixture: Fixture;
afterEach(() => {
  expect(fixture.pool.usedBytes).toBe(0);
  expect(fixture.memory.used).toBe(0);
});

/** Blocks by their fill; 0: absent. */
function content(fills: readonly number[]): IoReplaceContent {
  const bitmap = Buffer.alloc(Math.ceil(fills.length / 8));
  for (const [n, fill] of fills.entries()) {
    if (fill > 0) bitmap.writeUInt8((bitmap[n >> 3] ?? 0) | (1 << (n & 7)), n >> 3);
  }
  const payload = Buffer.concat(fills.filter((fill) => fill > 0).map(block));
  const checksums = Buffer.alloc(payload.length / 1024);
  if (payload.length > 0) crc32cBlocks(payload, 0, payload.length, checksums, 0);
  return { bitmap, checksums, payload: [payload] };
}

async function replace(
  stream: FakeStream,
  given: { id: number; offsetBytes?: number; aligned?: boolean },
  fills: readonly number[],
) {
  const { id, offsetBytes = 0, aligned = false } = given;
  const range = { id, offsetBytes, lengthBytes: fills.length * BLOCK_SIZE };
  const message = stream.batch((b) => b.addReplace(range, content(fills)), 0, aligned);
  while (stream.replyTo(id) === undefined) await turns(1);
  return message;
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return 'OK';
  } catch (error) {
    return error instanceof StorageError ? error.code : String(error);
  }
}

describe('on the data stream', () => {
  it('a replace, and a sparse read that brings it back as it came', async () => {
    fixture = await createFixture();
    const stream = await fixture.serve();
    const fills = [0, 3, 0, 4, 5, 0];
    await replace(stream, { id: 1, offsetBytes: BLOCK_SIZE }, fills);
    expect(stream.replyTo(1)?.code).toBe('OK');
    const range = { offsetBytes: BLOCK_SIZE, lengthBytes: 6 * BLOCK_SIZE, arg: 0 };
    stream.batch((b) => b.add({ op: IO_OP.READ, flags: IO_FLAG.SPARSE, id: 2, ...range }));
    await stream.until(2);
    const reply = stream.replyTo(2);
    const { checksums, payload } = content(fills);
    expect(reply?.code).toBe('OK');
    expect(reply?.checksums.subarray(0, 4)).toEqual(Buffer.from('1a000000', 'hex'));
    expect(reply?.checksums.subarray(4)).toEqual(checksums);
    expect(reply?.payload).toEqual(payload[0]);
    expect(fixture.handle().store.calls).toEqual(['replace 4096+24576', 'sparse 4096+24576']);
  });

  it('a replace by nothing, and a sparse read of nothing, carry a bitmap alone', async () => {
    fixture = await createFixture();
    const stream = await fixture.serve();
    await replace(stream, { id: 1 }, [0, 0, 0]);
    const three = { ...NONE, lengthBytes: 3 * BLOCK_SIZE };
    stream.batch((b) => b.add({ ...three, op: IO_OP.READ, flags: IO_FLAG.SPARSE, id: 2 }));
    await stream.until(2);
    expect(stream.replyTo(2)).toMatchObject({ code: 'OK', checksums: Buffer.alloc(4) });
    expect(stream.replyTo(2)?.payload).toHaveLength(0);
  });

  it('a hash carries 16 bytes per block and two bitmaps; flags reach the store', async () => {
    fixture = await createFixture();
    const stream = await fixture.serve();
    await replace(stream, { id: 1 }, [1, 0, 1]);
    const range = { ...NONE, lengthBytes: 3 * BLOCK_SIZE };
    stream.batch((b) => {
      b.add({ ...range, op: IO_OP.HASH, id: 2 });
      b.add({ ...range, op: IO_OP.HASH, flags: IO_FLAG.RAW, id: 3 });
      b.add({ ...range, op: IO_OP.READ, flags: IO_FLAG.RAW | IO_FLAG.SPARSE, id: 4 });
    });
    await stream.until(4);
    const reply = stream.replyTo(2);
    expect(reply?.payload).toHaveLength(48);
    expect(reply?.payload.subarray(0, 16)).toEqual(reply?.payload.subarray(32));
    expect(reply?.checksums).toEqual(Buffer.from('0500000000000000', 'hex'));
    expect(fixture.handle().store.calls.slice(1)).toEqual([
      ...['hash 0+12288', 'hash raw 0+12288', 'sparse raw 0+12288'],
    ]);
  });

  it('scenario 33: a block changed on the way is refused, nothing is replaced', async () => {
    fixture = await createFixture();
    const stream = await fixture.serve();
    for (const fills of [
      [0, 1, 0, 0, 2, 3],
      [0, 0, 0, 1, 2, 3],
    ]) {
      const range = { id: 1, offsetBytes: 0, lengthBytes: 6 * BLOCK_SIZE };
      const good = stream.batch((b) => b.addReplace(range, content(fills)));
      await stream.until(1);
      const bytes = Buffer.from(good.bytes);
      bytes.writeUInt8(9, bytes.lastIndexOf(block(2)) + 100);
      stream.replies.length = 0;
      const { store } = fixture.handle();
      const calls = store.calls.length;
      stream.give(bytes);
      await stream.until(1);
      expect(stream.replies[0]).toMatchObject({ code: 'CORRUPT_MESSAGE', badBlock: 4 });
      expect(store.calls).toHaveLength(calls);
      stream.replies.length = 0;
    }
  });

  it('neighbouring blocks that arrive aligned are not copied, others are spread', async () => {
    fixture = await createFixture();
    const stream = await fixture.serve();
    const { store } = fixture.handle();
    store.holds = true;
    const row = Array.from({ length: 32 }, (_, n) => (n < 8 ? 0 : n));
    const gaps = Array.from({ length: 32 }, (_, n) => (n % 2) * n);
    const range = { offsetBytes: 0, lengthBytes: 32 * BLOCK_SIZE };
    const first = stream.batch((b) => b.addReplace({ ...range, id: 1 }, content(row)), 0, true);
    await turns();
    expect(first.held).toBe(1);
    expect(fixture.pool.usedBytes).toBe(0);
    const second = stream.batch((b) => b.addReplace({ ...range, id: 2 }, content(gaps)), 0, true);
    await turns();
    expect(second.held).toBe(0);
    // From the first present block to the last one.
    expect(fixture.pool.usedBytes).toBe(31 * BLOCK_SIZE);
    store.letGo();
    await stream.until(2);
    expect(stream.replies.map(({ code }) => code)).toEqual(['OK', 'OK']);
    expect(store.peek(31)?.equals(block(31))).toBe(true);
    expect(store.peek(8)).toBeUndefined();
  });

  it('waits for memory of its whole range, as a read does', async () => {
    fixture = await createFixture({ memoryBytes: 8 * BLOCK_SIZE });
    const stream = await fixture.serve();
    const { store } = fixture.handle();
    store.holds = true;
    const fills = [1, 0, 0, 0, 0, 0, 0, 1];
    const range = { offsetBytes: 0, lengthBytes: 8 * BLOCK_SIZE };
    stream.batch((b) => b.addReplace({ ...range, id: 1 }, content(fills)));
    stream.batch((b) => b.add({ ...NONE, ...range, op: IO_OP.HASH, id: 2 }));
    await turns();
    expect(store.calls).toEqual(['replace 0+32768']);
    expect(fixture.memory.used).toBe(8 * BLOCK_SIZE);
    store.holds = false;
    store.letGo();
    await stream.until(2);
    expect(store.calls).toEqual(['replace 0+32768', 'hash 0+32768']);
  });

  it.each([
    ['sparse write', IO_OP.WRITE_ZEROES, IO_FLAG.SPARSE],
    ['hash with FUA', IO_OP.HASH, IO_FLAG.FUA],
    ['sparse hash', IO_OP.HASH, IO_FLAG.SPARSE],
  ])('%s is UNSUPPORTED', async (_name, op, flags) => {
    fixture = await createFixture();
    const stream = await fixture.serve();
    stream.batch((b) => b.add({ ...NONE, op, flags, id: 1, lengthBytes: BLOCK_SIZE }));
    await stream.until(1);
    expect(stream.replyTo(1)?.code).toBe('UNSUPPORTED');
  });

  it('N4: past the end of the volume is OUT_OF_RANGE', async () => {
    fixture = await createFixture();
    const stream = await fixture.serve();
    await replace(stream, { id: 1, offsetBytes: 256 * MIB }, [1]);
    expect(stream.replyTo(1)?.code).toBe('OUT_OF_RANGE');
  });

  it('R1: a replace is in the in-flight window until it is declared acknowledged', async () => {
    fixture = await createFixture();
    const stream = await fixture.serve(1);
    await replace(stream, { id: 5, offsetBytes: MIB }, [0, 1]);
    const reply = await fixture.control.openReplica({ ...V1, epoch: 2, engineId: 'e2' });
    expect(reply.window).toEqual([{ offsetBytes: MIB, lengthBytes: 2 * BLOCK_SIZE }]);
  });

  it('has labels of its own in the metrics', async () => {
    fixture = await createFixture();
    const stream = await fixture.serve();
    await replace(stream, { id: 1 }, [1, 0, 1]);
    stream.batch((b) => b.add({ ...NONE, op: IO_OP.HASH, id: 2, lengthBytes: BLOCK_SIZE }));
    await stream.until(2);
    const text = await fixture.registry.metrics();
    expect(text).toMatch(/aurochs_replica_request_seconds_count{[^}]*op="replace"[^}]*} 1/);
    expect(text).toMatch(/aurochs_replica_request_seconds_count{[^}]*op="hash"[^}]*} 1/);
    expect(text).toMatch(/aurochs_replica_bytes_total{[^}]*op="write"[^}]*} 8192/);
    expect(crc32c(block(1))).toBe(content([1]).checksums.readUInt32LE(0));
  });
});

describe('calls about regions', () => {
  const list = (epoch: number) =>
    fixture.control.listRegions({ ...V1, epoch, firstRegion: 0, count: 9 });
  const extents = (epoch: number) => fixture.control.listExtents({ ...V1, epoch, region: 2 });
  const clean = (epoch: number) => {
    const tag = { epoch: 1, counter: 8 };
    const extentTags = [{ extent: 128, tag: { epoch: 1, counter: 7 } }];
    return fixture.control.cleanRegion({ ...V1, epoch, region: 2, tag, extentTags });
  };

  it('reach the store of the opened tenure', async () => {
    fixture = await createFixture();
    await fixture.serve(3);
    const { store } = fixture.handle();
    store.dirty.add(2);
    const regions = await list(3);
    expect(regions.regions.map(({ number }) => number)).toEqual([2]);
    expect((await extents(3)).extents).toMatchObject([{ number: 128, allocated: true }]);
    expect(await clean(3)).toEqual({});
    expect(store.calls).toEqual(['regions 0+9', 'extents 2', 'clean-as 1:8 [128:7] 2']);
    expect((await list(3)).regions).toEqual([]);
  });

  it('P10: a copy that was made equal is complete, if it is the one that was meant', async () => {
    fixture = await createFixture();
    await fixture.serve(2);
    const handle = fixture.handle();
    handle.lossy = true;
    const note = (epoch: number, incarnation: string) =>
      fixture.control.noteComplete({ ...V1, epoch, incarnation });
    for (const [epoch, incarnation] of [
      [1, 'i1'],
      [3, 'i1'],
      [2, 'i1+1'],
      [2, 'i2'],
    ] as const) {
      expect(await codeOf(note(epoch, incarnation))).toBe('STALE_EPOCH');
      expect(handle.lossy).toBe(true);
    }
    expect(await note(2, 'i1')).toEqual({});
    expect(handle.lossy).toBe(false);
  });

  it('R5: are refused unless their epoch is the one that is opened now', async () => {
    fixture = await createFixture();
    for (const call of [list, extents, clean]) expect(await codeOf(call(1))).toBe('STALE_EPOCH');
    await fixture.serve(2);
    for (const call of [list, extents, clean]) {
      expect(await codeOf(call(1))).toBe('STALE_EPOCH');
      expect(await codeOf(call(3))).toBe('STALE_EPOCH');
    }
    await fixture.control.openReplica({ ...V1, epoch: 3, engineId: 'e2' });
    for (const call of [list, extents, clean]) expect(await codeOf(call(2))).toBe('STALE_EPOCH');
    expect(fixture.handle().store.calls).toEqual([]);
  });

  it('P4: a higher epoch is answered only after a call of the older one has ended', async () => {
    fixture = await createFixture();
    await fixture.serve(1);
    const { store } = fixture.handle();
    store.holds = true;
    const running = clean(1);
    const waiting = clean(1);
    await turns();
    let answered = false;
    const opening = fixture.control.openReplica({ ...V1, epoch: 2, engineId: 'e2' }).then(() => {
      answered = true;
    });
    await turns();
    expect(answered).toBe(false);
    store.letGo();
    await running;
    store.letGo();
    await turns();
    store.letGo();
    expect(await codeOf(waiting)).toBe('OK');
    await opening;
    expect(await codeOf(clean(1))).toBe('STALE_EPOCH');
  });

  it('R8: of a volume or replica that is not here, and of a daemon that stops', async () => {
    fixture = await createFixture();
    await fixture.serve(1);
    const call = (subject: object) =>
      codeOf(fixture.control.listExtents({ ...V1, epoch: 1, region: 0, ...subject }));
    expect(await call({ volume: 'v9' })).toBe('NOT_FOUND');
    expect(await call({ replicaId: 'r9' })).toBe('IDENTITY_MISMATCH');
    expect(await call({})).toBe('OK');
    await fixture.control.stop();
    expect(await call({})).toBe('CLOSED');
  });
});

describe('what OpenReplica tells of older tenures', () => {
  const open = (epoch: number, engineId: string) =>
    fixture.control.openReplica({ ...V1, epoch, engineId });

  it('how long they were silent, since the start of the daemon if there was none', async () => {
    fixture = await createFixture();
    fixture.clock.advance(50);
    expect((await open(1, 'e1')).silentMs).toBe(50);
    const stream = fixture.connect();
    stream.say({ protocolVersion: 1, ...V1, epoch: 1, engineId: 'e1' });
    await turns();
    fixture.clock.advance(1000);
    stream.batch((b) => b.add({ ...NONE, op: IO_OP.PING, id: 1 }));
    await stream.until(1);
    fixture.clock.advance(70);
    // Its own streams are not older than it.
    expect((await open(1, 'e1')).silentMs).toBe(1120);
    expect((await open(2, 'e2')).silentMs).toBe(70);
    fixture.clock.advance(5);
    expect((await open(2, 'e2')).silentMs).toBe(75);
    // e2 opened and never said anything.
    expect((await open(3, 'e3')).silentMs).toBe(75);
  });

  it('an answer counts like a request: it may have renewed a lease', async () => {
    fixture = await createFixture();
    const stream = await fixture.serve(1);
    const { store } = fixture.handle();
    store.holds = true;
    stream.batch((b) => b.add({ ...NONE, op: IO_OP.FLUSH, id: 1 }));
    await turns();
    fixture.clock.advance(300);
    store.letGo();
    await stream.until(1);
    fixture.clock.advance(20);
    expect((await open(2, 'e2')).silentMs).toBe(20);
  });

  it('who held the epoch before, also when the same tenure opens again', async () => {
    fixture = await createFixture();
    expect((await open(1, 'e1')).previousEngineId).toBe('');
    expect((await open(4, 'e4')).previousEngineId).toBe('e1');
    expect((await open(4, 'e4')).previousEngineId).toBe('e1');
    fixture.handle().store.failedReason = 'EIO';
    expect((await open(4, 'e4')).previousEngineId).toBe('e1');
  });

  it('P7: a replica that failed comes back as another incarnation, in every answer', async () => {
    fixture = await createFixture();
    await fixture.serve(1);
    fixture.handle().store.failedReason = 'EIO';
    const reply = await open(1, 'e1');
    expect(reply.incarnation).toBe('i1+1');
    expect(reply.info.incarnation).toBe('i1+1');
    const [info] = (await fixture.control.identify({ volume: 'v1' })).replicas;
    expect(info?.incarnation).toBe('i1+1');
    const stream = fixture.connect();
    stream.say({ protocolVersion: 1, ...V1, epoch: 1, engineId: 'e1' });
    await turns();
    expect(stream.hello?.incarnation).toBe('i1+1');
    expect((await fixture.control.identify({ volume: '' })).incarnation).toBe('i1');
  });

  it('R1: an epoch that is persisted at the second try has a window of its own', async () => {
    fixture = await createFixture();
    const stream = await fixture.serve(1);
    const at = { flags: 0, id: 5, offsetBytes: MIB, lengthBytes: BLOCK_SIZE };
    stream.batch((b) => b.addWrite(at, [block(1)]));
    await stream.until(1);
    fixture.handle().error = new StorageError('IO_ERROR', 'metadata is gone');
    expect(await codeOf(open(2, 'e2'))).toBe('IO_ERROR');
    expect((await open(2, 'e2')).window).toEqual([{ offsetBytes: MIB, lengthBytes: BLOCK_SIZE }]);
    // Ids of the new epoch say nothing about those of the old one.
    const next = fixture.connect();
    next.say({ protocolVersion: 1, ...V1, epoch: 2, engineId: 'e2' });
    await turns();
    next.batch((b) => b.add({ ...NONE, op: IO_OP.PING, id: 9 }), 8);
    await next.until(1);
    const third = await open(3, 'e3');
    expect(third.window).toEqual([{ offsetBytes: MIB, lengthBytes: BLOCK_SIZE }]);
  });
});
