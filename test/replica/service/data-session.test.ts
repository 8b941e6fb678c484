import { afterEach, describe, expect, it } from 'vitest';
import { StorageError } from '../../../common/errors.js';
import { BLOCK_SIZE, KIB, MIB, REGION_SIZE } from '../../../common/units.js';
import { crc32c, ZERO_BLOCK_CRC } from '../../../native/index.js';
import { IO_FLAG, IO_OP } from '../../../proto/io-codec.js';
import { createFixture, type Fixture, SIZE_BYTES, turns } from './service-fixture.js';

const NONE = { flags: 0, offsetBytes: 0, lengthBytes: 0, arg: 0 };
const block = (fill: number): Buffer => Buffer.alloc(BLOCK_SIZE, fill);

let fixture: Fixture;
afterEach(() => {
  // Whatever a test did: no pool memory and no admission is left behind.
  expect(fixture.pool.usedBytes).toBe(0);
  expect(fixture.memory.used).toBe(0);
});

describe('a data stream answers', () => {
  it('hello with its incarnation and window', async () => {
    fixture = await createFixture();
    const stream = await fixture.serve();
    expect(stream.hello).toMatchObject({ protocolVersion: 1, incarnation: 'i1' });
    expect(stream.hello?.windowBytes).toBeGreaterThanOrEqual(16 * MIB);
    expect(stream.hello?.windowRequests).toBe(4096);
  });

  it('a write, read back with its checksum; zero reads carry no payload', async () => {
    fixture = await createFixture();
    const stream = await fixture.serve();
    stream.batch((b) =>
      b.addWrite({ flags: 0, id: 1, offsetBytes: 8192, lengthBytes: BLOCK_SIZE }, [block(7)]),
    );
    await stream.until(1);
    stream.batch((b) => {
      b.add({ ...NONE, op: IO_OP.READ, id: 2, offsetBytes: 8192, lengthBytes: BLOCK_SIZE });
      b.add({ ...NONE, op: IO_OP.READ, id: 3, offsetBytes: 0, lengthBytes: BLOCK_SIZE });
    });
    await stream.until(3);
    expect(stream.replies.map((r) => r.code)).toEqual(['OK', 'OK', 'OK']);
    expect(stream.replyTo(2)?.payload.equals(block(7))).toBe(true);
    expect(stream.replyTo(2)?.checksums.readUInt32LE(0)).toBe(crc32c(block(7)));
    expect(stream.replyTo(3)?.payload.length).toBe(0);
    expect(stream.replyTo(3)?.checksums.readUInt32LE(0)).toBe(ZERO_BLOCK_CRC);
  });

  it('flush, trim, zeroes, map, clean and ping, each by its store call', async () => {
    fixture = await createFixture();
    const stream = await fixture.serve(3);
    const { store } = fixture.handle();
    const four = { ...NONE, lengthBytes: 4 * BLOCK_SIZE };
    stream.batch((b) => b.addWrite({ ...four, id: 1 }, [Buffer.alloc(4 * BLOCK_SIZE, 1)]));
    await stream.until(1);
    stream.batch((b) => {
      b.add({ ...NONE, op: IO_OP.TRIM, id: 2, offsetBytes: BLOCK_SIZE, lengthBytes: BLOCK_SIZE });
      b.add({ ...NONE, op: IO_OP.WRITE_ZEROES, id: 3, lengthBytes: BLOCK_SIZE });
      b.add({
        ...NONE,
        op: IO_OP.WRITE_ZEROES,
        flags: IO_FLAG.NO_HOLE,
        id: 4,
        offsetBytes: 2 * BLOCK_SIZE,
        lengthBytes: BLOCK_SIZE,
      });
      b.add({ ...NONE, op: IO_OP.FLUSH, id: 5 });
      b.add({ ...NONE, op: IO_OP.CLEAN, id: 6, offsetBytes: REGION_SIZE, arg: 42 });
      b.add({ ...NONE, op: IO_OP.PING, id: 7 });
    });
    await stream.until(7);
    stream.batch((b) => b.add({ ...four, op: IO_OP.MAP, id: 8 }));
    await stream.until(8);
    expect(stream.replies.every((r) => r.code === 'OK')).toBe(true);
    expect(store.calls).toEqual([
      'write 0+16384',
      'trim 4096+4096',
      'zero 0+4096',
      'zero no-hole 8192+4096',
      'flush 0',
      'clean 3:42 1',
      'map 0+16384',
    ]);
    const runs = stream.replyTo(8)?.payload ?? Buffer.alloc(0);
    const numbers = Array.from({ length: runs.length / 4 }, (_, i) => runs.readUInt32LE(i * 4));
    expect(numbers).toEqual([2, 1, 2, 0]);
  });

  it('D2: a FUA change only after a flush that began when the change was done', async () => {
    fixture = await createFixture();
    const stream = await fixture.serve();
    const { store } = fixture.handle();
    store.holds = true;
    const fua = { flags: IO_FLAG.FUA, offsetBytes: 0, lengthBytes: BLOCK_SIZE };
    stream.batch((b) => {
      b.addWrite({ ...fua, id: 1 }, [block(1)]);
      b.add({ ...fua, op: IO_OP.TRIM, id: 2, offsetBytes: BLOCK_SIZE, arg: 0 });
    });
    await turns();
    expect(store.calls).toEqual(['write 0+4096', 'trim 4096+4096']);
    store.letGo();
    await turns();
    expect(store.calls.slice(2)).toEqual(['flush 0', 'flush 0']);
    expect(stream.replies).toEqual([]);
    store.letGo();
    await stream.until(2);
    expect(stream.replies.map((r) => r.code)).toEqual(['OK', 'OK']);
  });

  it('replies of one turn in one message', async () => {
    fixture = await createFixture();
    const stream = await fixture.serve();
    stream.batch((b) => {
      for (let id = 1; id <= 64; id++) {
        const at = { flags: 0, id, offsetBytes: id * BLOCK_SIZE, lengthBytes: BLOCK_SIZE };
        b.addWrite(at, [block(id)]);
      }
    });
    await stream.until(64);
    expect(stream.batches).toEqual([64]);
  });

  it('replies at the end of the turn that it is given, and not before', async () => {
    const ends: Array<() => void> = [];
    fixture = await createFixture({ endOfTurn: (callback) => void ends.push(callback) });
    const stream = await fixture.serve();
    for (const id of [1, 2, 3]) {
      stream.batch((b) => b.add({ ...NONE, op: IO_OP.PING, id }));
      await turns();
    }
    expect(stream.replies).toEqual([]);
    expect(ends).toHaveLength(1);
    ends[0]?.();
    expect(stream.batches).toEqual([3]);
  });

  it('more read data than one message holds in several', async () => {
    fixture = await createFixture();
    const stream = await fixture.serve();
    for (let i = 0; i < 8; i++) {
      const at = { flags: 0, id: i + 1, offsetBytes: i * MIB, lengthBytes: MIB };
      stream.batch((b) => b.addWrite(at, [Buffer.alloc(MIB, i + 1)]));
    }
    await stream.until(8);
    stream.batch((b) => {
      for (let i = 0; i < 8; i++) {
        b.add({ ...NONE, op: IO_OP.READ, id: 10 + i, offsetBytes: i * MIB, lengthBytes: MIB });
      }
    });
    await stream.until(16);
    for (let i = 0; i < 8; i++) {
      expect(stream.replyTo(10 + i)?.payload.equals(Buffer.alloc(MIB, i + 1))).toBe(true);
    }
  });
});

