/** The data stream of an ordinary gRPC client, served by grpc-js: correct, not fast (each message
 * is copied once more). */
import type { ServerDuplexStream } from '@grpc/grpc-js';
import { StorageError } from '../../common/errors.js';
import { MIB } from '../../common/units.js';
import { grpcError } from '../control/service.js';
import {
  MESSAGE_HEADROOM,
  type MessageStream,
  type MessageStreamHandlers,
  type OutgoingMessage,
} from '../message-stream.js';
import { ReceivedMessage } from './message-assembler.js';
import { QUEUE_HIGH_BYTES, QUEUE_LOW_BYTES } from './send-queue.js';

/** Reading stops while the handlers retain more than this. */
const RETAINED_BYTES_MAX = 16 * MIB;

export class StockStream implements MessageStream {
  readonly peer: string;
  readonly #call: ServerDuplexStream<Buffer, Buffer>;
  #handlers: MessageStreamHandlers | undefined;
  #queuedBytes = 0;
  #retainedBytes = 0;
  #draining = false;
  #paused = false;
  #closed = false;

  constructor(call: ServerDuplexStream<Buffer, Buffer>) {
    this.#call = call;
    this.peer = call.getPeer();
  }

  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /** Starts reading. */
  attach(handlers: MessageStreamHandlers): void {
    this.#handlers = handlers;
    const call = this.#call;
    call.on('data', (bytes: Buffer) => this.#onMessage(bytes));
    // A cancelled call ends its readable side first, and tells in a later event that it was
    // cancelled.
    const onCancelled = (): void => {
      const error = new StorageError('ABORTED', `${this.peer} cancelled the stream`);
      this.#finish(error, () => undefined);
    };
    call.on('end', () => {
      setImmediate(() => {
        if (call.cancelled) onCancelled();
        else this.#finish(undefined, () => call.end());
      });
    });
    call.on('cancelled', onCancelled);
    call.on('error', (cause: Error) =>
      this.#finish(new StorageError('UNAVAILABLE', cause.message, {}, { cause }), () => undefined),
    );
  }

  send(message: OutgoingMessage): boolean {
    if (this.#closed) {
      message.done();
      return true;
    }
    const pieces = [message.head.subarray(MESSAGE_HEADROOM), ...message.tail];
    const bytes = Buffer.concat(pieces, message.lengthBytes);
    message.done();
    this.#queuedBytes += bytes.length;
    this.#call.write(bytes, () => {
      this.#queuedBytes -= bytes.length;
      if (!this.#draining || this.#closed || this.#queuedBytes > QUEUE_LOW_BYTES) return;
      this.#draining = false;
      this.#handlers?.onDrain();
    });
    if (this.#queuedBytes <= QUEUE_HIGH_BYTES) return true;
    this.#draining = true;
    return false;
  }

  pause(): void {
    this.#paused = true;
    this.#call.pause();
  }

  resume(): void {
    this.#paused = false;
    if (this.#retainedBytes <= RETAINED_BYTES_MAX) this.#call.resume();
  }

  close(error?: StorageError): void {
    const call = this.#call;
    this.#finish(error, () => {
      if (error === undefined) call.end();
      else call.emit('error', grpcError(error, 'data stream'));
    });
  }

  #onMessage(bytes: Buffer): void {
    if (this.#closed) return;
    this.#retainedBytes += bytes.length;
    const message = new ReceivedMessage(bytes, undefined, (length) => {
      this.#retainedBytes -= length;
      if (!this.#paused && this.#retainedBytes <= RETAINED_BYTES_MAX) this.#call.resume();
    });
    if (this.#retainedBytes > RETAINED_BYTES_MAX) this.#call.pause();
    try {
      this.#handlers?.onMessage(message);
    } catch (error) {
      if (!(error instanceof StorageError)) throw error;
      this.close(error);
    } finally {
      message.release();
    }
  }

  #finish(error: StorageError | undefined, farewell: () => void): void {
    if (this.#closed) return;
    this.#closed = true;
    farewell();
    this.#call.resume();
    process.nextTick(() => this.#handlers?.onClose(error));
  }
}
