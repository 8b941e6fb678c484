/** The simulated network keeps the promises of TCP and gRPC, and breaks the ones that they do not
 *  make (scenarios 22-25, 27-31, 33, 34). */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { StorageError } from '../../../common/errors.js';
import { crc32cBlocks } from '../../../native/index.js';
import type { ReplicaControlHandlers } from '../../../proto/control.js';
import { decodeIoBatch, IoBatchEncoder } from '../../../proto/io-codec.js';
import {
  type IncomingMessage,
  MESSAGE_HEADROOM,
  type MessageStream,
  type OutgoingMessage,
} from '../../../proto/message-stream.js';
import { LiveWorld } from '../kernel/live-world.js';
import type { SimProcess } from '../kernel/sim-process.js';
import type { ConnectionEnd } from './connection.js';
import { SimNetwork } from './network.js';

const ADDRESS = 'server:9600';

class Message implements OutgoingMessage {
  readonly head: Buffer;
  readonly tail: readonly Buffer[] = [];
  readonly lengthBytes: number;
  taken = 0;

  constructor(text: string, lengthBytes = text.length) {
    this.head = Buffer.alloc(MESSAGE_HEADROOM + lengthBytes, text[0]);
    this.head.write(text, MESSAGE_HEADROOM);
    this.lengthBytes = lengthBytes;
  }

  done(): void {
    this.taken += 1;
  }
}

/** One side as its user sees it. */
class User {
  readonly heard: string[] = [];
  closed: string | undefined;
  drains = 0;
  stream: MessageStream | undefined;

  onMessage(message: IncomingMessage): void {
    this.heard.push(message.bytes.toString('latin1', 0, Math.min(8, message.bytes.length)));
  }

  onDrain(): void {
    this.drains += 1;
  }

  onClose(error: StorageError | undefined): void {
    expect(this.closed).toBeUndefined();
    this.closed = error?.code ?? 'in order';
  }
}

let world: LiveWorld;
let network: SimNetwork;
let client: SimProcess;
let server: SimProcess;
let served: User;

beforeEach(() => {
  world = new LiveWorld(3);
  network = new SimNetwork(world.scheduler, world.random);
  client = world.start('client');
  server = world.start('server');
  network.name(ADDRESS, server.host);
});
afterEach(() => world.end());

function listen(control: Partial<ReplicaControlHandlers> = {}): void {
  network.listen(ADDRESS, {
    process: server,
    control: control as ReplicaControlHandlers,
    onIoStream: (stream) => {
      served = new User();
      served.stream = stream;
      return served;
    },
  });
}

async function connect(deadlineMs = 1_000): Promise<User> {
  const user = new User();
  user.stream = await network.connect(client, { address: ADDRESS, handlers: user, deadlineMs });
  return user;
}

const there = () => network.link(client.host, server.host);
const back = () => network.link(server.host, client.host);
const say = (user: User, text: string, lengthBytes?: number): boolean =>
  user.stream?.send(new Message(text, lengthBytes)) ?? false;

