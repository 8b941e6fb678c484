import net from 'node:net';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { MESSAGE_BYTES_MAX } from '../../../proto/message-stream.js';
import {
  FLAG,
  FRAME,
  frame,
  H2_ERROR,
  PREFACE,
  rstStreamFrame,
  SETTING,
  settingsFrame,
  windowUpdateFrame,
} from '../../../proto/transport/frame.js';
import { encodeHeaders } from '../../../proto/transport/hpack.js';
import {
  cleanUp,
  clock,
  connectClient,
  pattern,
  type ServerSide,
  startServer,
  TestMessage,
} from './harness.js';
import { data, headers, MARK, RawPeer, REQUEST } from './raw-peer.js';

afterEach(cleanUp);

const EMPTY = Buffer.alloc(0);
const E = H2_ERROR;

/** An established client that must not notice what others do. */
async function bystander(server: ServerSide): Promise<() => Promise<void>> {
  const index = server.recorders.length;
  const client = await connectClient(server.listener.address);
  client.stream.send(new TestMessage(Buffer.from('first')));
  const { stream, recorder } = await server.stream(index);
  return async () => {
    const before = recorder.messages.length;
    client.stream.send(new TestMessage(Buffer.from('still here')));
    await recorder.until((r) => r.messages.length > before);
    stream.send(new TestMessage(Buffer.from('yes')));
    const answers = client.recorder.messages.length;
    await client.recorder.until((r) => r.messages.length > answers);
    expect(client.recorder.closes).toHaveLength(0);
  };
}

describe('client that breaks HTTP/2: GOAWAY, handlers told, others undisturbed', () => {
  const long = Buffer.alloc(17_000);
  const table: Array<[string, Buffer[], number]> = [
    ['DATA on stream 0', [frame(FRAME.DATA, EMPTY)], E.PROTOCOL_ERROR],
    ['HEADERS on stream 0', [headers(REQUEST, 0, 0)], E.PROTOCOL_ERROR],
    ['HEADERS on an even stream', [headers(REQUEST, 0, 2)], E.PROTOCOL_ERROR],
    ['headers inside the stream', [headers([['a', 'b']])], E.PROTOCOL_ERROR],
    ['PUSH_PROMISE', [frame(FRAME.PUSH_PROMISE, Buffer.alloc(4))], E.PROTOCOL_ERROR],
    ['CONTINUATION alone', [frame(FRAME.CONTINUATION, EMPTY)], E.PROTOCOL_ERROR],
    [
      'header block interrupted',
      [frame(FRAME.HEADERS, EMPTY, { streamId: 3 }), frame(FRAME.PING, Buffer.alloc(8))],
      E.PROTOCOL_ERROR,
    ],
    [
      'endless header block',
      [
        frame(FRAME.HEADERS, EMPTY, { streamId: 3 }),
        ...Array(20).fill(frame(FRAME.CONTINUATION, Buffer.alloc(10), { streamId: 3 })),
      ],
      E.ENHANCE_YOUR_CALM,
    ],
    [
      'header block that does not parse',
      [frame(FRAME.HEADERS, Buffer.of(0xff), { streamId: 3, flags: FLAG.END_HEADERS })],
      E.COMPRESSION_ERROR,
    ],
    ['PING of 7 bytes', [frame(FRAME.PING, Buffer.alloc(7))], E.FRAME_SIZE_ERROR],
    ['PING on a stream', [frame(FRAME.PING, Buffer.alloc(8), { streamId: 1 })], E.PROTOCOL_ERROR],
    ['SETTINGS of 5 bytes', [frame(FRAME.SETTINGS, Buffer.alloc(5))], E.FRAME_SIZE_ERROR],
    ['SETTINGS with 1000 entries', [frame(FRAME.SETTINGS, Buffer.alloc(6000))], E.FRAME_SIZE_ERROR],
    [
      'initial window of 2^31',
      [settingsFrame([[SETTING.INITIAL_WINDOW_SIZE, 2 ** 31]])],
      E.FLOW_CONTROL_ERROR,
    ],
    ['largest frame of 100', [settingsFrame([[SETTING.MAX_FRAME_SIZE, 100]])], E.PROTOCOL_ERROR],
    ['WINDOW_UPDATE of 0', [windowUpdateFrame(1, 0)], E.PROTOCOL_ERROR],
    [
      'WINDOW_UPDATE past 2^31-1',
      [windowUpdateFrame(0, 2 ** 31 - 1), windowUpdateFrame(0, 2 ** 31 - 1)],
      E.FLOW_CONTROL_ERROR,
    ],
    ['RST_STREAM of 3 bytes', [frame(FRAME.RST_STREAM, long.subarray(3, 6))], E.FRAME_SIZE_ERROR],
    ['frame of unknown type past 16 KiB', [frame(99, long)], E.FRAME_SIZE_ERROR],
    [
      'padding longer than the frame',
      [frame(FRAME.DATA, Buffer.of(9, 0, 0), { streamId: 1, flags: FLAG.PADDED })],
      E.PROTOCOL_ERROR,
    ],
    [
      'DATA frame past the announced size',
      [Buffer.from('400006000000000001', 'hex')],
      E.FRAME_SIZE_ERROR,
    ],
  ];
  it.each(table)('%s', async (_name, pieces, code) => {
    const server = await startServer();
    const check = await bystander(server);
    const peer = await RawPeer.open(server.listener.address);
    const { recorder } = await server.stream(1);
    peer.write(...pieces);
    expect(await peer.goaway()).toBe(code);
    expect(await recorder.closed()).toMatchObject({ code: 'PROTOCOL_ERROR' });
    peer.socket.end();
    await peer.untilClosed();
    await check();
    expect(server.memory.usedBytes).toBe(0);
  });

  it('DATA or anything else before the request', async () => {
    const server = await startServer();
    for (const piece of [data(Buffer.alloc(1)), frame(FRAME.DATA, EMPTY, { streamId: 1 })]) {
      const peer = await RawPeer.connect(server.listener.address);
      peer.write(PREFACE, MARK, piece);
      expect(await peer.goaway()).toBe(E.PROTOCOL_ERROR);
    }
    expect(server.streams).toHaveLength(0);
  });

  it('more data than the window: FLOW_CONTROL_ERROR, nothing more is read', async () => {
    const server = await startServer({
      prepare: (recorder) => {
        recorder.keep = false;
        recorder.onEach = (message) => message.retain();
      },
    });
    const peer = await RawPeer.open(server.listener.address);
    const { recorder } = await server.stream(0);
    const message = data(pattern(1024 * 1024));
    for (let index = 0; index < 17; index++) peer.socket.write(message);
    expect(await peer.goaway()).toBe(E.FLOW_CONTROL_ERROR);
    expect(await recorder.closed()).toMatchObject({ code: 'PROTOCOL_ERROR' });
    expect(recorder.receivedBytes).toBeLessThanOrEqual(16 * 1024 * 1024);
  });
});

