import { afterEach, describe, expect, it } from 'vitest';
import { StorageError } from '../../../common/errors.js';
import { BLOCK_SIZE, MIB, VOLUME_SIZE_MAX } from '../../../common/units.js';
import { IO_OP } from '../../../proto/io-codec.js';
import type { FakeStream } from './fake-stream.js';
import { createFixture, type Fixture, RECORD, SIZE_BYTES, turns } from './service-fixture.js';

const V1 = { volume: 'v1', replicaId: 'r1' };

let fixture: Fixture;
afterEach(() => {
  expect(fixture.pool.usedBytes).toBe(0);
  expect(fixture.memory.used).toBe(0);
});

function write(stream: FakeStream, id: number, ackedThrough = 0): void {
  const at = { flags: 0, id, offsetBytes: id * MIB, lengthBytes: BLOCK_SIZE };
  stream.batch((b) => b.addWrite(at, [Buffer.alloc(BLOCK_SIZE, id)]), ackedThrough);
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return 'OK';
  } catch (error) {
    return error instanceof StorageError ? error.code : String(error);
  }
}

describe('P4: a higher epoch', () => {
  it('that the disk did not take is refused for good, and told to whoever asks', async () => {
    fixture = await createFixture();
    await fixture.serve(1);
    fixture.handle().error = new StorageError('IO_ERROR', 'disk');
    const claim = { ...V1, epoch: 5, engineId: 'e5' };
    expect(await codeOf(fixture.control.openReplica(claim))).toBe('IO_ERROR');
    const late = { ...V1, epoch: 2, engineId: 'e2' };
    expect(await codeOf(fixture.control.openReplica(late))).toBe('STALE_EPOCH');
    const { replicas } = await fixture.control.identify({ volume: 'v1' });
    expect(replicas[0]?.epoch).toBe(5);
    const next = { ...V1, epoch: 6, engineId: 'e6' };
    expect(await codeOf(fixture.control.openReplica(next))).toBe('OK');
  });

  it('is durable, and older requests are dropped or done, before it is answered', async () => {
    fixture = await createFixture({ memoryBytes: 2 * BLOCK_SIZE });
    const stream = await fixture.serve(1);
    const { store } = fixture.handle();
    store.holds = true;
    // Two run, two wait for memory.
    for (let id = 1; id <= 4; id++) write(stream, id);
    await turns();
    expect(store.calls).toHaveLength(2);

    let answered = false;
    const opening = fixture.control
      .openReplica({ ...V1, epoch: 2, engineId: 'e2' })
      .then((reply) => {
        answered = true;
        return reply;
      });
    await turns();
    expect(stream.closed?.error?.code).toBe('STALE_EPOCH');
    expect(answered).toBe(false);
    // Late messages of the old stream: nothing is done.
    write(stream, 5);
    store.letGo();
    const reply = await opening;
    expect(fixture.handle().log).toContain('epoch 2 e2');
    expect(store.calls).toHaveLength(2);
    expect(store.waiting).toBe(0);
    expect(reply.info.epoch).toBe(2);
    // What ran is in the window for the new engine; what never started is not.
    expect(reply.window).toEqual([
      { offsetBytes: MIB, lengthBytes: BLOCK_SIZE },
      { offsetBytes: 2 * MIB, lengthBytes: BLOCK_SIZE },
    ]);
    expect(stream.replies).toEqual([]);
  });

  it('refuses hellos while it is being persisted, old ones and its own', async () => {
    fixture = await createFixture();
    await fixture.serve(1);
    let open = (): void => undefined;
    fixture.handle().gate = new Promise((resolve) => {
      open = resolve;
    });
    const opening = fixture.control.openReplica({ ...V1, epoch: 2, engineId: 'e2' });
    await turns();
    for (const [epoch, engineId] of [
      [1, 'e1'],
      [2, 'e2'],
    ] as const) {
      const stream = fixture.connect();
      stream.say({ protocolVersion: 1, ...V1, epoch, engineId });
      await turns();
      expect(stream.closed?.error?.code).toBe('STALE_EPOCH');
    }
    open();
    await opening;
    const stream = await fixture.serve(2, 'e2');
    expect(stream.hello).toBeDefined();
  });

  it('that cannot be persisted is not answered, and the old engine stays out', async () => {
    fixture = await createFixture();
    const stream = await fixture.serve(1);
    fixture.handle().error = new StorageError('IO_ERROR', 'metadata is gone');
    const open2 = fixture.control.openReplica({ ...V1, epoch: 2, engineId: 'e2' });
    expect(await codeOf(open2)).toBe('IO_ERROR');
    // Who opens it next has to know what to go above.
    const { replicas } = await fixture.control.identify({ volume: 'v1' });
    expect(replicas).toMatchObject([{ epoch: 2 }]);
    expect(stream.closed?.error?.code).toBe('STALE_EPOCH');
    const open1 = fixture.control.openReplica({ ...V1, epoch: 1, engineId: 'e1' });
    expect(await codeOf(open1)).toBe('STALE_EPOCH');
    const again = fixture.control.openReplica({ ...V1, epoch: 2, engineId: 'e2' });
    expect(await codeOf(again)).toBe('OK');
  });

  it('scenario 72: many engines race for one epoch, one gets it', async () => {
    fixture = await createFixture();
    const opens = Array.from({ length: 12 }, (_, i) =>
      codeOf(fixture.control.openReplica({ ...V1, epoch: 7, engineId: `e${i}` })),
    );
    const codes = await Promise.all(opens);
    expect(codes.filter((code) => code === 'OK')).toHaveLength(1);
    expect(codes.filter((code) => code === 'STALE_EPOCH')).toHaveLength(11);
    expect(fixture.handle().log).toHaveLength(1);
  });

  it('more control calls than may wait are refused, not queued', async () => {
    fixture = await createFixture();
    await fixture.serve(1);
    fixture.handle().store.holds = true;
    fixture.handle().gate = new Promise(() => undefined);
    const opens = Array.from({ length: 40 }, (_, i) =>
      codeOf(fixture.control.openReplica({ ...V1, epoch: 2 + i, engineId: 'e2' })),
    );
    const first = await Promise.race(opens);
    expect(first).toBe('OVERLOADED');
  });
});

