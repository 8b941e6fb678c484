/**
 * What the peer may send. The stream's window is the real bound: it grows again only when a message
 * has been consumed. The connection's window is as large as can be, since the connection has only
 * this stream.
 */
import { MIB } from '../../common/units.js';
import { MESSAGE_BYTES_MAX } from '../message-stream.js';
import {
  GRPC_HEADER_BYTES,
  H2_ERROR,
  Http2Error,
  STREAM_ID,
  WINDOW_BYTES_DEFAULT,
  WINDOW_BYTES_LIMIT,
  windowUpdateFrame,
} from './frame.js';

/** Bytes that the peer may have sent and we not consumed: four of the largest messages. */
export const STREAM_WINDOW_BYTES = 16 * MIB;
/** Largest DATA frame that we take: a whole message. */
export const DATA_BYTES_MAX = MESSAGE_BYTES_MAX + GRPC_HEADER_BYTES;

const FLOOD_BURST = 2000;
const FLOOD_PER_SECOND = 1000;
const STREAM_UPDATE_BYTES = STREAM_WINDOW_BYTES / 4;
const CONNECTION_UPDATE_BYTES = 2 ** 29;

export class ReceiveWindow {
  #stream = STREAM_WINDOW_BYTES;
  #connection = WINDOW_BYTES_LIMIT;
  #streamDue = 0;
  #connectionDue = 0;
  readonly #write: (frame: Buffer) => void;

  constructor(write: (frame: Buffer) => void) {
    this.#write = write;
  }

  /** To be sent behind the first SETTINGS (which carry STREAM_WINDOW_BYTES). */
  static firstUpdate(): Buffer {
    return windowUpdateFrame(0, WINDOW_BYTES_LIMIT - WINDOW_BYTES_DEFAULT);
  }

  /** A DATA frame begins. @throws Http2Error if the peer was not allowed to send it */
  take(lengthBytes: number, onStream: boolean): void {
    if (lengthBytes > this.#connection || (onStream && lengthBytes > this.#stream)) {
      throw new Http2Error(H2_ERROR.FLOW_CONTROL_ERROR, 'more data than the window allows');
    }
    if (onStream) this.#stream -= lengthBytes;
    this.#connection -= lengthBytes;
    this.#connectionDue += lengthBytes;
    if (this.#connectionDue >= CONNECTION_UPDATE_BYTES) {
      this.#connection += this.#connectionDue;
      this.#write(windowUpdateFrame(0, this.#connectionDue));
      this.#connectionDue = 0;
    }
  }

  /** Bytes of the stream that are consumed: a message with its header, or padding. */
  credit(lengthBytes: number): void {
    this.#streamDue += lengthBytes;
    if (this.#streamDue < STREAM_UPDATE_BYTES) return;
    this.#stream += this.#streamDue;
    this.#write(windowUpdateFrame(STREAM_ID, this.#streamDue));
    this.#streamDue = 0;
  }
}

/** Bounds frames that cost us work and carry nothing: PING, SETTINGS, resets, unknown and empty
 * ones. */
export class FloodGuard {
  #left = FLOOD_BURST;
  #atMs: number;

  constructor(nowMs: number) {
    this.#atMs = nowMs;
  }

  /** One such frame. @throws Http2Error when there are too many */
  count(nowMs: number): void {
    this.#left -= 1;
    if (this.#left > 0) return;
    const earned = ((nowMs - this.#atMs) / 1000) * FLOOD_PER_SECOND;
    this.#left = Math.min(FLOOD_BURST, Math.max(0, Math.floor(earned)));
    this.#atMs = nowMs;
    if (this.#left === 0) {
      throw new Http2Error(H2_ERROR.ENHANCE_YOUR_CALM, 'too many frames without content');
    }
  }
}