describe('client that breaks gRPC: trailers with a status', () => {
  const prefix = (compressed: number, length: number): Buffer => {
    const bytes = Buffer.alloc(5);
    bytes[0] = compressed;
    bytes.writeUInt32BE(length, 1);
    return frame(FRAME.DATA, bytes, { streamId: 1 });
  };

  it('a declared length past the limit ends the stream, no memory taken', async () => {
    const server = await startServer();
    for (const length of [MESSAGE_BYTES_MAX + 1, 2 ** 32 - 1]) {
      const index = server.streams.length;
      const peer = await RawPeer.open(server.listener.address);
      const { recorder } = await server.stream(index);
      peer.write(prefix(0, length));
      const trailers = await peer.trailers();
      expect(trailers.get('grpc-status')).toBe('8');
      expect(trailers.get('aurochs-code')).toBe('LIMIT_EXCEEDED');
      expect(await recorder.closed()).toMatchObject({ code: 'LIMIT_EXCEEDED' });
      expect(server.memory.usedBytes).toBe(0);
    }
  });

  it('a compressed message is refused: no bomb goes off', async () => {
    const server = await startServer();
    const peer = await RawPeer.open(server.listener.address);
    peer.write(prefix(1, 10));
    expect((await peer.trailers()).get('aurochs-code')).toBe('UNSUPPORTED');
  });

  it('a stream that ends inside a message', async () => {
    const server = await startServer();
    const peer = await RawPeer.open(server.listener.address);
    const { recorder } = await server.stream(0);
    peer.write(prefix(0, 10), frame(FRAME.DATA, EMPTY, { streamId: 1, flags: FLAG.END_STREAM }));
    expect(await recorder.closed()).toMatchObject({ code: 'PROTOCOL_ERROR' });
  });

  it('another path, another method', async () => {
    const server = await startServer();
    const cases: Array<[number, string, string]> = [
      [2, '/aurochs.v1.ReplicaData/Other', 'UNSUPPORTED'],
      [0, 'GET', 'PROTOCOL_ERROR'],
    ];
    for (const [place, value, code] of cases) {
      const list = REQUEST.map(([name, old], at) => [name, at === place ? value : old] as const);
      const peer = await RawPeer.connect(server.listener.address);
      peer.write(PREFACE, MARK, headers(list));
      expect((await peer.trailers()).get('aurochs-code')).toBe(code);
    }
    expect(server.streams).toHaveLength(0);
  });

  it('padded frames, tiny frames, frames that cut the header: all understood', async () => {
    const server = await startServer();
    const peer = await RawPeer.open(server.listener.address);
    const { recorder } = await server.stream(0);
    const body = pattern(1000);
    const message = data(body).subarray(9);
    for (let at = 0; at < message.length; at += 3) {
      const piece = message.subarray(at, at + 3);
      const padded = Buffer.concat([Buffer.of(4), piece, Buffer.alloc(4)]);
      peer.write(frame(FRAME.DATA, padded, { streamId: 1, flags: FLAG.PADDED }));
    }
    await recorder.until((r) => r.messages.length === 1);
    expect(recorder.messages[0]?.equals(body)).toBe(true);
  });

  it('bytes one by one: the same', async () => {
    const server = await startServer();
    const peer = await RawPeer.connect(server.listener.address);
    peer.socket.setNoDelay(true);
    const priority = Buffer.concat([Buffer.of(2), Buffer.alloc(5), encodeHeaders(REQUEST)]);
    const padded = Buffer.concat([priority, Buffer.alloc(2)]);
    const flags = FLAG.END_HEADERS | FLAG.PADDED | FLAG.PRIORITY;
    const request = frame(FRAME.HEADERS, padded, { streamId: 1, flags });
    const bytes = Buffer.concat([PREFACE, MARK, request, data(pattern(20))]);
    for (const byte of bytes) {
      await new Promise<void>((resolve) => peer.socket.write(Buffer.of(byte), () => resolve()));
    }
    const { recorder } = await server.stream(0);
    await recorder.until((r) => r.messages.length === 1);
    expect(recorder.messages[0]?.equals(pattern(20))).toBe(true);
  });

  it('CONTINUATION frames; a second stream is refused, the first goes on', async () => {
    const server = await startServer();
    const peer = await RawPeer.connect(server.listener.address);
    const block = encodeHeaders(REQUEST);
    const [one, two] = [block.subarray(0, 30), block.subarray(30)];
    peer.write(
      PREFACE,
      MARK,
      frame(FRAME.HEADERS, one, { streamId: 1 }),
      frame(FRAME.CONTINUATION, two, { streamId: 1, flags: FLAG.END_HEADERS }),
      headers(REQUEST, 0, 3),
      data(pattern(5)),
    );
    const { recorder } = await server.stream(0);
    await recorder.until((r) => r.messages.length === 1);
    await peer.until(() => peer.of(FRAME.RST_STREAM).length === 1);
    expect(peer.of(FRAME.RST_STREAM)[0]).toMatchObject({
      streamId: 3,
      payload: Buffer.of(0, 0, 0, E.REFUSED_STREAM),
    });
    expect(server.streams).toHaveLength(1);
  });
});