describe('the same tenure', () => {
  it('opens again without disturbing its stream', async () => {
    fixture = await createFixture();
    const stream = await fixture.serve(1);
    const reply = await fixture.control.openReplica({ ...V1, epoch: 1, engineId: 'e1' });
    expect(reply.incarnation).toBe('i1');
    expect(stream.closed).toBeUndefined();
    expect(fixture.handle().log).toEqual(['epoch 1 e1']);
  });

  it('replaces its stream; the new one is answered when the old one has drained', async () => {
    fixture = await createFixture();
    const old = await fixture.serve(1);
    const { store } = fixture.handle();
    store.holds = true;
    write(old, 1);
    const next = fixture.connect();
    next.say({ protocolVersion: 1, ...V1, epoch: 1, engineId: 'e1' });
    await turns();
    expect(old.closed?.error?.code).toBe('ABORTED');
    expect(next.hello).toBeUndefined();
    // A third one before the second was answered: the last wins.
    const last = fixture.connect();
    last.say({ protocolVersion: 1, ...V1, epoch: 1, engineId: 'e1' });
    await turns();
    expect(next.closed?.error?.code).toBe('ABORTED');
    store.letGo();
    await turns();
    expect(last.hello).toBeDefined();
    store.holds = false;
    write(last, 2);
    await last.until(1);
    expect(last.replies[0]?.code).toBe('OK');
    expect(old.replies).toEqual([]);
    expect(fixture.streams.count).toBe(1);
  });

  it('a higher epoch that comes while a stream waits closes that one too', async () => {
    fixture = await createFixture();
    const old = await fixture.serve(1);
    const { store } = fixture.handle();
    store.holds = true;
    write(old, 1);
    const next = fixture.connect();
    next.say({ protocolVersion: 1, ...V1, epoch: 1, engineId: 'e1' });
    await turns();
    const opening = fixture.control.openReplica({ ...V1, epoch: 2, engineId: 'e2' });
    await turns();
    expect(next.closed?.error?.code).toBe('STALE_EPOCH');
    store.letGo();
    await opening;
    expect(next.hello).toBeUndefined();
    expect(fixture.streams.count).toBe(0);
  });
});

