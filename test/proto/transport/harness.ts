/** Both ends of the transport in one process, and messages that know what happened to them. */
import { pino } from 'pino';
import { SystemClock } from '../../../common/clock.js';
import { StorageError } from '../../../common/errors.js';
import {
  type IncomingMessage,
  MESSAGE_HEADROOM,
  type MessageStream,
  type MessageStreamHandlers,
  type OutgoingMessage,
} from '../../../proto/message-stream.js';
import {
  type ConnectOptions,
  connectIo,
  type ListenOptions,
  listenTransport,
  type TransportListener,
} from '../../../proto/transport.js';

export const clock = new SystemClock();
export const log = pino({ level: 'silent' });

/** A message of these bytes; counts its `done()` calls. */
export class TestMessage implements OutgoingMessage {
  readonly head: Buffer;
  readonly tail: readonly Buffer[];
  readonly lengthBytes: number;
  doneCount = 0;

  constructor(body: Buffer, tail: readonly Buffer[] = []) {
    this.head = Buffer.concat([Buffer.alloc(MESSAGE_HEADROOM), body]);
    this.tail = tail;
    this.lengthBytes = body.length + tail.reduce((sum, piece) => sum + piece.length, 0);
  }

  done(): void {
    this.doneCount += 1;
  }
}

/** Memory that counts what is out. */
export class TestMemory {
  usedBytes = 0;
  refuse = false;

  readonly acquire = (lengthBytes: number) => {
    if (this.refuse) throw new StorageError('OVERLOADED', 'test pool is full');
    this.usedBytes += lengthBytes;
    let held = true;
    return {
      bytes: Buffer.alloc(lengthBytes),
      release: () => {
        if (!held) throw new Error('released twice');
        held = false;
        this.usedBytes -= lengthBytes;
      },
    };
  };
}

/** Handlers that record, and can be awaited. */
export class Recorder implements MessageStreamHandlers {
  readonly messages: Buffer[] = [];
  readonly aligned: boolean[] = [];
  closes: Array<StorageError | undefined> = [];
  drains = 0;
  receivedBytes = 0;
  keep = true;
  onEach: (message: IncomingMessage) => void = () => undefined;
  #wakes: Array<() => void> = [];

  onMessage(message: IncomingMessage): void {
    if (this.closes.length > 0) throw new Error('message after close');
    this.receivedBytes += message.bytes.length;
    if (this.keep) {
      this.messages.push(Buffer.from(message.bytes));
      this.aligned.push(message.aligned);
    }
    this.onEach(message);
    this.#wake();
  }

  onDrain(): void {
    this.drains += 1;
    this.#wake();
  }

  onClose(error: StorageError | undefined): void {
    this.closes.push(error);
    this.#wake();
  }

  /** Resolves when the condition holds; checked after each event. */
  async until(condition: (recorder: this) => boolean): Promise<void> {
    while (!condition(this)) await new Promise<void>((resolve) => this.#wakes.push(resolve));
  }

  async closed(): Promise<StorageError | undefined> {
    await this.until((recorder) => recorder.closes.length > 0);
    return this.closes[0];
  }

  #wake(): void {
    for (const wake of this.#wakes.splice(0)) wake();
  }
}

export interface ServerSide {
  readonly listener: TransportListener;
  readonly memory: TestMemory;
  readonly streams: MessageStream[];
  readonly recorders: Recorder[];
  /** the stream with this index, once it was opened */
  stream(index: number): Promise<{ stream: MessageStream; recorder: Recorder }>;
}

const cleanups: Array<() => Promise<void> | void> = [];

/** Runs after the test, last one first. */
export function later(cleanup: () => Promise<void> | void): void {
  cleanups.push(cleanup);
}

export async function cleanUp(): Promise<void> {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
}

export async function startServer(
  options: Partial<ListenOptions> & { prepare?: (recorder: Recorder) => void } = {},
): Promise<ServerSide> {
  const memory = new TestMemory();
  const streams: MessageStream[] = [];
  const recorders: Recorder[] = [];
  const wakes: Array<() => void> = [];
  const listener = await listenTransport({
    address: '127.0.0.1:0',
    acquire: memory.acquire,
    services: [],
    log,
    clock,
    onIoStream: (stream) => {
      const recorder = new Recorder();
      options.prepare?.(recorder);
      streams.push(stream);
      recorders.push(recorder);
      for (const wake of wakes.splice(0)) wake();
      return recorder;
    },
    ...options,
  });
  later(() => listener.close());
  return {
    listener,
    memory,
    streams,
    recorders,
    stream: async (index) => {
      while (streams.length <= index) await new Promise<void>((resolve) => wakes.push(resolve));
      return {
        stream: streams[index] as MessageStream,
        recorder: recorders[index] as Recorder,
      };
    },
  };
}

export async function connectClient(
  address: string,
  options: Partial<ConnectOptions> = {},
): Promise<{ stream: MessageStream; recorder: Recorder; memory: TestMemory }> {
  const recorder = new Recorder();
  const memory = new TestMemory();
  const stream = await connectIo({
    address,
    acquire: memory.acquire,
    handlers: recorder,
    clock,
    ...options,
  });
  later(() => stream.close(new StorageError('ABORTED', 'test is over')));
  return { stream, recorder, memory };
}

/** Bytes that differ at every place, so that a shift shows. */
export function pattern(lengthBytes: number, seed = 1): Buffer {
  const bytes = Buffer.allocUnsafe(lengthBytes);
  let state = seed >>> 0 || 1;
  for (let at = 0; at < lengthBytes; at++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[at] = state >>> 24;
  }
  return bytes;
}