describe('floods are bounded', () => {
  const floods: Array<[string, Buffer]> = [
    ['PING', frame(FRAME.PING, Buffer.alloc(8))],
    ['SETTINGS', settingsFrame([])],
    ['rapid reset', Buffer.concat([headers(REQUEST, 0, 3), rstStreamFrame(3, E.CANCEL)])],
    ['empty DATA', frame(FRAME.DATA, EMPTY, { streamId: 1 })],
    ['PRIORITY', frame(FRAME.PRIORITY, Buffer.alloc(5), { streamId: 3 })],
    ['unknown frames', frame(77, Buffer.alloc(1))],
  ];
  it.each(floods)('%s', async (_name, one) => {
    const server = await startServer();
    const check = await bystander(server);
    const peer = await RawPeer.open(server.listener.address);
    peer.write(...Array(12_000).fill(one));
    expect(await peer.goaway()).toBe(E.ENHANCE_YOUR_CALM);
    await check();
  });

  it('a peer that makes us answer and does not read is cut off', async () => {
    const server = await startServer();
    const { stream, recorder } = await (async () => {
      const peer = await RawPeer.open(server.listener.address);
      const opened = await server.stream(0);
      peer.socket.pause();
      peer.write(windowUpdateFrame(0, 2 ** 30), windowUpdateFrame(1, 2 ** 30));
      for (let index = 0; index < 7; index++) opened.stream.send(new TestMessage(pattern(1 << 20)));
      peer.write(...Array(1500).fill(frame(FRAME.PING, Buffer.alloc(8))));
      return opened;
    })();
    expect(await recorder.closed()).toMatchObject({ code: 'PROTOCOL_ERROR' });
    expect(stream.send(new TestMessage(EMPTY))).toBe(true);
  });

  it('scenario 80: half-open connections are capped, others work on', async () => {
    const limits = { connectionsMax: 20, handshakesMax: 5, handshakeMs: 100 };
    const server = await startServer({ limits });
    const check = await bystander(server);
    const sockets = Array.from({ length: 50 }, () => {
      const socket = net.connect(Number(server.listener.address.split(':')[1]), '127.0.0.1');
      socket.on('error', () => undefined);
      return socket;
    });
    const closed = sockets.map(
      (socket) => new Promise<void>((resolve) => socket.once('close', () => resolve())),
    );
    for (const socket of sockets.slice(0, 10)) socket.write(PREFACE.subarray(0, 10));
    await check();
    expect(server.listener.connections).toBeLessThanOrEqual(6);
    // All are closed: most at once, the last five at the deadline.
    await Promise.all(closed);
    await check();
    const next = await connectClient(server.listener.address);
    expect(next.stream.queuedBytes).toBe(0);
  });

  it('a marked connection that never asks for the stream is closed at the deadline', async () => {
    const server = await startServer({ limits: { handshakeMs: 50 } });
    const peer = await RawPeer.connect(server.listener.address);
    peer.write(PREFACE, MARK);
    await peer.untilClosed();
    expect(server.streams).toHaveLength(0);
  });

  it('a total of connections is kept', async () => {
    const server = await startServer({ limits: { connectionsMax: 3 } });
    const clients = [];
    for (let index = 0; index < 3; index++) {
      clients.push(await connectClient(server.listener.address));
    }
    await expect(connectClient(server.listener.address)).rejects.toMatchObject({
      code: 'UNAVAILABLE',
    });
    clients[0]?.stream.close();
    await clients[0]?.recorder.closed();
    while (server.listener.connections > 2) await new Promise<void>((r) => clock.after(1, r));
    await connectClient(server.listener.address);
  });
});