describe('the in-flight window across engines', () => {
  const record = (epoch: number) => ({ ...RECORD, epoch });

  it('shrinks by what is declared acknowledged, survives stream and epoch', async () => {
    fixture = await createFixture();
    const stream = await fixture.serve(1);
    for (let id = 1; id <= 3; id++) write(stream, id);
    await stream.until(3);
    write(stream, 4, 2);
    await stream.until(4);
    stream.handlers?.onClose(undefined);
    const second = await fixture.control.openReplica({ ...V1, epoch: 2, engineId: 'e2' });
    expect(second.window).toEqual([
      { offsetBytes: 3 * MIB, lengthBytes: BLOCK_SIZE },
      { offsetBytes: 4 * MIB, lengthBytes: BLOCK_SIZE },
    ]);
    // R2: that engine dies before it made them equal; the third one is told as well.
    const third = await fixture.control.openReplica({ ...V1, epoch: 3, engineId: 'e3' });
    expect(third.window).toEqual(second.window);
    // It stores its own record once they are equal: from then on they are forgotten.
    await fixture.control.setMembership({ ...V1, membership: record(3) });
    const fourth = await fixture.control.openReplica({ ...V1, epoch: 4, engineId: 'e4' });
    expect(fourth.window).toEqual([]);
  });

  it('does not hold reads, flushes, or writes that were refused before the store', async () => {
    fixture = await createFixture();
    const stream = await fixture.serve(1);
    const none = { flags: 0, offsetBytes: 0, lengthBytes: 0, arg: 0 };
    stream.batch((b) => {
      b.add({ ...none, op: IO_OP.READ, id: 1, lengthBytes: BLOCK_SIZE });
      b.add({ ...none, op: IO_OP.FLUSH, id: 2 });
      const end = { ...none, op: IO_OP.TRIM, id: 3, offsetBytes: SIZE_BYTES };
      b.add({ ...end, lengthBytes: BLOCK_SIZE });
    });
    await stream.until(3);
    const reply = await fixture.control.openReplica({ ...V1, epoch: 2, engineId: 'e2' });
    expect(reply.window).toEqual([]);
  });
});

describe('membership records', () => {
  const record = (epoch: number, generation: number, state: 'in-sync' | 'failed' = 'in-sync') => ({
    ...{ epoch, generation, engineId: 'e1', era: 0 },
    members: [{ replicaId: 'r1', address: 'unix:/a', state }],
  });
  const set = (membership: ReturnType<typeof record>) =>
    codeOf(fixture.control.setMembership({ ...V1, membership }));

  it('are stored for the opened epoch only, and never older ones', async () => {
    fixture = await createFixture();
    expect(await set(record(1, 1))).toBe('STALE_EPOCH');
    await fixture.serve(2);
    expect(await set(record(1, 9))).toBe('STALE_EPOCH');
    expect(await set(record(3, 1))).toBe('STALE_EPOCH');
    expect(await set(record(2, 2))).toBe('OK');
    expect(await set(record(2, 2))).toBe('OK');
    expect(await set(record(2, 2, 'failed'))).toBe('CONFLICT');
    expect(await set(record(2, 1))).toBe('CONFLICT');
    expect(await set(record(2, 3))).toBe('OK');
    expect(fixture.handle().log).toEqual(['epoch 2 e1', 'membership 2.2', 'membership 2.3']);
    await fixture.control.openReplica({ ...V1, epoch: 3, engineId: 'e2' });
    expect(await set(record(2, 4))).toBe('STALE_EPOCH');
  });

  it('R3: a record that could not be made durable is not acknowledged', async () => {
    fixture = await createFixture();
    await fixture.serve(2);
    fixture.handle().error = new StorageError('IO_ERROR', 'no');
    expect(await set(record(2, 2))).toBe('IO_ERROR');
  });
});

describe('P8: a replica whose store failed', () => {
  it('answers REPLICA_FAILED until it is opened again, also by the same engine', async () => {
    fixture = await createFixture();
    const stream = await fixture.serve(1);
    fixture.handle().store.failedReason = 'flush failed';
    write(stream, 1);
    await stream.until(1);
    expect(stream.replies[0]?.code).toBe('REPLICA_FAILED');
    const [info] = (await fixture.control.identify({ volume: 'v1' })).replicas;
    expect(info).toMatchObject({ failed: true, failedReason: 'flush failed' });
    const reply = await fixture.control.openReplica({ ...V1, epoch: 1, engineId: 'e1' });
    expect(reply.info.failed).toBe(false);
    // The stream to the failed store is over; what it may have left undone is still in the window.
    expect(stream.closed?.error?.code).toBe('STALE_EPOCH');
    expect(reply.window).toEqual([{ offsetBytes: MIB, lengthBytes: BLOCK_SIZE }]);
    expect(fixture.handle().log).toContain('reopen');
  });
});

