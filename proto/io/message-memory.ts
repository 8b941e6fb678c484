/** Memory of outgoing messages, used again once every stream has sent them, so that a busy sender
 * makes no garbage. */
import assert from 'node:assert';
import { KIB, MIB } from '../../common/units.js';
import { MESSAGE_BYTES_MAX, MESSAGE_HEADROOM, type OutgoingMessage } from '../message-stream.js';

// A batch of 256 KiB of payload with its headers fits the fourth class, one of 1 MiB the fifth.
const CLASSES = [8 * KIB, 32 * KIB, 128 * KIB, 320 * KIB, 1344 * KIB, MESSAGE_BYTES_MAX + 8 * KIB];
const IDLE_BYTES_MAX = 8 * MIB;

/** Buffers by size class. Contents are undefined: whoever sends a byte has written it. */
export class MessageMemory {
  readonly #idle: Buffer[][] = CLASSES.map(() => []);
  #idleBytes = 0;

  /** Bytes kept for later use; bounded. */
  get idleBytes(): number {
    return this.#idleBytes;
  }

  /** @param lengthBytes at most MESSAGE_BYTES_MAX and headroom */
  take(lengthBytes: number): Buffer {
    const index = CLASSES.findIndex((size) => size >= lengthBytes);
    assert(index >= 0, `message of ${lengthBytes} bytes`);
    const buffer = this.#idle[index]?.pop();
    if (buffer === undefined) return Buffer.allocUnsafeSlow(CLASSES[index] as number);
    this.#idleBytes -= buffer.length;
    return buffer;
  }

  /** Takes back a buffer from `take`. */
  give(buffer: Buffer): void {
    if (this.#idleBytes + buffer.length > IDLE_BYTES_MAX) return;
    const index = CLASSES.indexOf(buffer.length);
    assert(index >= 0);
    this.#idle[index]?.push(buffer);
    this.#idleBytes += buffer.length;
  }
}

/** A message in memory of a MessageMemory; goes back there when every stream is done with it. */
export class PooledMessage implements OutgoingMessage {
  readonly head: Buffer;
  readonly tail: readonly Buffer[];
  readonly lengthBytes: number;
  #streamsLeft: number;
  readonly #release: () => void;

  constructor(
    pieces: { head: Buffer; tail: readonly Buffer[]; lengthBytes: number },
    streams: number,
    release: () => void,
  ) {
    assert(streams > 0);
    this.head = pieces.head;
    this.tail = pieces.tail;
    this.lengthBytes = pieces.lengthBytes;
    this.#streamsLeft = streams;
    this.#release = release;
  }

  done(): void {
    this.#streamsLeft -= 1;
    assert(this.#streamsLeft >= 0, 'done() was called more often than there are streams');
    if (this.#streamsLeft === 0) this.#release();
  }
}

/** Grows while a message is written. `at` counts from the start of `bytes`, headroom included. */
export class MessageWriter {
  bytes: Buffer | undefined;
  at = 0;
  /** What the last message needed: the next one starts with as much. */
  #hint = 0;

  constructor(readonly memory: MessageMemory) {}

  /** Message bytes so far. */
  get lengthBytes(): number {
    return this.bytes === undefined ? 0 : this.at - MESSAGE_HEADROOM;
  }

  /** The buffer, with at least `lengthBytes` free at `at`. */
  reserve(lengthBytes: number): Buffer {
    const bytes = this.bytes;
    if (bytes !== undefined && bytes.length - this.at >= lengthBytes) return bytes;
    if (bytes === undefined) this.at = MESSAGE_HEADROOM;
    const grown = this.memory.take(Math.max(this.at + lengthBytes, this.#hint));
    if (bytes !== undefined) {
      bytes.copy(grown, 0, 0, this.at);
      this.memory.give(bytes);
    }
    this.bytes = grown;
    return grown;
  }

  /** Hands the buffer over and forgets it; the caller gives it back to `memory`. */
  take(): { bytes: Buffer; end: number } {
    const bytes = this.reserve(0);
    const end = this.at;
    this.#hint = end;
    this.bytes = undefined;
    this.at = 0;
    return { bytes, end };
  }
}