describe('payload of a write', () => {
  it('scenario 33: changed on the way is refused, and nothing is written', async () => {
    fixture = await createFixture();
    const stream = await fixture.serve();
    const good = { flags: 0, id: 1, offsetBytes: 0, lengthBytes: 2 * BLOCK_SIZE };
    const built = stream.batch((b) => b.addWrite(good, [block(1), block(2)]));
    await stream.until(1);
    // The same message again as id 2, one bit of the second block flipped.
    const bytes = Buffer.from(built.bytes);
    const at = bytes.lastIndexOf(block(2));
    bytes[at + 100] = (bytes[at + 100] ?? 0) ^ 1;
    stream.give(bytes);
    await stream.until(2);
    expect(stream.replies[1]).toMatchObject({ code: 'CORRUPT_MESSAGE', badBlock: 1 });
    expect(fixture.handle().store.calls).toEqual(['write 0+8192']);
    expect(fixture.handle().store.peek(1)?.equals(block(2))).toBe(true);
    expect(stream.closed).toBeUndefined();
  });

  it('is not copied where it arrived aligned, and held until the store is done', async () => {
    fixture = await createFixture();
    const stream = await fixture.serve();
    const { store } = fixture.handle();
    store.holds = true;
    const at = { flags: 0, id: 1, offsetBytes: 0, lengthBytes: 256 * KIB };
    const payload = Buffer.alloc(256 * KIB, 5);
    const message = stream.batch((b) => b.addWrite(at, [payload]), 0, true);
    await turns();
    expect(fixture.pool.usedBytes).toBe(0);
    expect(message.held).toBe(1);
    store.letGo();
    await stream.until(1);
    expect(message.held).toBe(0);
    expect(store.peek(63)?.equals(block(5))).toBe(true);
  });

  it('of an aligned message is verified too', async () => {
    fixture = await createFixture();
    const stream = await fixture.serve();
    const at = { flags: 0, id: 1, offsetBytes: 0, lengthBytes: 256 * KIB };
    const built = stream.batch((b) => b.addWrite(at, [Buffer.alloc(256 * KIB, 5)]), 0, true);
    await stream.until(1);
    const bytes = Buffer.from(built.bytes);
    bytes[bytes.length - 1] = 6;
    const message = stream.give(bytes, true);
    await stream.until(2);
    expect(stream.replies[1]).toMatchObject({ code: 'CORRUPT_MESSAGE', badBlock: 63 });
    expect(message.held).toBe(0);
  });
});

