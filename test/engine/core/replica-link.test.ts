import { describe, expect, it } from 'vitest';
import { StorageError } from '../../../common/errors.js';
import { BLOCK_SIZE, MIB } from '../../../common/units.js';
import { ReplicaLink } from '../../../engine/core/replica-link.js';
import { UnaryOp } from '../../../engine/core/unary-op.js';
import { crc32cBlocks } from '../../../native/index.js';
import { IO_OP, IoReplyEncoder } from '../../../proto/io-codec.js';
import { MESSAGE_HEADROOM, type MessageStreamHandlers } from '../../../proto/message-stream.js';
import { ManualClock } from '../../common/manual-clock.js';
import { outcome, turns } from '../../support/engine-bed.js';
import { FakeReplica } from '../../support/fake-replica.js';

const PING = { op: IO_OP.PING, flags: 0, offsetBytes: 0, lengthBytes: 0 };

interface Made {
  readonly clock: ManualClock;
  readonly replica: FakeReplica;
  readonly link: ReplicaLink;
  readonly broken: StorageError[];
  readonly handlers: MessageStreamHandlers;
  readonly hello: Promise<unknown>;
}

function makeLink(): Made {
  const clock = new ManualClock();
  const replica = new FakeReplica('a', MIB, crc32cBlocks);
  const broken: StorageError[] = [];
  let id = 0;
  const link = new ReplicaLink({
    ...{ index: 0, replicaId: 'a', address: '', local: true, clock, endOfTurn: setImmediate },
    nextId: () => {
      id += 1;
      return id;
    },
    ackedThrough: () => 0,
    checksumBlocks: crc32cBlocks,
    ...{ opDeadlineMs: 8_000, keepaliveMs: 1_000, pingDeadlineMs: 6_000 },
    onBroken: (_link, error) => broken.push(error),
  });
  const handlers: MessageStreamHandlers = {
    onMessage: (message) => link.onMessage(message),
    onDrain: () => undefined,
    onClose: (error) => link.onClose(error),
  };
  const hello = link.attach(replica.connect(handlers), {
    ...{ protocolVersion: 1, volume: 'v', replicaId: 'a', epoch: 1, engineId: 'e' },
  });
  return { clock, replica, link, broken, handlers, hello };
}

async function makeAttached(): Promise<Made> {
  const made = makeLink();
  await made.hello;
  return made;
}

const ask = (link: ReplicaLink): Promise<string> => {
  const op = new UnaryOp();
  link.request(op, PING);
  return outcome(op.done);
};

describe('replica link', () => {
  it('says hello and is told of the incarnation (P7)', async () => {
    const { hello } = makeLink();
    expect(await hello).toMatchObject({ incarnation: 'i' });
  });

  it('a hello that is never answered fails when the link is given up', async () => {
    const { link, hello, replica } = makeLink();
    replica.hold(true);
    const failed = outcome(hello);
    link.break(new StorageError('DEADLINE', 'no hello'));
    expect(await failed).toBe('DEADLINE');
  });

  it('when it breaks, all that waited is told, once, after the set has learned of it', async () => {
    const { link, replica, broken } = await makeAttached();
    replica.hold(true);
    const works = [ask(link), ask(link)];
    await turns(2);
    expect(link.inFlight).toBe(2);
    replica.cut();
    expect(await Promise.all(works)).toEqual(['UNAVAILABLE', 'UNAVAILABLE']);
    expect(broken.map((e) => e.code)).toEqual(['UNAVAILABLE']);
    link.break(new StorageError('IO_ERROR', 'late'));
    expect(broken).toHaveLength(1);
    expect(link.broken?.code).toBe('UNAVAILABLE');
    expect(await ask(link)).toBe('UNAVAILABLE');
  });

  it.each([
    { name: 'an id that nobody waits for', ids: [77] },
    { name: 'a second answer to one request (scenario 31)', ids: [1, 1] },
  ])('breaks on $name', async ({ ids }) => {
    const { link, broken, handlers, replica } = await makeAttached();
    replica.hold(true);
    const op = new UnaryOp();
    link.request(op, PING);
    const done = outcome(op.done);
    const encoder = new IoReplyEncoder();
    for (const id of ids) encoder.add(id, 0);
    const message = encoder.finish();
    const keep = (): void => undefined;
    const bytes = Buffer.concat([message.head.subarray(MESSAGE_HEADROOM), ...message.tail]);
    handlers.onMessage({ bytes, aligned: false, retain: keep, release: keep });
    expect(broken.map((e) => e.code)).toEqual(['PROTOCOL_ERROR']);
    expect(['ok', 'PROTOCOL_ERROR']).toContain(await done);
  });

  it('late messages of a broken link are not looked at (scenario 16)', async () => {
    const { link, handlers, broken } = await makeAttached();
    link.break(new StorageError('DEADLINE', 'too slow'));
    const keep = (): void => undefined;
    handlers.onMessage({
      bytes: Buffer.alloc(9, 255),
      aligned: false,
      retain: keep,
      release: keep,
    });
    expect(broken.map((e) => e.code)).toEqual(['DEADLINE']);
  });

  it('scenario 34: a silent peer is pinged, and given up without an answer', async () => {
    const { link, clock, replica, broken } = await makeAttached();
    link.confirmedMs = clock.nowMs();
    link.tick(1);
    await turns(3);
    expect(replica.seen).toHaveLength(0);
    replica.hold(true);
    clock.advance(1_000);
    link.tick(1);
    link.tick(1);
    await turns(3);
    expect(replica.seen.map((s) => s.op)).toEqual([IO_OP.PING]);
    clock.advance(6_000);
    link.tick(1);
    expect(broken).toEqual([]);
    clock.advance(1);
    link.tick(4);
    expect(broken).toEqual([]);
    link.tick(1);
    expect(broken.map((e) => e.code)).toEqual(['DEADLINE']);
  });

  it('an answer confirms the time of the question, not its own', async () => {
    const { link, clock, replica } = await makeAttached();
    replica.hold(true);
    const work = ask(link);
    await turns(3);
    const askedMs = clock.nowMs();
    clock.advance(3_000);
    replica.hold(false);
    expect(await work).toBe('ok');
    expect(link.confirmedMs).toBe(askedMs);
    expect(link.lastHeardMs).toBe(askedMs + 3_000);
  });

  it('closed in order, nothing is left waiting for ever', async () => {
    const { link, replica, broken } = await makeAttached();
    replica.hold(true);
    const work = ask(link);
    const write = new UnaryOp();
    link.requestWrite(write, 0, Buffer.alloc(BLOCK_SIZE, 1));
    const written = outcome(write.done);
    await turns(3);
    link.close();
    expect(await Promise.race([work, turns(5).then(() => 'waits')])).toBe('CLOSED');
    expect(await written).toBe('CLOSED');
    expect(link.inFlight).toBe(0);
    expect(broken).toEqual([]);
  });
});
