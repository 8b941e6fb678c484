import net, { type AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { StorageError } from '../../../common/errors.js';
import type { IncomingMessage } from '../../../proto/message-stream.js';
import {
  FRAME,
  frame,
  PREFACE,
  SETTING,
  settingsFrame,
  windowUpdateFrame,
} from '../../../proto/transport/frame.js';
import {
  cleanUp,
  clock,
  connectClient,
  later,
  pattern,
  startServer,
  TestMessage,
} from './harness.js';
import { headers, MARK, RawPeer } from './raw-peer.js';

const MIB = 1024 * 1024;

afterEach(cleanUp);

/** A server whose other end the test plays. */
async function rawServer(settings: Buffer): Promise<{ address: string; peer: Promise<RawPeer> }> {
  let accepted = (_peer: RawPeer): void => undefined;
  const peer = new Promise<RawPeer>((resolve) => {
    accepted = resolve;
  });
  const server = net.createServer((socket) => {
    socket.write(settings);
    accepted(new RawPeer(socket, PREFACE.length));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  later(() => {
    server.close();
  });
  return { address: `127.0.0.1:${(server.address() as AddressInfo).port}`, peer };
}

const dataBytes = (peer: RawPeer): number =>
  peer.of(FRAME.DATA).reduce((sum, seen) => sum + seen.payload.length, 0);

describe('flow control of what we send', () => {
  it('frames are no larger than the peer allows, and stop at its window', async () => {
    const { address, peer: accepted } = await rawServer(settingsFrame([]));
    const client = await connectClient(address);
    const message = new TestMessage(pattern(200_000));
    client.stream.send(message);
    const peer = await accepted;
    await peer.until(() => dataBytes(peer) === 65535);
    expect(Math.max(...peer.of(FRAME.DATA).map((seen) => seen.payload.length))).toBe(16384);
    expect(message.doneCount).toBe(0);
    expect(client.stream.queuedBytes).toBe(200_000);
    // The stream's window alone does not help, the connection has one of its own.
    peer.write(windowUpdateFrame(1, 200_000));
    peer.write(windowUpdateFrame(0, 10));
    await peer.until(() => dataBytes(peer) === 65545);
    peer.write(windowUpdateFrame(0, 1_000_000));
    await peer.until(() => dataBytes(peer) === 200_005);
    const whole = Buffer.concat(peer.of(FRAME.DATA).map((seen) => seen.payload));
    expect(whole.subarray(5).equals(pattern(200_000))).toBe(true);
    peer.socket.destroy();
    expect(await client.recorder.closed()).toMatchObject({ code: 'UNAVAILABLE' });
    expect(message.doneCount).toBe(1);
  });

  it('a smaller initial window that comes late makes the window negative, not wrong', async () => {
    const { address, peer: accepted } = await rawServer(settingsFrame([]));
    const client = await connectClient(address);
    client.stream.send(new TestMessage(pattern(60_000)));
    const peer = await accepted;
    await peer.until(() => dataBytes(peer) === 60_005);
    peer.write(settingsFrame([[SETTING.INITIAL_WINDOW_SIZE, 1000]]));
    peer.write(windowUpdateFrame(0, MIB));
    await peer.until(() => peer.of(FRAME.SETTINGS).length >= 3);
    client.stream.send(new TestMessage(pattern(5000)));
    peer.write(frame(FRAME.PING, Buffer.alloc(8)));
    await peer.until(() => peer.of(FRAME.PING).length === 1);
    expect(dataBytes(peer)).toBe(60_005);
    // -59005 now; 10 bytes of room after this.
    peer.write(windowUpdateFrame(1, 59_015));
    await peer.until(() => dataBytes(peer) === 60_015);
    peer.write(settingsFrame([[SETTING.INITIAL_WINDOW_SIZE, 100_000]]));
    await peer.until(() => dataBytes(peer) === 65_010);
  });

  it('a message cut by the window is done once the socket has it, also on error', async () => {
    const { address, peer: accepted } = await rawServer(Buffer.concat([MARK]));
    const client = await connectClient(address);
    const begun = new TestMessage(pattern(100_000));
    const waiting = new TestMessage(pattern(100));
    client.stream.send(begun);
    client.stream.send(waiting);
    const peer = await accepted;
    await peer.until(() => dataBytes(peer) === 65535);
    client.stream.close(new StorageError('ABORTED', 'enough'));
    expect(waiting.doneCount).toBe(1);
    const trailers = await peer.trailers();
    expect(trailers.get('aurochs-code')).toBe('ABORTED');
    expect(await client.recorder.closed()).toMatchObject({ code: 'ABORTED' });
    peer.socket.destroy();
    await new Promise((resolve) => setImmediate(resolve));
    const late = new TestMessage(pattern(10));
    expect(client.stream.send(late)).toBe(true);
    expect([begun.doneCount, waiting.doneCount, late.doneCount]).toEqual([1, 1, 1]);
    expect(client.stream.queuedBytes).toBe(0);
  });

  it('above the high mark send says false; onDrain comes once when there is room', async () => {
    const { address, peer: accepted } = await rawServer(MARK);
    const client = await connectClient(address);
    const messages = Array.from({ length: 10 }, () => new TestMessage(pattern(MIB)));
    const answers = messages.map((message) => client.stream.send(message));
    expect(answers).toEqual([...Array(8).fill(true), false, false]);
    const peer = await accepted;
    peer.write(windowUpdateFrame(1, 32 * MIB), windowUpdateFrame(0, 32 * MIB));
    await client.recorder.until((r) => r.drains === 1);
    expect(client.stream.queuedBytes).toBeLessThanOrEqual(4 * MIB);
    await peer.until(() => dataBytes(peer) === 10 * (MIB + 5));
  });

  it('sends of one turn leave in one write', async () => {
    const server = await startServer();
    const client = await connectClient(server.listener.address);
    const { recorder } = await server.stream(0);
    for (let index = 0; index < 50; index++) client.stream.send(new TestMessage(pattern(10)));
    expect(client.stream.queuedBytes).toBe(500);
    await recorder.until((r) => r.messages.length === 50);
    expect(client.stream.queuedBytes).toBe(0);
  });
});

describe('flow control of what we receive', () => {
  it('credit comes back only for consumed messages, so a slow reader stops its peer', async () => {
    const kept: IncomingMessage[] = [];
    const server = await startServer({
      prepare: (recorder) => {
        recorder.keep = false;
        recorder.onEach = (message) => {
          message.retain();
          kept.push(message);
        };
      },
    });
    const client = await connectClient(server.listener.address);
    const messages = Array.from({ length: 40 }, () => new TestMessage(pattern(MIB)));
    for (const message of messages) client.stream.send(message);
    const { recorder } = await server.stream(0);
    // 16 MiB window: 15 whole messages and a part of the next one.
    await recorder.until(() => kept.length === 15);
    await new Promise<void>((resolve) => clock.after(50, resolve));
    expect(kept.length).toBe(15);
    expect(server.memory.usedBytes).toBeLessThanOrEqual(16 * MIB);
    expect(client.stream.queuedBytes).toBeGreaterThan(20 * MIB);
    for (let done = 0; done < 40; done++) {
      await recorder.until(() => kept.length > 0);
      kept.shift()?.release();
    }
    expect(recorder.receivedBytes).toBe(40 * MIB);
    expect(server.memory.usedBytes).toBe(0);
    for (const message of messages) expect(message.doneCount).toBe(1);
  });

  it('paused: nothing is delivered, our own sending goes on, resume loses nothing', async () => {
    const server = await startServer();
    const client = await connectClient(server.listener.address);
    client.stream.send(new TestMessage(pattern(10, 1)));
    const { stream, recorder } = await server.stream(0);
    await recorder.until((r) => r.messages.length === 1);
    stream.pause();
    for (let index = 0; index < 30; index++) client.stream.send(new TestMessage(pattern(MIB)));
    // 40 MiB towards the client: needs WINDOW_UPDATE frames from it while we are paused.
    client.recorder.keep = false;
    for (let index = 0; index < 40; index++) stream.send(new TestMessage(pattern(MIB)));
    await client.recorder.until((r) => r.receivedBytes === 40 * MIB);
    expect(recorder.messages).toHaveLength(1);
    expect(server.memory.usedBytes).toBeLessThanOrEqual(16 * MIB);
    stream.resume();
    await recorder.until((r) => r.messages.length === 31);
    expect(recorder.messages[30]?.equals(pattern(MIB))).toBe(true);
    expect(server.memory.usedBytes).toBe(0);
  });

  it('an end in order while paused comes after the messages before it', async () => {
    const server = await startServer();
    const client = await connectClient(server.listener.address);
    const { stream, recorder } = await server.stream(0);
    stream.pause();
    client.stream.send(new TestMessage(pattern(10)));
    client.stream.close();
    await new Promise<void>((resolve) => clock.after(20, resolve));
    expect([recorder.messages.length, recorder.closes.length]).toEqual([0, 0]);
    stream.resume();
    expect(await recorder.closed()).toBeUndefined();
    expect(recorder.messages).toHaveLength(1);
    expect(await client.recorder.closed()).toBeUndefined();
  });

  it('messages in pieces land in aligned memory; without pool memory on the heap', async () => {
    const server = await startServer();
    const client = await connectClient(server.listener.address);
    const { recorder } = await server.stream(0);
    client.stream.send(new TestMessage(pattern(MIB)));
    await recorder.until((r) => r.messages.length === 1);
    server.memory.refuse = true;
    client.stream.send(new TestMessage(pattern(MIB, 2)));
    await recorder.until((r) => r.messages.length === 2);
    expect(recorder.aligned).toEqual([true, false]);
    expect(recorder.messages[1]?.equals(pattern(MIB, 2))).toBe(true);
  });
});

describe('ends', () => {
  it('scenario 30: a connection lost inside a message delivers nothing of it', async () => {
    const server = await startServer();
    const peer = await RawPeer.open(server.listener.address);
    const { recorder } = await server.stream(0);
    const prefix = Buffer.from('0000100000000000010000010000', 'hex');
    prefix[0] = 1;
    peer.write(prefix, Buffer.alloc(30_000));
    peer.socket.destroy();
    const error = await recorder.closed();
    expect(error).toMatchObject({ code: 'UNAVAILABLE' });
    expect(recorder.messages).toHaveLength(0);
    while (server.memory.usedBytes > 0) await new Promise<void>((r) => clock.after(1, r));
    expect(server.listener.connections).toBe(0);
    expect(recorder.closes).toHaveLength(1);
  });

  it('close sends what is queued first; sends after it are dropped and done', async () => {
    const server = await startServer();
    const client = await connectClient(server.listener.address);
    for (let index = 0; index < 12; index++) client.stream.send(new TestMessage(pattern(MIB)));
    client.stream.close();
    const late = new TestMessage(pattern(10));
    client.stream.send(late);
    client.stream.close();
    const { recorder } = await server.stream(0);
    expect(await recorder.closed()).toBeUndefined();
    expect(recorder.messages).toHaveLength(12);
    expect(await client.recorder.closed()).toBeUndefined();
    expect(late.doneCount).toBe(1);
  });

  it('the server may end in order, too', async () => {
    const server = await startServer();
    const client = await connectClient(server.listener.address);
    const { stream, recorder } = await server.stream(0);
    stream.send(new TestMessage(pattern(100_000)));
    stream.close();
    expect(await client.recorder.closed()).toBeUndefined();
    expect(client.recorder.messages).toHaveLength(1);
    expect(await recorder.closed()).toBeUndefined();
  });

  it('an error thrown by the handler closes the stream with its code', async () => {
    const server = await startServer({
      prepare: (recorder) => {
        recorder.onEach = () => {
          throw new StorageError('CORRUPT_MESSAGE', 'cannot read this');
        };
      },
    });
    const client = await connectClient(server.listener.address);
    client.stream.send(new TestMessage(pattern(10)));
    expect(await client.recorder.closed()).toMatchObject({ code: 'CORRUPT_MESSAGE' });
    expect(await (await server.stream(0)).recorder.closed()).toMatchObject({
      code: 'CORRUPT_MESSAGE',
    });
  });

  it('a trailers-only refusal and an answer that is no gRPC are told apart', async () => {
    const settings = settingsFrame([]);
    const cases: Array<[Array<[string, string]>, string]> = [
      [
        [
          [':status', '200'],
          ['content-type', 'application/grpc'],
          ['grpc-status', '12'],
        ],
        'UNSUPPORTED',
      ],
      [[[':status', '503']], 'UNAVAILABLE'],
      [[[':status', '404']], 'PROTOCOL_ERROR'],
      [
        [
          [':status', '200'],
          ['content-type', 'application/grpc'],
        ],
        'PROTOCOL_ERROR',
      ],
    ];
    for (const [list, code] of cases) {
      const { address } = await rawServer(Buffer.concat([settings, headers(list, 1)]));
      const client = await connectClient(address).catch((error: unknown) => error);
      const error =
        client instanceof Error
          ? client
          : await (client as Awaited<ReturnType<typeof connectClient>>).recorder.closed();
      expect(error).toMatchObject({ code });
    }
  });

  it('connect: refused, silent and stranger peers end in time with a code', async () => {
    await expect(connectClient('127.0.0.1:1')).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await expect(connectClient('unix:/nonexistent/socket')).rejects.toMatchObject({
      code: 'UNAVAILABLE',
    });
    const silent = await rawServer(Buffer.alloc(0));
    await expect(connectClient(silent.address, { deadlineMs: 50 })).rejects.toMatchObject({
      code: 'DEADLINE',
    });
    const stranger = await rawServer(Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'));
    await expect(connectClient(stranger.address)).rejects.toMatchObject({
      code: 'PROTOCOL_ERROR',
    });
    await expect(connectClient('no port')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });
});
