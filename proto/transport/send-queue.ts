/**
 * Messages on their way to the socket: cut into DATA frames as the peer's limits allow, all of a
 * turn in one write.
 *
 * Invariants:
 * - `queuedBytes` counts every message from `push` until the kernel has it (or the connection is
 *   gone); `done()` is called then.
 * - Never more is written than stream window and connection window allow; both shrink here and grow
 *   by WINDOW_UPDATE.
 * - A message that fits one frame and the windows is written from where it is, its headers put in
 *   its headroom. Only then is the headroom touched, and always with the same bytes, since every
 *   endpoint uses the same stream id.
 */
import assert from 'node:assert';
import type { Duplex } from 'node:stream';
import { MIB } from '../../common/units.js';
import { MESSAGE_HEADROOM, type OutgoingMessage } from '../message-stream.js';
import {
  FRAME,
  FRAME_BYTES_DEFAULT,
  FRAME_HEADER_BYTES,
  GRPC_HEADER_BYTES,
  H2_ERROR,
  Http2Error,
  putFrameHeader,
  STREAM_ID,
  WINDOW_BYTES_DEFAULT,
  WINDOW_BYTES_LIMIT,
} from './frame.js';

/** `send` returns false above, `onDrain` comes below. */
export const QUEUE_HIGH_BYTES = 8 * MIB;
export const QUEUE_LOW_BYTES = 4 * MIB;
/** A sender that ignores `false` for this long is a programmer error. */
export const QUEUE_BYTES_MAX = 64 * MIB;
/** Small frames that the peer made us write and does not read. */
const CONTROL_PENDING_MAX = 1000;

const NO_BYTES = Buffer.alloc(0);

export interface SendQueueEvents {
  onDrain(): void;
  /** Everything was given to the socket and nothing is left in the queue. */
  onEmpty(): void;
}

