/** The same messages over different transports, for comparison: plain sockets, stock grpc-js, our
 * endpoint. */
import net, { type AddressInfo } from 'node:net';
import {
  Client,
  credentials,
  Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
} from '@grpc/grpc-js';
import { pino } from 'pino';
import { SystemClock } from '../../../common/clock.js';
import { MESSAGE_HEADROOM, type OutgoingMessage } from '../../../proto/message-stream.js';
import { type AcquireMemory, connectIo, listenTransport } from '../../../proto/transport.js';

export type Mode = 'sockets' | 'endpoint' | 'grpc-batched' | 'grpc-per-write';
export type Send = (message: OutgoingMessage) => void;

/** Called per connection; returns what to do with each message that comes. */
export type Accept = (send: Send) => (message: Buffer) => void;

const IO = '/aurochs.v1.ReplicaData/Io';
const pass = (bytes: Buffer): Buffer => bytes;
const METHOD = {
  path: IO,
  requestStream: true,
  responseStream: true,
  requestSerialize: pass,
  requestDeserialize: pass,
  responseSerialize: pass,
  responseDeserialize: pass,
} as const;

function whole(message: OutgoingMessage): Buffer {
  const pieces = [message.head.subarray(MESSAGE_HEADROOM), ...message.tail];
  const bytes = pieces.length === 1 ? (pieces[0] as Buffer) : Buffer.concat(pieces);
  return bytes;
}

/** Messages behind a length of four bytes. */
function overSocket(socket: net.Socket, onMessage: (message: Buffer) => void): Send {
  let rest: Buffer = Buffer.alloc(0);
  let parts: Buffer[] = [];
  let need = 4;
  let have = 0;
  socket.setNoDelay(true);
  socket.on('data', (chunk) => {
    parts.push(chunk);
    have += chunk.length;
    if (have < need) return;
    rest = parts.length === 1 ? chunk : Buffer.concat(parts);
    let at = 0;
    need = 4;
    while (rest.length - at >= 4) {
      const length = rest.readUInt32LE(at);
      if (rest.length - at < 4 + length) {
        need = 4 + length;
        break;
      }
      onMessage(rest.subarray(at + 4, at + 4 + length));
      at += 4 + length;
    }
    parts = at === rest.length ? [] : [rest.subarray(at)];
    have = rest.length - at;
  });
  return (message) => {
    message.head.writeUInt32LE(message.lengthBytes, MESSAGE_HEADROOM - 4);
    const done = (): void => message.done();
    if (message.tail.length === 0) {
      socket.write(message.head.subarray(MESSAGE_HEADROOM - 4), done);
      return;
    }
    socket.cork();
    socket.write(message.head.subarray(MESSAGE_HEADROOM - 4));
    for (const [index, piece] of message.tail.entries()) {
      socket.write(piece, index === message.tail.length - 1 ? done : undefined);
    }
    socket.uncork();
  };
}

/** Reuses memory of one size, as a pool would. */
function pool(): AcquireMemory {
  const free = new Map<number, Buffer[]>();
  return (lengthBytes) => {
    const size = 2 ** Math.ceil(Math.log2(lengthBytes));
    const list = free.get(size) ?? [];
    free.set(size, list);
    const memory = list.pop() ?? Buffer.allocUnsafeSlow(size);
    return {
      bytes: memory.subarray(0, lengthBytes),
      release: () => {
        list.push(memory);
      },
    };
  };
}

export async function serve(mode: Mode, accept: Accept): Promise<number> {
  if (mode === 'sockets') {
    const server = net.createServer((socket) => {
      socket.on('error', () => undefined);
      let onMessage = (_message: Buffer): void => undefined;
      onMessage = accept(overSocket(socket, (message) => onMessage(message)));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return (server.address() as AddressInfo).port;
  }
  if (mode === 'endpoint') {
    const listener = await listenTransport({
      address: '127.0.0.1:0',
      acquire: pool(),
      services: [],
      log: pino({ level: 'silent' }),
      clock: new SystemClock(),
      onIoStream: (stream) => {
        const onMessage = accept((message) => stream.send(message));
        return {
          onMessage: (message) => onMessage(message.bytes),
          onDrain: () => undefined,
          onClose: () => undefined,
        };
      },
    });
    return Number(listener.address.split(':')[1]);
  }
  const server = new Server({ 'grpc.max_receive_message_length': -1 });
  server.addService(
    { Io: METHOD },
    {
      Io: (call: ServerDuplexStream<Buffer, Buffer>) => {
        const onMessage = accept((message) => {
          call.write(whole(message), () => message.done());
        });
        call.on('data', onMessage);
        call.on('error', () => undefined);
      },
    },
  );
  return new Promise((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) =>
      error === null ? resolve(port) : reject(error),
    );
  });
}

export async function connect(
  mode: Mode,
  port: number,
  onMessage: (message: Buffer) => void,
): Promise<Send> {
  if (mode === 'sockets') {
    const socket = net.connect(port, '127.0.0.1');
    await new Promise<void>((resolve) => socket.once('connect', () => resolve()));
    return overSocket(socket, onMessage);
  }
  if (mode === 'endpoint') {
    const stream = await connectIo({
      address: `127.0.0.1:${port}`,
      acquire: pool(),
      clock: new SystemClock(),
      handlers: {
        onMessage: (message) => onMessage(message.bytes),
        onDrain: () => undefined,
        onClose: (error) => {
          throw error ?? new Error('closed');
        },
      },
    });
    return (message) => stream.send(message);
  }
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure(), {
    'grpc.max_receive_message_length': -1,
    'grpc.use_local_subchannel_pool': 1,
  });
  const call = client.makeBidiStreamRequest(IO, pass, pass, new Metadata());
  call.on('data', onMessage);
  call.on('error', () => undefined);
  return (message) => {
    call.write(whole(message), () => message.done());
  };
}