describe('fuzz', () => {
  it('random bytes after the preface never disturb others, hang, or leave memory', async () => {
    const server = await startServer();
    const check = await bystander(server);
    const types = fc.constantFrom(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 77);
    const anyFrame = fc
      .record({
        type: types,
        flags: fc.integer({ min: 0, max: 255 }),
        streamId: fc.constantFrom(0, 1, 1, 1, 3),
        payload: fc.uint8Array({ maxLength: 40 }),
      })
      .map((f) => frame(f.type, Buffer.from(f.payload), f));
    const noise = fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes));
    const script = fc.array(fc.oneof(anyFrame, anyFrame, noise), { minLength: 1, maxLength: 8 });
    await fc.assert(
      fc.asyncProperty(script, fc.boolean(), async (pieces, open) => {
        const peer = await RawPeer.connect(server.listener.address);
        peer.write(PREFACE, MARK, ...(open ? [headers(REQUEST)] : []), ...pieces);
        peer.socket.end();
        await peer.untilClosed();
      }),
      { numRuns: 500 },
    );
    await check();
    for (const recorder of server.recorders.slice(1)) {
      expect((await recorder.closed()) ?? 'in order').toBeDefined();
      expect(recorder.closes).toHaveLength(1);
    }
    expect(server.memory.usedBytes).toBe(0);
  });
});

describe('listener', () => {
  it('close ends streams with CLOSED and refuses new connections', async () => {
    const server = await startServer();
    const client = await connectClient(server.listener.address);
    await server.stream(0);
    await server.listener.close();
    expect(await client.recorder.closed()).toMatchObject({ code: 'CLOSED' });
    expect(server.recorders[0]?.closes[0]).toMatchObject({ code: 'CLOSED' });
    await expect(connectClient(server.listener.address)).rejects.toMatchObject({
      code: 'UNAVAILABLE',
    });
    expect(server.listener.connections).toBe(0);
  });

  it('an address in use is UNAVAILABLE with its errno', async () => {
    const server = await startServer();
    await expect(startServer({ address: server.listener.address })).rejects.toMatchObject({
      code: 'UNAVAILABLE',
      details: { errno: 'EADDRINUSE' },
    });
  });
});