describe('create, identify, delete', () => {
  const create = (change: object) =>
    codeOf(
      fixture.control.createReplica({
        ...V1,
        sizeBytes: SIZE_BYTES,
        membership: RECORD,
        ...change,
      }),
    );

  it('creating the same replica again is no change, another one is CONFLICT', async () => {
    fixture = await createFixture();
    expect(await create({})).toBe('OK');
    expect(await create({ replicaId: 'r2' })).toBe('CONFLICT');
    expect(await create({ sizeBytes: 2 * SIZE_BYTES })).toBe('CONFLICT');
  });

  it('twenty racing creations of one volume make one replica', async () => {
    fixture = await createFixture({ disks: 3 });
    const codes = await Promise.all(
      Array.from({ length: 20 }, (_, i) => create({ volume: 'v2', replicaId: `r${i}` })),
    );
    expect(codes.filter((code) => code === 'OK')).toHaveLength(1);
    expect((await fixture.control.identify({ volume: 'v2' })).replicas).toHaveLength(1);
  });

  it('refuses sizes that no volume can have', async () => {
    fixture = await createFixture();
    expect(await create({ volume: 'v2', sizeBytes: VOLUME_SIZE_MAX + BLOCK_SIZE })).toBe(
      'LIMIT_EXCEEDED',
    );
    expect(await create({ volume: 'v2', sizeBytes: BLOCK_SIZE + 1 })).toBe('INVALID_ARGUMENT');
    expect(await create({ volume: 'v2', sizeBytes: 0 })).toBe('INVALID_ARGUMENT');
    expect(await create({ volume: 'v2', sizeBytes: VOLUME_SIZE_MAX })).toBe('OK');
  });

  it('takes the ready disk with the most free space', async () => {
    fixture = await createFixture({ disks: 3 });
    const [d1, d2, d3] = fixture.disks;
    if (d1 === undefined || d2 === undefined || d3 === undefined) throw new Error('three disks');
    d1.usedBytes = 3 * MIB;
    d2.reservedBytes = 2 * MIB;
    d3.state = 'failed';
    const info = await fixture.control.createReplica({
      volume: 'v2',
      replicaId: 'r1',
      sizeBytes: SIZE_BYTES,
      membership: RECORD,
    });
    expect(info.diskId).toBe('d2');
    d1.state = 'failed';
    d2.state = 'failed';
    expect(await create({ volume: 'v3' })).toBe('UNAVAILABLE');
  });

  it('identify names daemon, disks and the replicas of one volume or all', async () => {
    fixture = await createFixture();
    await create({ volume: 'v2', replicaId: 'r9' });
    const all = await fixture.control.identify({ volume: '' });
    expect(all).toMatchObject({ daemonId: 'n1', incarnation: 'i1', bootId: 'b1', clusterId: 'c1' });
    expect(all.disks).toMatchObject([{ diskId: 'd1', state: 'ready' }]);
    expect(all.replicas.map((r) => r.volume)).toEqual(['v1', 'v2']);
    const one = await fixture.control.identify({ volume: 'v2' });
    expect(one.replicas.map((r) => r.replicaId)).toEqual(['r9']);
  });

  it('delete checks the epoch, fences, and the name is free again', async () => {
    fixture = await createFixture();
    const stream = await fixture.serve(2);
    const remove = (epoch: number) => codeOf(fixture.control.deleteReplica({ ...V1, epoch }));
    expect(await remove(1)).toBe('STALE_EPOCH');
    expect(await remove(2)).toBe('CONFLICT');
    expect(await remove(3)).toBe('OK');
    expect(stream.closed?.error?.code).toBe('NOT_FOUND');
    expect(await remove(3)).toBe('NOT_FOUND');
    expect(await codeOf(fixture.control.openReplica({ ...V1, epoch: 4, engineId: 'e' }))).toBe(
      'NOT_FOUND',
    );
    expect(await create({ replicaId: 'r2' })).toBe('OK');
  });

  it('a daemon that stops refuses changes', async () => {
    fixture = await createFixture();
    await fixture.control.stop();
    expect(await create({ volume: 'v2' })).toBe('CLOSED');
    expect(await codeOf(fixture.control.openReplica({ ...V1, epoch: 4, engineId: 'e' }))).toBe(
      'CLOSED',
    );
  });
});