describe('errors of the store reach the engine by code', () => {
  const cases = [
    { op: IO_OP.READ, call: 'read', code: 'CORRUPT_BLOCK', details: { badBlock: 1 }, bad: 1 },
    { op: IO_OP.READ, call: 'read', code: 'IO_ERROR', details: {}, bad: 0 },
    { op: IO_OP.TRIM, call: 'trim', code: 'IO_ERROR', details: {}, bad: 0 },
    { op: IO_OP.WRITE_ZEROES, call: 'zero', code: 'REPLICA_FAILED', details: {}, bad: 0 },
    { op: IO_OP.MAP, call: 'map', code: 'CORRUPT_METADATA', details: {}, bad: 0 },
  ] as const;
  it.each(cases)('$call: $code', async ({ op, call, code, details, bad }) => {
    fixture = await createFixture();
    const stream = await fixture.serve();
    fixture.handle().store.errors.set(call, new StorageError(code, 'as the test wants', details));
    stream.batch((b) => b.add({ ...NONE, op, id: 1, lengthBytes: 2 * BLOCK_SIZE }));
    await stream.until(1);
    expect(stream.replies[0]).toMatchObject({ code, badBlock: bad, detail: 'as the test wants' });
    expect(await fixture.registry.metrics()).toMatch(
      new RegExp(`aurochs_replica_errors_total{[^}]*code="${code}"[^}]*} 1`),
    );
  });

  it('write: NO_SPACE and FUA: a flush that failed', async () => {
    fixture = await createFixture();
    const stream = await fixture.serve();
    const { store } = fixture.handle();
    store.errors.set('write', new StorageError('NO_SPACE', 'full'));
    store.errors.set('flush', new StorageError('IO_ERROR', 'no flush'));
    const at = { offsetBytes: 0, lengthBytes: BLOCK_SIZE };
    stream.batch((b) => b.addWrite({ ...at, flags: 0, id: 1 }, [block(1)]));
    await stream.until(1);
    stream.batch((b) => b.addWrite({ ...at, flags: IO_FLAG.FUA, id: 2 }, [block(1)]));
    await stream.until(2);
    expect(stream.replies.map((r) => r.code)).toEqual(['NO_SPACE', 'IO_ERROR']);
  });

  it('what is no StorageError is INTERNAL', async () => {
    fixture = await createFixture();
    const stream = await fixture.serve();
    const { store } = fixture.handle();
    store.flush = () => Promise.reject(new TypeError('a bug'));
    stream.batch((b) => b.add({ ...NONE, op: IO_OP.FLUSH, id: 1 }));
    await stream.until(1);
    expect(stream.replies[0]?.code).toBe('INTERNAL');
  });
});

