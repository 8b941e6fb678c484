/** A MessageStream whose other end is the test: what the replica sends is decoded and kept. */
import type { StorageError } from '../../../common/errors.js';
import { crc32cBlocks } from '../../../native/index.js';
import {
  decodeIoReplyBatch,
  encodeIoHello,
  IoBatchEncoder,
  type IoHello,
  type IoHelloReply,
} from '../../../proto/io-codec.js';
import {
  type IncomingMessage,
  MESSAGE_HEADROOM,
  type MessageStream,
  type MessageStreamHandlers,
  type OutgoingMessage,
} from '../../../proto/message-stream.js';
import { codeOfStatus } from '../../../proto/status.js';

export interface Reply {
  readonly id: number;
  /** 'OK' or the error code */
  readonly code: string;
  readonly badBlock: number;
  readonly checksums: Buffer;
  readonly payload: Buffer;
  readonly detail: string;
}

/** What arrives at the replica; counts how often it is held. */
export class FakeMessage implements IncomingMessage {
  held = 0;

  constructor(
    readonly bytes: Buffer,
    readonly aligned = false,
  ) {}

  retain(): void {
    this.held += 1;
  }

  release(): void {
    this.held -= 1;
  }
}

export function bytesOf(message: OutgoingMessage): Buffer {
  const bytes = Buffer.concat([message.head.subarray(MESSAGE_HEADROOM), ...message.tail]);
  message.done();
  return bytes;
}

export class FakeStream implements MessageStream {
  readonly peer = 'test';
  queuedBytes = 0;
  /** what `send` answers */
  accepts = true;
  /** the replica's messages stay unsent, their memory held, until `deliver` */
  holdsMessages = false;
  paused = false;
  closed: { error: StorageError | undefined } | undefined;
  hello: IoHelloReply | undefined;
  readonly replies: Reply[] = [];
  /** replies per message */
  readonly batches: number[] = [];
  handlers: MessageStreamHandlers | undefined;
  readonly #held: OutgoingMessage[] = [];
  #wake: (() => void) | undefined;
  readonly #encoder = new IoBatchEncoder({ checksumBlocks: crc32cBlocks });

  send(message: OutgoingMessage): boolean {
    if (this.closed !== undefined) {
      message.done();
      return true;
    }
    if (this.holdsMessages) this.#held.push(message);
    else this.#take(message);
    return this.accepts;
  }

  deliver(): void {
    for (const message of this.#held.splice(0)) this.#take(message);
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
  }

  close(error?: StorageError): void {
    if (this.closed !== undefined) return;
    this.closed = { error };
    for (const message of this.#held.splice(0)) message.done();
    this.#wake?.();
  }

  /** Resolves when `count` replies are there, or the stream is closed. */
  async until(count: number): Promise<void> {
    while (this.replies.length < count && this.closed === undefined) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  replyTo(id: number): Reply | undefined {
    return this.replies.find((reply) => reply.id === id);
  }

  say(hello: IoHello): void {
    this.give(bytesOf(encodeIoHello(hello)));
  }

  /** One batch with what `build` adds. Returns the message as it arrived. */
  batch(build: (encoder: IoBatchEncoder) => void, ackedThrough = 0, aligned = false): FakeMessage {
    build(this.#encoder);
    return this.give(bytesOf(this.#encoder.finish(ackedThrough, 1)), aligned);
  }

  give(bytes: Buffer, aligned = false): FakeMessage {
    const message = new FakeMessage(bytes, aligned);
    this.handlers?.onMessage(message);
    return message;
  }

  #take(message: OutgoingMessage): void {
    let count = 0;
    decodeIoReplyBatch(bytesOf(message), {
      onHello: (hello) => {
        this.hello = hello;
      },
      onReply: (view) => {
        count += 1;
        this.replies.push({
          id: view.id,
          code: view.status === 0 ? 'OK' : (codeOfStatus(view.status) ?? `status ${view.status}`),
          badBlock: view.badBlock,
          checksums: Buffer.from(view.bytes.subarray(view.checksumsStart, view.checksumsEnd)),
          payload: Buffer.from(view.bytes.subarray(view.payloadStart, view.payloadEnd)),
          detail: view.detail,
        });
      },
    });
    if (count > 0) this.batches.push(count);
    this.#wake?.();
  }
}
