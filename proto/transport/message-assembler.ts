/**
 * Makes messages of the content of DATA frames: one byte "compressed?", four bytes length, the
 * message; frames may cut it anywhere.
 *
 * A message that lies whole in one span is handed on without a copy; any other one is collected
 * once, in memory that is taken when its length is known to be allowed.
 */
import assert from 'node:assert';
import { StorageError } from '../../common/errors.js';
import { type IncomingMessage, MESSAGE_BYTES_MAX } from '../message-stream.js';
import { GRPC_HEADER_BYTES } from './frame.js';
import type { ReadPiece } from './read-memory.js';
import type { ReceivedBytes, ReceiveMemory } from './receive-memory.js';

/** A message on its way through the handler. Held once by the endpoint, and once more per `retain`.
 */
export class ReceivedMessage implements IncomingMessage {
  readonly bytes: Buffer;
  readonly aligned: boolean;
  #holders = 1;
  readonly #memory: ReceivedBytes | undefined;
  readonly #onConsumed: (lengthBytes: number) => void;

  /** @param memory released with the message; undefined: nobody else uses what `bytes` is a view of
   */
  constructor(
    bytes: Buffer,
    memory: ReceivedBytes | undefined,
    onConsumed: (lengthBytes: number) => void,
  ) {
    this.bytes = bytes;
    this.aligned = memory?.aligned ?? false;
    this.#memory = memory;
    this.#onConsumed = onConsumed;
  }

  retain(): void {
    assert(this.#holders > 0, 'message was released already');
    this.#holders += 1;
  }

  release(): void {
    this.#holders -= 1;
    assert(this.#holders >= 0, 'message was released more often than retained');
    if (this.#holders > 0) return;
    const length = this.bytes.length;
    this.#memory?.release();
    this.#onConsumed(length);
  }
}

export class MessageAssembler {
  readonly #memory: ReceiveMemory;
  readonly #deliver: (message: ReceivedMessage) => void;
  readonly #onConsumed: (lengthBytes: number) => void;
  readonly #prefix = Buffer.alloc(GRPC_HEADER_BYTES);
  #prefixBytes = 0;
  #length = 0;
  #collecting: ReceivedBytes | undefined;
  #collected = 0;

  constructor(options: {
    memory: ReceiveMemory;
    deliver: (message: ReceivedMessage) => void;
    /** The message of this length needs its place no longer. */
    onConsumed: (lengthBytes: number) => void;
  }) {
    this.#memory = options.memory;
    this.#deliver = options.deliver;
    this.#onConsumed = options.onConsumed;
  }

  /** Nothing of a message has come that is not whole. */
  get atBoundary(): boolean {
    return this.#prefixBytes === 0;
  }

  /** Where the rest of the message that is being collected goes; undefined between messages. */
  get remainder(): Buffer | undefined {
    const bytes = this.#collecting?.bytes;
    return bytes?.subarray(this.#collected, this.#length);
  }

  /** So many bytes were put at the start of `remainder`. */
  advance(lengthBytes: number): void {
    const memory = this.#collecting as ReceivedBytes;
    this.#collected += lengthBytes;
    if (this.#collected < this.#length) return;
    this.#prefixBytes = 0;
    this.#collecting = undefined;
    this.#emit(memory.bytes, memory);
  }

  /** @param piece held by messages that are views of the chunk; undefined: the chunk is not used
   *   again
   *  @throws StorageError LIMIT_EXCEEDED (message too long) | UNSUPPORTED (compressed) | OVERLOADED
   *    (no memory) */
  push(chunk: Buffer, span: { start: number; end: number }, piece: ReadPiece | undefined): void {
    const { start, end } = span;
    let at = start;
    while (at < end) {
      if (this.#prefixBytes < GRPC_HEADER_BYTES) {
        at = this.#readPrefix(chunk, at, end);
        if (this.#prefixBytes < GRPC_HEADER_BYTES) return;
        if (end - at >= this.#length) {
          this.#prefixBytes = 0;
          at += this.#length;
          piece?.hold();
          this.#emit(chunk.subarray(at - this.#length, at), piece);
          continue;
        }
        this.#collecting = this.#memory.take(this.#length);
        this.#collected = 0;
      }
      at = this.#collect(chunk, at, end);
    }
  }

  /** Gives back what was collected; nothing more may be pushed. */
  abandon(): void {
    this.#collecting?.release();
    this.#collecting = undefined;
  }

  #readPrefix(chunk: Buffer, at: number, end: number): number {
    const taken = Math.min(GRPC_HEADER_BYTES - this.#prefixBytes, end - at);
    for (let index = 0; index < taken; index++) {
      this.#prefix[this.#prefixBytes + index] = chunk[at + index] as number;
    }
    this.#prefixBytes += taken;
    if (this.#prefixBytes === GRPC_HEADER_BYTES) {
      if (this.#prefix[0] !== 0) {
        throw new StorageError('UNSUPPORTED', 'compressed messages are not taken here');
      }
      this.#length = this.#prefix.readUInt32BE(1);
      if (this.#length > MESSAGE_BYTES_MAX) {
        throw new StorageError(
          'LIMIT_EXCEEDED',
          `message of ${this.#length} bytes, limit ${MESSAGE_BYTES_MAX}`,
        );
      }
    }
    return at + taken;
  }

  #collect(chunk: Buffer, at: number, end: number): number {
    const memory = this.#collecting as ReceivedBytes;
    const taken = Math.min(this.#length - this.#collected, end - at);
    chunk.copy(memory.bytes, this.#collected, at, at + taken);
    this.advance(taken);
    return at + taken;
  }

  #emit(bytes: Buffer, memory: ReceivedBytes | undefined): void {
    this.#deliver(new ReceivedMessage(bytes, memory, this.#onConsumed));
  }
}