describe('streams', () => {
  it('carry messages whole and in order, both ways', async () => {
    listen();
    const user = await connect();
    there().quality.jitterMs = 50;
    for (const text of ['a', 'b', 'c', 'd', 'e', 'f']) say(user, text);
    say(served, 'x');
    await world.idle();
    expect(served.heard).toEqual(['a', 'b', 'c', 'd', 'e', 'f']);
    expect(user.heard).toEqual(['x']);
  });

  it('end in order after what was said', async () => {
    listen();
    const user = await connect();
    say(user, 'a');
    user.stream?.close();
    await world.idle();
    expect([served.heard, served.closed, user.closed]).toEqual([['a'], 'in order', 'in order']);
  });

  it('end with the reason of the server; a client that gives up is only a reset', async () => {
    listen();
    const user = await connect();
    served.stream?.close(new StorageError('STALE_EPOCH', 'fenced'));
    await world.idle();
    expect(user.closed).toBe('STALE_EPOCH');
    const other = await connect();
    other.stream?.close(new StorageError('DEADLINE', 'too slow'));
    await world.idle();
    expect([other.closed, served.closed]).toEqual(['DEADLINE', 'ABORTED']);
  });

  it('push back: what is not read waits with its sender, memory borrowed so long', async () => {
    listen();
    const user = await connect();
    served.stream?.pause();
    const message = new Message('m', 4_000_000);
    const last = new Message('l', 4_000_000);
    say(user, 'k', 4_000_000);
    user.stream?.send(message);
    expect(user.stream?.send(last)).toBe(false);
    await world.idle();
    expect([served.heard, last.taken, user.drains]).toEqual([[], 0, 0]);
    expect(user.stream?.queuedBytes).toBeGreaterThanOrEqual(4_000_000);
    served.stream?.resume();
    await world.idle();
    expect([served.heard.length, message.taken, last.taken, user.drains]).toEqual([3, 1, 1, 1]);
  });

  it('scenarios 24, 25: a cut one way holds back that way only, and loses nothing', async () => {
    listen();
    const user = await connect();
    there().cut();
    say(user, 'a');
    say(served, 'x');
    await world.idle();
    expect([served.heard, user.heard]).toEqual([[], ['x']]);
    there().heal();
    await world.idle();
    expect(served.heard).toEqual(['a']);
  });

  it('scenario 27: cuts nest', async () => {
    listen();
    const user = await connect();
    there().cut();
    there().cut();
    there().heal();
    say(user, 'a');
    await world.idle();
    expect(served.heard).toEqual([]);
    there().heal();
    await world.idle();
    expect(served.heard).toEqual(['a']);
  });

  it('scenario 30: a reset takes what is on its way from some point on', async () => {
    const heard = new Set<number>();
    listen();
    for (let n = 0; n < 20; n += 1) {
      const user = await connect();
      for (const text of ['a', 'b', 'c']) say(user, text);
      (user.stream as ConnectionEnd).reset('test');
      await world.idle();
      expect(['a', 'b', 'c'].slice(0, served.heard.length)).toEqual(served.heard);
      expect(served.closed).toBe('UNAVAILABLE');
      heard.add(served.heard.length);
    }
    expect(heard.size).toBeGreaterThan(2);
  });

  it('a killed process ends its streams; a stopped one says nothing', async () => {
    listen();
    const user = await connect();
    server.stop();
    say(user, 'a');
    await world.idle();
    expect([user.closed, served.heard]).toEqual([undefined, []]);
    server.continue();
    await world.idle();
    expect(served.heard).toEqual(['a']);
    server.die('kill');
    await world.idle();
    expect(user.closed).toBe('UNAVAILABLE');
  });

  it('scenario 34: a host without power is silent, and its next kernel resets', async () => {
    listen();
    const user = await connect();
    server.host.losePower();
    say(user, 'a');
    await world.idle();
    expect(user.closed).toBeUndefined();
    server.host.boot();
    network.rebooted(server.host);
    say(user, 'b');
    await world.idle();
    expect(user.closed).toBe('UNAVAILABLE');
  });

  it('scenarios 28, 29: little bandwidth and loss delay, and lose nothing', async () => {
    listen();
    const user = await connect();
    there().quality.bytesPerMs = 100;
    const startMs = world.scheduler.nowMs;
    for (let n = 0; n < 10; n += 1) say(user, 'a', 10_000);
    await world.idle();
    expect(served.heard).toHaveLength(10);
    expect(world.scheduler.nowMs - startMs).toBeGreaterThan(900);
    there().quality.lossRate = 0.5;
    for (let n = 0; n < 10; n += 1) say(user, 'b', 10);
    await world.idle();
    expect(served.heard).toHaveLength(20);
  });

  it('scenario 33: a flipped bit is in a payload, and only the one receiver has it', async () => {
    listen();
    const user = await connect();
    there().quality.flipRate = 1;
    const encoder = new IoBatchEncoder({ checksumBlocks: crc32cBlocks });
    const payload = Buffer.alloc(8192, 7);
    encoder.addWrite({ flags: 0, id: 1, offsetBytes: 0, lengthBytes: 8192 }, [payload]);
    const wrong: number[] = [];
    served.onMessage = (message) =>
      decodeIoBatch(message.bytes, {
        onHello: () => undefined,
        onAckedThrough: () => undefined,
        onRequest: (view) => {
          const got = view.bytes.subarray(view.payloadStart, view.payloadEnd);
          wrong.push([...got].filter((byte) => byte !== 7).length);
        },
      });
    user.stream?.send(encoder.finish(0, 1));
    await world.idle();
    expect(wrong).toEqual([1]);
  });
});

describe('connecting', () => {
  it('is refused where nobody listens, and not answered where there is no power', async () => {
    await expect(connect()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    server.host.losePower();
    await expect(connect()).rejects.toMatchObject({ code: 'DEADLINE' });
  });

  it('late answers find nobody: the stream is given back', async () => {
    listen();
    server.stop();
    await expect(connect(100)).rejects.toMatchObject({ code: 'DEADLINE' });
    server.continue();
    await world.idle();
    expect(served.closed).toBe('ABORTED');
  });
});

describe('control calls', () => {
  const identify = (reply: string) => async () => ({
    ...{ daemonId: reply, incarnation: 'i', bootId: 'b', clusterId: 'c' },
    disks: [],
    replicas: [],
  });
  const call = (deadlineMs = 1_000) =>
    network.control(client, ADDRESS, deadlineMs).identify({ volume: 'v' } as never);

  it('travel encoded, and bring replies and errors with code and details', async () => {
    listen({ identify: identify('d') });
    expect(await call()).toMatchObject({ daemonId: 'd' });
    network.unlisten(ADDRESS);
    listen({
      identify: async () => {
        throw new StorageError('STALE_EPOCH', 'old', { epoch: 7 });
      },
    });
    await expect(call()).rejects.toMatchObject({ code: 'STALE_EPOCH', details: { epoch: 7 } });
  });

  it('fail at their deadline and may still happen, when the cut is healed', async () => {
    let calls = 0;
    const counted = async () => {
      calls += 1;
      return await identify('d')();
    };
    listen({ identify: counted });
    there().cut();
    await expect(call()).rejects.toMatchObject({ code: 'DEADLINE' });
    expect(calls).toBe(0);
    there().heal();
    await world.idle();
    expect(calls).toBe(1);
    back().cut();
    await expect(call()).rejects.toMatchObject({ code: 'DEADLINE' });
    expect(calls).toBe(2);
  });

  it('scenario 31: a request may arrive a second time, its reply goes nowhere', async () => {
    let calls = 0;
    const counted = async () => {
      calls += 1;
      return await identify(`d${calls}`)();
    };
    listen({ identify: counted });
    there().quality.duplicateRate = 1;
    expect(await call()).toMatchObject({ daemonId: 'd1' });
    await world.idle();
    expect(calls).toBe(2);
  });

  it('fail when the process dies, are refused without one, and end with their client', async () => {
    listen({ identify: () => new Promise(() => undefined) });
    const running = call();
    world.scheduler.after(5, () => server.die('kill'));
    await expect(running).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await expect(call()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    const control = network.control(client, ADDRESS);
    const open = control.identify({ volume: 'v' } as never);
    control.close();
    await expect(open).rejects.toMatchObject({ code: 'CLOSED' });
  });
});