export class SendQueue {
  frameBytesMax = FRAME_BYTES_DEFAULT;
  #streamWindow = WINDOW_BYTES_DEFAULT;
  #connectionWindow = WINDOW_BYTES_DEFAULT;
  #initialWindow = WINDOW_BYTES_DEFAULT;
  readonly #socket: Duplex;
  readonly #events: SendQueueEvents;
  #queue: OutgoingMessage[] = [];
  #head = 0;
  /** bytes of the first message, gRPC header included, that are in frames already */
  #sentOfFirst = 0;
  #queuedBytes = 0;
  #draining = false;
  #scheduled = false;
  #closed = false;
  #controlPending = 0;
  /** messages handed to the socket whose write has not called back */
  readonly #writing = new Set<OutgoingMessage[]>();
  readonly #flushLater = (): void => {
    this.#scheduled = false;
    this.flush();
  };

  constructor(socket: Duplex, events: SendQueueEvents) {
    this.#socket = socket;
    this.#events = events;
  }

  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /** No message waits for a window or for the end of the turn. */
  get empty(): boolean {
    return this.#head === this.#queue.length;
  }

  /** Takes a message; it is written before the current turn ends if the windows allow. False: above
   * the high mark. */
  push(message: OutgoingMessage): boolean {
    if (this.#closed) {
      message.done();
      return true;
    }
    this.#queue.push(message);
    this.#queuedBytes += message.lengthBytes;
    assert(this.#queuedBytes <= QUEUE_BYTES_MAX, 'the sender ignores back-pressure');
    if (!this.#scheduled) {
      this.#scheduled = true;
      process.nextTick(this.#flushLater);
    }
    if (this.#queuedBytes <= QUEUE_HIGH_BYTES) return true;
    this.#draining = true;
    return false;
  }

  /** Writes a frame that is no DATA, at once. @throws Http2Error if the peer does not read what it
   * makes us answer */
  control(frame: Buffer): void {
    this.#controlPending += 1;
    this.#socket.write(frame, () => {
      this.#controlPending -= 1;
    });
    if (this.#controlPending > CONTROL_PENDING_MAX) {
      throw new Http2Error(H2_ERROR.ENHANCE_YOUR_CALM, 'the peer asks and does not read');
    }
  }

  /** WINDOW_UPDATE of the stream or of the connection. @throws Http2Error past 2^31-1 */
  grow(which: 'stream' | 'connection', increment: number): void {
    const before = which === 'stream' ? this.#streamWindow : this.#connectionWindow;
    if (increment === 0 || before + increment > WINDOW_BYTES_LIMIT) {
      throw new Http2Error(
        increment === 0 ? H2_ERROR.PROTOCOL_ERROR : H2_ERROR.FLOW_CONTROL_ERROR,
        `window of ${before} grown by ${increment}`,
      );
    }
    if (which === 'stream') this.#streamWindow += increment;
    else this.#connectionWindow += increment;
    if (!this.empty) this.flush();
  }

  /** SETTINGS_INITIAL_WINDOW_SIZE changes the window of the open stream by the difference. @throws
   * Http2Error */
  setInitialWindow(size: number): void {
    const next = this.#streamWindow + size - this.#initialWindow;
    if (next > WINDOW_BYTES_LIMIT) {
      throw new Http2Error(H2_ERROR.FLOW_CONTROL_ERROR, `window of ${next} by settings`);
    }
    this.#initialWindow = size;
    this.#streamWindow = next;
    if (!this.empty) this.flush();
  }

  /** Writes what the windows allow. */
  flush(): void {
    if (this.#closed || this.empty) return;
    const pieces: Buffer[] = [];
    const whole: OutgoingMessage[] = [];
    while (this.#head < this.#queue.length) {
      const message = this.#queue[this.#head] as OutgoingMessage;
      if (!this.#frameMessage(message, pieces)) break;
      whole.push(message);
      this.#head += 1;
    }
    if (this.#head === this.#queue.length) {
      this.#queue.length = 0;
      this.#head = 0;
    } else if (this.#head > 1024) {
      this.#queue.splice(0, this.#head);
      this.#head = 0;
    }
    this.#write(pieces, whole);
    if (this.empty) this.#events.onEmpty();
  }

  /** Forgets what is not in frames yet; what the socket has is finished by it, or by `abandon`. */
  drop(): void {
    if (this.#closed) return;
    this.#closed = true;
    const left = this.#queue.splice(0).slice(this.#head);
    const begun = this.#sentOfFirst > 0 ? left.splice(0, 1) : [];
    this.#head = 0;
    if (begun.length > 0) {
      // The socket still reads from the part that was framed.
      this.#writing.add(begun);
      this.#socket.write(NO_BYTES, () => this.#settle(begun));
    }
    this.#finish(left);
  }

  /** The connection is gone: nothing is written any more, everything is done with. */
  abandon(): void {
    this.drop();
    for (const messages of [...this.#writing]) this.#settle(messages);
  }

  /** Adds the frames of the message to `pieces`. False: the windows are used up before its end. */
  #frameMessage(message: OutgoingMessage, pieces: Buffer[]): boolean {
    const total = GRPC_HEADER_BYTES + message.lengthBytes;
    let allowed = Math.min(this.#streamWindow, this.#connectionWindow);
    if (this.#sentOfFirst === 0 && total <= this.frameBytesMax && total <= allowed) {
      const head = message.head;
      putFrameHeader(head, 0, {
        lengthBytes: total,
        type: FRAME.DATA,
        flags: 0,
        streamId: STREAM_ID,
      });
      putGrpcHeader(head, FRAME_HEADER_BYTES, message.lengthBytes);
      pieces.push(head);
      for (const piece of message.tail) pieces.push(piece);
      this.#spend(total);
      return true;
    }
    while (this.#sentOfFirst < total) {
      allowed = Math.min(this.#streamWindow, this.#connectionWindow);
      if (allowed <= 0) return false;
      const length = Math.min(this.frameBytesMax, allowed, total - this.#sentOfFirst);
      const header = Buffer.allocUnsafe(FRAME_HEADER_BYTES);
      const streamId = STREAM_ID;
      putFrameHeader(header, 0, { lengthBytes: length, type: FRAME.DATA, flags: 0, streamId });
      pieces.push(header);
      addRange(message, { from: this.#sentOfFirst, to: this.#sentOfFirst + length }, pieces);
      this.#sentOfFirst += length;
      this.#spend(length);
    }
    this.#sentOfFirst = 0;
    return true;
  }

  #spend(bytes: number): void {
    this.#streamWindow -= bytes;
    this.#connectionWindow -= bytes;
  }

  #write(pieces: Buffer[], whole: OutgoingMessage[]): void {
    const last = pieces.length - 1;
    if (last < 0) return;
    const socket = this.#socket;
    let written: (() => void) | undefined;
    if (whole.length > 0) {
      this.#writing.add(whole);
      written = () => this.#settle(whole);
    }
    if (last === 0) {
      socket.write(pieces[0] as Buffer, written);
      return;
    }
    socket.cork();
    for (let index = 0; index < last; index++) socket.write(pieces[index] as Buffer);
    socket.write(pieces[last] as Buffer, written);
    socket.uncork();
  }

  #settle(messages: OutgoingMessage[]): void {
    if (this.#writing.delete(messages)) this.#finish(messages);
  }

  #finish(messages: OutgoingMessage[]): void {
    for (const message of messages) {
      this.#queuedBytes -= message.lengthBytes;
      message.done();
    }
    if (this.#draining && !this.#closed && this.#queuedBytes <= QUEUE_LOW_BYTES) {
      this.#draining = false;
      this.#events.onDrain();
    }
  }
}

function putGrpcHeader(bytes: Buffer, at: number, lengthBytes: number): void {
  bytes[at] = 0;
  bytes.writeUInt32BE(lengthBytes, at + 1);
}

/** Bytes [from, to) of gRPC header and message, as views; the header in memory of its own. */
function addRange(
  message: OutgoingMessage,
  range: { from: number; to: number },
  pieces: Buffer[],
): void {
  let position = 0;
  const add = (piece: Buffer): void => {
    const from = Math.max(range.from - position, 0);
    const to = Math.min(range.to - position, piece.length);
    if (from < to) pieces.push(piece.subarray(from, to));
    position += piece.length;
  };
  const prefix = Buffer.allocUnsafe(GRPC_HEADER_BYTES);
  putGrpcHeader(prefix, 0, message.lengthBytes);
  add(prefix);
  add(message.head.subarray(MESSAGE_HEADROOM));
  for (const piece of message.tail) add(piece);
}
