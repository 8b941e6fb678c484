/**
 * Cuts the bytes of a connection into frames.
 *
 * Payload of DATA is handed on as it comes, in spans of the chunks, without collecting it. Other
 * frames are small and handed on whole.
 */
import {
  FLAG,
  FRAME,
  FRAME_BYTES_DEFAULT,
  FRAME_HEADER_BYTES,
  H2_ERROR,
  Http2Error,
} from './frame.js';

/** What it throws ends the parsing of the chunk and reaches the caller of `push`. */
export interface FrameSink {
  /** A DATA frame begins; `lengthBytes` is what it takes from the flow-control window, padding
   * included. */
  onDataStart(streamId: number, lengthBytes: number): void;
  /** Bytes [start, end) of the chunk are content of the current DATA frame. Borrowed. */
  onDataSpan(streamId: number, chunk: Buffer, span: { start: number; end: number }): void;
  /** The DATA frame is over. */
  onDataEnd(streamId: number, flags: number, lengthBytes: number): void;
  /** Any other frame; `payload` is borrowed. */
  onFrame(header: ParsedHeader, payload: Buffer): void;
}

export interface ParsedHeader {
  readonly type: number;
  readonly flags: number;
  readonly streamId: number;
}

const NO_BYTES = Buffer.alloc(0);

export class FrameParser {
  readonly #sink: FrameSink;
  readonly #dataBytesMax: number;
  readonly #header = Buffer.alloc(FRAME_HEADER_BYTES);
  #headerBytes = 0;
  #inFrame = false;
  #type = 0;
  #flags = 0;
  #streamId = 0;
  #length = 0;
  /** payload bytes of the frame that have not come yet */
  #left = 0;
  /** DATA with padding: the pad length byte has not come yet */
  #padLengthDue = false;
  /** padding bytes at the end of the frame, part of #left */
  #padding = 0;
  /** reused for every span */
  readonly #span = { start: 0, end: 0 };
  #collected = NO_BYTES;
  #collectedBytes = 0;
  #stopped = false;

  /** @param dataBytesMax largest DATA frame, as announced in SETTINGS_MAX_FRAME_SIZE */
  constructor(sink: FrameSink, dataBytesMax: number) {
    this.#sink = sink;
    this.#dataBytesMax = dataBytesMax;
  }

  /** From now on every byte is thrown away. */
  stop(): void {
    this.#stopped = true;
  }

  /** Bytes of content that the current DATA frame still has to bring, if the next byte is one of
   * them; else 0. */
  get contentLeft(): number {
    const inContent = this.#inFrame && this.#type === FRAME.DATA && !this.#padLengthDue;
    return inContent && !this.#stopped ? Math.max(0, this.#left - this.#padding) : 0;
  }

  get streamId(): number {
    return this.#streamId;
  }

  /** The next bytes of the connection were content (at most `contentLeft`) and are where they
   * belong already. */
  skipContent(lengthBytes: number): void {
    this.#left -= lengthBytes;
    if (this.#left > 0) return;
    this.#inFrame = false;
    this.#sink.onDataEnd(this.#streamId, this.#flags, this.#length);
  }

  /** Takes the next bytes of the connection. @throws Http2Error, and what the sink throws */
  push(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length && !this.#stopped) {
      if (!this.#inFrame) at = this.#readHeader(chunk, at);
      if (this.#inFrame && !this.#stopped) {
        at = this.#type === FRAME.DATA ? this.#readData(chunk, at) : this.#readOther(chunk, at);
      }
    }
  }

  #readHeader(chunk: Buffer, at: number): number {
    if (this.#headerBytes === 0 && chunk.length - at >= FRAME_HEADER_BYTES) {
      this.#begin(chunk, at);
      return at + FRAME_HEADER_BYTES;
    }
    const taken = Math.min(FRAME_HEADER_BYTES - this.#headerBytes, chunk.length - at);
    chunk.copy(this.#header, this.#headerBytes, at, at + taken);
    this.#headerBytes += taken;
    if (this.#headerBytes === FRAME_HEADER_BYTES) {
      this.#headerBytes = 0;
      this.#begin(this.#header, 0);
    }
    return at + taken;
  }

  #begin(bytes: Buffer, at: number): void {
    this.#length = bytes.readUIntBE(at, 3);
    this.#type = bytes[at + 3] as number;
    this.#flags = bytes[at + 4] as number;
    this.#streamId = bytes.readUInt32BE(at + 5) & 0x7fffffff;
    const limit = this.#type === FRAME.DATA ? this.#dataBytesMax : FRAME_BYTES_DEFAULT;
    if (this.#length > limit) {
      throw new Http2Error(
        H2_ERROR.FRAME_SIZE_ERROR,
        `frame of type ${this.#type} with ${this.#length} bytes, limit ${limit}`,
      );
    }
    this.#left = this.#length;
    this.#inFrame = true;
    if (this.#type !== FRAME.DATA) return;
    this.#padding = 0;
    this.#padLengthDue = (this.#flags & FLAG.PADDED) !== 0;
    if (this.#padLengthDue && this.#length === 0) throw padError();
    this.#sink.onDataStart(this.#streamId, this.#length);
  }

  #readData(chunk: Buffer, from: number): number {
    let at = from;
    if (this.#padLengthDue && at < chunk.length) {
      this.#padding = chunk[at] as number;
      this.#padLengthDue = false;
      at += 1;
      this.#left -= 1;
      if (this.#padding > this.#left) throw padError();
    }
    const content = Math.min(this.#left - this.#padding, chunk.length - at);
    if (content > 0) {
      this.#span.start = at;
      this.#span.end = at + content;
      this.#left -= content;
      at += content;
      this.#sink.onDataSpan(this.#streamId, chunk, this.#span);
    }
    if (this.#left <= this.#padding && !this.#padLengthDue) {
      const skipped = Math.min(this.#left, chunk.length - at);
      this.#left -= skipped;
      this.#padding -= skipped;
      at += skipped;
    }
    if (this.#left === 0) {
      this.#inFrame = false;
      if (!this.#stopped) this.#sink.onDataEnd(this.#streamId, this.#flags, this.#length);
    }
    return at;
  }

  #readOther(chunk: Buffer, at: number): number {
    let payload: Buffer;
    const taken = Math.min(this.#left, chunk.length - at);
    if (taken === this.#length) {
      payload = taken === 0 ? NO_BYTES : chunk.subarray(at, at + taken);
    } else {
      if (this.#collectedBytes === 0) this.#collected = Buffer.allocUnsafe(this.#length);
      chunk.copy(this.#collected, this.#collectedBytes, at, at + taken);
      this.#collectedBytes += taken;
      payload = this.#collected;
    }
    this.#left -= taken;
    if (this.#left === 0) {
      this.#inFrame = false;
      this.#collectedBytes = 0;
      this.#collected = NO_BYTES;
      this.#sink.onFrame(
        { type: this.#type, flags: this.#flags, streamId: this.#streamId },
        payload,
      );
    }
    return at + taken;
  }
}

function padError(): Http2Error {
  return new Http2Error(H2_ERROR.PROTOCOL_ERROR, 'padding as long as the frame or longer');
}

/** The content of a HEADERS frame without padding and priority. @throws Http2Error */
export function headerBlockOf(flags: number, payload: Buffer): Buffer {
  let start = 0;
  let end = payload.length;
  if ((flags & FLAG.PADDED) !== 0) {
    start += 1;
    end -= payload[0] ?? 0;
  }
  if ((flags & FLAG.PRIORITY) !== 0) start += 5;
  if (start > end) throw padError();
  return payload.subarray(start, end);
}
