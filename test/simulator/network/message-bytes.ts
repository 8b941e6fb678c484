/** Bytes on their way: taken from a message when the kernel takes it, kept until the last reader
 *  gives them back, poisoned then. */
import assert from 'node:assert';
import { decodeIoBatch, decodeIoReplyBatch } from '../../../proto/io-codec.js';
import {
  type IncomingMessage,
  MESSAGE_HEADROOM,
  type OutgoingMessage,
} from '../../../proto/message-stream.js';
import type { Random } from '../kernel/random.js';

/** One copy, shared by everyone to whom the same message is sent. */
export class MessageBytes {
  #references = 1;

  constructor(
    readonly bytes: Buffer,
    /** used again for a later message; undefined: not pooled */
    readonly memory: MessagePool | undefined,
  ) {}

  retain(): this {
    assert(this.#references > 0, 'a message is retained after it was given back');
    this.#references += 1;
    return this;
  }

  release(): void {
    this.#references -= 1;
    assert(this.#references >= 0, 'a message is released more often than it was retained');
    if (this.#references === 0) this.memory?.give(this.bytes);
  }
}

const IDLE_MAX = 64;
const POISON = 0xdb;

/** Memory by size class, so that a run makes little garbage. Every buffer starts at an address that
 *  a device can take. */
export class MessagePool {
  readonly #idle = new Map<number, Buffer[]>();
  #last: { readonly message: OutgoingMessage; readonly taken: MessageBytes } | undefined;

  /** Copies the message; a message that is sent to several peers in a row is copied once. */
  take(message: OutgoingMessage): MessageBytes {
    if (this.#last?.message === message) return this.#last.taken.retain();
    this.forget();
    const { head, tail, lengthBytes } = message;
    const whole = this.#acquire(lengthBytes);
    const bytes = whole.subarray(0, lengthBytes);
    let at = head.copy(bytes, 0, MESSAGE_HEADROOM);
    for (const piece of tail) at += piece.copy(bytes, at);
    assert(at === lengthBytes, `a message of ${at} bytes says ${lengthBytes}`);
    const taken = new MessageBytes(bytes, this);
    this.#last = { message, taken: taken.retain() };
    return taken;
  }

  /** No further peer gets the last message. */
  forget(): void {
    this.#last?.taken.release();
    this.#last = undefined;
  }

  give(bytes: Buffer): void {
    bytes.fill(POISON);
    const size = classOf(bytes.length);
    const idle = this.#idle.get(size);
    const whole = Buffer.from(bytes.buffer, bytes.byteOffset, size);
    if (idle === undefined) this.#idle.set(size, [whole]);
    else if (idle.length < IDLE_MAX) idle.push(whole);
  }

  #acquire(lengthBytes: number): Buffer {
    const size = classOf(lengthBytes);
    return this.#idle.get(size)?.pop() ?? Buffer.from(new ArrayBuffer(size));
  }
}

function classOf(lengthBytes: number): number {
  return Math.max(4096, 2 ** Math.ceil(Math.log2(lengthBytes)));
}

/** A delivered message: holds its bytes for the handler, and for whoever retains it. */
export class DeliveredMessage implements IncomingMessage {
  readonly bytes: Buffer;

  constructor(
    readonly shared: MessageBytes,
    readonly aligned: boolean,
  ) {
    this.bytes = shared.bytes;
  }

  retain(): void {
    this.shared.retain();
  }

  release(): void {
    this.shared.release();
  }
}

/** A copy with one bit of one payload changed (scenario 33); the same bytes if there is no payload.
 *  @param from whose message it is: engines send requests, replicas replies */
export function flipped(
  taken: MessageBytes,
  from: 'client' | 'server',
  random: Random,
): MessageBytes {
  const places = payloadsOf(taken.bytes, from);
  if (places.length === 0) return taken;
  const place = random.pick(places);
  const bytes = Buffer.from(taken.bytes);
  const at = place.start + random.int(place.end - place.start);
  bytes[at] = (bytes[at] ?? 0) ^ (1 << random.int(8));
  taken.release();
  return new MessageBytes(bytes, undefined);
}

function payloadsOf(bytes: Buffer, from: 'client' | 'server') {
  const places: Array<{ start: number; end: number }> = [];
  const note = (view: { payloadStart: number; payloadEnd: number }): void => {
    if (view.payloadEnd > view.payloadStart) {
      places.push({ start: view.payloadStart, end: view.payloadEnd });
    }
  };
  const nothing = (): void => undefined;
  if (from === 'client') {
    decodeIoBatch(bytes, { onHello: nothing, onAckedThrough: nothing, onRequest: note });
  } else decodeIoReplyBatch(bytes, { onHello: nothing, onReply: note });
  return places;
}