describe('requests that cannot run', () => {
  const past = SIZE_BYTES - BLOCK_SIZE;
  const cases = [
    { name: 'read past the end', op: IO_OP.READ, at: past, length: 8192, want: 'OUT_OF_RANGE' },
    { name: 'trim past the end', op: IO_OP.TRIM, at: past, length: 8192, want: 'OUT_OF_RANGE' },
    { name: 'map past the end', op: IO_OP.MAP, at: SIZE_BYTES, length: 4096, want: 'OUT_OF_RANGE' },
    {
      name: 'clean past the end',
      op: IO_OP.CLEAN,
      at: SIZE_BYTES,
      length: 0,
      want: 'OUT_OF_RANGE',
    },
    { name: 'FUA on a read', op: IO_OP.READ, at: 0, length: 4096, flags: 1, want: 'UNSUPPORTED' },
    { name: 'RAW on a trim', op: IO_OP.TRIM, at: 0, length: 4096, flags: 4, want: 'UNSUPPORTED' },
  ];
  it.each(cases)('$name: $want', async ({ op, at, length, flags, want }) => {
    fixture = await createFixture();
    const stream = await fixture.serve();
    const fields = { op, flags: flags ?? 0, offsetBytes: at, lengthBytes: length };
    stream.batch((b) => b.add({ ...fields, id: 1, arg: 0 }));
    await stream.until(1);
    expect(stream.replies[0]?.code).toBe(want);
    expect(fixture.handle().store.calls).toEqual([]);
  });

  it('bytes that are no message end the stream', async () => {
    fixture = await createFixture();
    const stream = await fixture.serve();
    stream.give(Buffer.from('ffffffffff', 'hex'));
    expect(stream.closed?.error?.code).toMatch(/CORRUPT_MESSAGE|PROTOCOL_ERROR/);
  });
});

describe('hello', () => {
  const hello = { protocolVersion: 1, volume: 'v1', replicaId: 'r1', epoch: 1, engineId: 'e1' };
  const cases = [
    { name: 'R8: another volume', change: { volume: 'v2' }, want: 'IDENTITY_MISMATCH' },
    { name: 'R8: another replica', change: { replicaId: 'r2' }, want: 'IDENTITY_MISMATCH' },
    { name: 'R5: an older epoch', change: { epoch: 0 }, want: 'STALE_EPOCH' },
    { name: 'R5: an epoch not opened', change: { epoch: 2 }, want: 'STALE_EPOCH' },
    { name: 'R5: another engine', change: { engineId: 'e2' }, want: 'STALE_EPOCH' },
    { name: 'a newer protocol', change: { protocolVersion: 9 }, want: 'VERSION_UNSUPPORTED' },
  ];
  it.each(cases)('of $name: $want', async ({ change, want }) => {
    fixture = await createFixture();
    await fixture.serve();
    const stream = fixture.connect();
    stream.say({ ...hello, ...change });
    await turns();
    expect(stream.closed?.error?.code).toBe(want);
    expect(fixture.streams.count).toBe(1);
  });

  it('that never comes ends the stream, also half-open ones by the hundred', async () => {
    fixture = await createFixture({ streamsMax: 100 });
    const streams = Array.from({ length: 101 }, () => fixture.connect());
    expect(streams[100]?.closed?.error?.code).toBe('OVERLOADED');
    fixture.clock.advance(10_000);
    expect(streams.every((s) => s.closed !== undefined)).toBe(true);
    expect(streams[0]?.closed?.error?.code).toBe('DEADLINE');
    expect(fixture.streams.count).toBe(0);
  });

  it('must be first, and once', async () => {
    fixture = await createFixture();
    const early = fixture.connect();
    early.batch((b) => b.add({ ...NONE, op: IO_OP.PING, id: 1 }));
    expect(early.closed?.error?.code).toBe('PROTOCOL_ERROR');
    const stream = await fixture.serve();
    stream.say(hello);
    expect(stream.closed?.error?.code).toBe('PROTOCOL_ERROR');
  });
});

describe('limits', () => {
  it('more requests than the window end the stream', async () => {
    fixture = await createFixture({ windowRequests: 8 });
    const stream = await fixture.serve();
    fixture.handle().store.holds = true;
    stream.batch((b) => {
      for (let id = 1; id <= 8; id++) b.add({ ...NONE, op: IO_OP.FLUSH, id });
    });
    expect(stream.closed).toBeUndefined();
    stream.batch((b) => b.add({ ...NONE, op: IO_OP.PING, id: 9 }));
    expect(stream.closed?.error?.code).toBe('LIMIT_EXCEEDED');
    fixture.handle().store.letGo();
    await turns();
    expect(fixture.streams.count).toBe(0);
  });

  it('more payload than the window ends the stream; what was within it runs', async () => {
    fixture = await createFixture({ windowBytes: 64 * KIB });
    const stream = await fixture.serve();
    const { store } = fixture.handle();
    store.holds = true;
    for (let i = 0; i < 17; i++) {
      const at = { flags: 0, id: i + 1, offsetBytes: i * BLOCK_SIZE, lengthBytes: BLOCK_SIZE };
      stream.batch((b) => b.addWrite(at, [block(i)]));
    }
    expect(stream.closed?.error?.code).toBe('LIMIT_EXCEEDED');
    expect(store.calls).toHaveLength(16);
    store.letGo();
    await turns();
  });

  it('the window opens again with the replies', async () => {
    fixture = await createFixture({ windowRequests: 4, windowBytes: 4 * BLOCK_SIZE });
    const stream = await fixture.serve();
    for (let i = 0; i < 64; i++) {
      const at = { flags: 0, id: i + 1, offsetBytes: i * BLOCK_SIZE, lengthBytes: BLOCK_SIZE };
      stream.batch((b) => b.addWrite(at, [block(i)]));
      if (i % 4 === 3) await stream.until(i + 1);
    }
    expect(stream.closed).toBeUndefined();
    expect(stream.replies).toHaveLength(64);
  });

  it('memory: requests beyond it wait in order, the stream pauses, and goes on', async () => {
    fixture = await createFixture({ memoryBytes: 2 * MIB });
    const stream = await fixture.serve();
    const { store } = fixture.handle();
    store.holds = true;
    for (let i = 0; i < 6; i++) {
      const at = { flags: 0, id: i + 1, offsetBytes: i * MIB, lengthBytes: MIB };
      stream.batch((b) => b.addWrite(at, [Buffer.alloc(MIB, i + 1)]));
    }
    await turns();
    expect(store.calls).toHaveLength(2);
    expect(stream.paused).toBe(true);
    for (let done = 1; done <= 6; done++) {
      store.letGo(1);
      await stream.until(done);
      await turns();
    }
    expect(stream.paused).toBe(false);
    expect(store.calls).toEqual([0, 1, 2, 3, 4, 5].map((i) => `write ${i * MIB}+${MIB}`));
  });

  it('a read holds its memory until its bytes have left', async () => {
    fixture = await createFixture({ memoryBytes: MIB });
    const stream = await fixture.serve();
    const at = { flags: 0, offsetBytes: 0, lengthBytes: MIB };
    stream.batch((b) => b.addWrite({ ...at, id: 1 }, [Buffer.alloc(MIB, 1)]));
    await stream.until(1);
    stream.holdsMessages = true;
    stream.batch((b) => b.add({ ...at, op: IO_OP.READ, id: 2, arg: 0 }));
    stream.batch((b) => b.add({ ...at, op: IO_OP.READ, id: 3, arg: 0 }));
    await turns();
    expect(fixture.memory.used).toBe(MIB);
    expect(fixture.handle().store.calls.filter((c) => c.startsWith('read'))).toHaveLength(1);
    stream.deliver();
    await turns();
    stream.deliver();
    await stream.until(3);
    expect(stream.replies).toHaveLength(3);
  });

  it('a slow engine: intake pauses while its replies queue', async () => {
    fixture = await createFixture();
    const stream = await fixture.serve();
    stream.accepts = false;
    stream.batch((b) => b.add({ ...NONE, op: IO_OP.PING, id: 1 }));
    await stream.until(1);
    expect(stream.paused).toBe(true);
    stream.accepts = true;
    stream.handlers?.onDrain();
    expect(stream.paused).toBe(false);
  });
});

describe('a stream that is lost', () => {
  it('drops what waits, lets run what runs, answers nothing', async () => {
    fixture = await createFixture({ memoryBytes: MIB });
    const stream = await fixture.serve();
    const { store } = fixture.handle();
    store.holds = true;
    const messages = [0, 1, 2].map((i) => {
      const at = { flags: 0, id: i + 1, offsetBytes: i * MIB, lengthBytes: MIB };
      return stream.batch((b) => b.addWrite(at, [Buffer.alloc(MIB, 1)]));
    });
    stream.handlers?.onClose(new StorageError('UNAVAILABLE', 'gone'));
    store.letGo();
    await turns();
    expect(store.calls).toHaveLength(1);
    expect(messages.map((m) => m.held)).toEqual([0, 0, 0]);
    expect(stream.replies).toEqual([]);
    expect(fixture.streams.count).toBe(0);
  });

  it('with read data that was not sent yet: its memory comes back', async () => {
    fixture = await createFixture();
    const stream = await fixture.serve();
    const at = { flags: 0, offsetBytes: 0, lengthBytes: MIB };
    stream.batch((b) => b.addWrite({ ...at, id: 1 }, [Buffer.alloc(MIB, 1)]));
    await stream.until(1);
    fixture.handle().store.holds = true;
    stream.batch((b) => b.add({ ...at, op: IO_OP.READ, id: 2, arg: 0 }));
    stream.handlers?.onClose(undefined);
    fixture.handle().store.letGo();
    await turns();
    expect(fixture.streams.count).toBe(0);
  });
});

describe('a daemon that stops', () => {
  it('answers what runs, then ends the stream in order', async () => {
    fixture = await createFixture();
    const stream = await fixture.serve();
    const { store } = fixture.handle();
    store.holds = true;
    const at = { flags: 0, id: 1, offsetBytes: 0, lengthBytes: BLOCK_SIZE };
    stream.batch((b) => b.addWrite(at, [block(1)]));
    const finished = fixture.streams.finish();
    stream.batch((b) => b.add({ ...NONE, op: IO_OP.PING, id: 2 }));
    await turns();
    expect(stream.closed).toBeUndefined();
    store.letGo();
    await finished;
    expect(stream.replies.map((r) => [r.id, r.code])).toEqual([[1, 'OK']]);
    expect(stream.closed).toEqual({ error: undefined });
    expect(fixture.connect().closed?.error?.code).toBe('CLOSED');
  });
});
