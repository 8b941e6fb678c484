/**
 * One HTTP/2 connection with one gRPC stream on it, seen as a MessageStream. What both sides share;
 * `client-endpoint.ts` and `server-endpoint.ts` add how the stream begins and ends.
 *
 * Invariants:
 * - Handlers: `onClose` once, last, never from inside `send` or `close`; messages in order; none
 *   while paused.
 * - While paused the connection is still read, else a WINDOW_UPDATE that our own sending waits for
 *   would not come in. What piles up meanwhile is bounded by the stream's window.
 * - After the end of the stream the connection is only drained until the peer closes it, or the
 *   linger time is over: closing a socket with unread bytes would destroy the trailers on their way
 *   to the peer.
 */
import type { Duplex } from 'node:stream';
import type { Clock, Timer } from '../../common/clock.js';
import { StorageError, toStorageError } from '../../common/errors.js';
import { KIB } from '../../common/units.js';
import type { MessageStream, MessageStreamHandlers, OutgoingMessage } from '../message-stream.js';
import {
  AUROCHS_VERSION,
  FLAG,
  FRAME,
  frame,
  GRPC_HEADER_BYTES,
  goawayFrame,
  H2_ERROR,
  Http2Error,
  h2ErrorName,
  SETTING,
  SETTINGS_ACK_FRAME,
  STREAM_ID,
  settingsFrame,
} from './frame.js';
import { FrameParser, type FrameSink, type ParsedHeader } from './frame-parser.js';
import { type HeaderBlock, HeaderBlocks } from './header-blocks.js';
import { HEADER_LIST_BYTES_MAX, type HeaderList } from './hpack.js';
import { MessageAssembler, type ReceivedMessage } from './message-assembler.js';
import { parseSettings } from './peer-settings.js';
import type { ReadPiece } from './read-memory.js';
import type { ReceiveMemory } from './receive-memory.js';
import {
  DATA_BYTES_MAX,
  FloodGuard,
  ReceiveWindow,
  STREAM_WINDOW_BYTES,
} from './receive-window.js';
import { SendQueue } from './send-queue.js';
import type { ReadSink, SocketReader } from './socket-reader.js';

/** Shorter rests of a message are not worth a read of their own. */
const DIRECT_BYTES_MIN = 16 * KIB;
/** How long what is queued may take to leave, and the peer to end its side, after `close()`. */
const CLOSE_MS = 10_000;
/** How long the peer may take to close the connection after the end of the stream. */
const LINGER_MS = 2000;

export interface EndpointOptions {
  readonly socket: Duplex;
  readonly peer: string;
  readonly memory: ReceiveMemory;
  readonly clock: Clock;
  /** Reads the socket; undefined: its `data` events are taken. */
  readonly reader?: SocketReader | undefined;
}

/** Settings and window of our side: what both sides send first. */
export function firstFrames(concurrentStreams: number): Buffer {
  const settings = settingsFrame([
    [SETTING.HEADER_TABLE_SIZE, 0],
    [SETTING.ENABLE_PUSH, 0],
    [SETTING.MAX_CONCURRENT_STREAMS, concurrentStreams],
    [SETTING.INITIAL_WINDOW_SIZE, STREAM_WINDOW_BYTES],
    [SETTING.MAX_FRAME_SIZE, DATA_BYTES_MAX],
    [SETTING.MAX_HEADER_LIST_SIZE, HEADER_LIST_BYTES_MAX],
    [SETTING.AUROCHS, AUROCHS_VERSION],
  ]);
  return Buffer.concat([settings, ReceiveWindow.firstUpdate()]);
}

export abstract class Endpoint implements MessageStream, FrameSink, ReadSink {
  readonly peer: string;
  protected readonly socket: Duplex;
  protected readonly clock: Clock;
  protected readonly queue: SendQueue;
  protected handlers: MessageStreamHandlers | undefined;
  /** the peer carries our mark */
  protected peerSpecialised = false;
  /** `close()` was called: the stream ends when the queue is empty */
  protected ending = false;
  /** our side of the stream is over on the wire */
  protected sentEnd = false;
  protected receivedEnd = false;
  readonly #parser: FrameParser;
  readonly #assembler: MessageAssembler;
  readonly #window: ReceiveWindow;
  readonly #flood: FloodGuard;
  #settled = false;
  #sawSettings = false;
  readonly #blocks = new HeaderBlocks();
  #spanBytes = 0;
  /** where the chunk that is being parsed lies */
  #piece: ReadPiece | undefined;
  #paused = false;
  #held: ReceivedMessage[] = [];
  #heldEnd: { error: StorageError | undefined } | undefined;
  #linger: Timer | undefined;

  constructor(options: EndpointOptions) {
    const { socket } = options;
    this.socket = socket;
    this.peer = options.peer;
    this.clock = options.clock;
    this.queue = new SendQueue(socket, {
      onDrain: () => this.handlers?.onDrain(),
      onEmpty: () => {
        if (this.ending && !this.sentEnd && !this.#settled) this.sendEnd();
      },
    });
    this.#window = new ReceiveWindow((bytes) => {
      if (!this.#settled) this.write(bytes);
    });
    this.#flood = new FloodGuard(options.clock.nowMs());
    this.#parser = new FrameParser(this, DATA_BYTES_MAX);
    this.#assembler = new MessageAssembler({
      memory: options.memory,
      deliver: (message) => this.#deliver(message),
      onConsumed: (lengthBytes) => this.#window.credit(lengthBytes + GRPC_HEADER_BYTES),
    });
    if (options.reader === undefined) socket.on('data', (chunk: Buffer) => this.receive(chunk));
    else options.reader.attach(this);
    socket.on('error', (error: Error) => this.#lost(error));
    socket.on('end', () => this.#lost(undefined));
    socket.on('close', () => {
      this.#lost(undefined);
      this.#linger?.cancel();
      this.queue.abandon();
      // Not before: the socket may have been told to read into what is being collected.
      this.#assembler.abandon();
    });
  }

  get queuedBytes(): number {
    return this.queue.queuedBytes;
  }

  /** The stream is over for its user: `onClose` was called or is about to be. */
  get settled(): boolean {
    return this.#settled;
  }

  send(message: OutgoingMessage): boolean {
    if (this.#settled || this.ending) {
      message.done();
      return true;
    }
    return this.queue.push(message);
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    process.nextTick(() => this.#deliverHeld());
  }

  close(error?: StorageError): void {
    if (this.#settled) return;
    if (error !== undefined) {
      this.finish(error, () => this.sendError(error));
      return;
    }
    if (this.ending) return;
    this.ending = true;
    this.#destroyAfter(CLOSE_MS);
    if (this.queue.empty) this.sendEnd();
  }

  /** Takes bytes of the connection. */
  receive(chunk: Buffer, piece?: ReadPiece): void {
    this.#piece = piece;
    this.#guard(() => this.#parser.push(chunk));
  }

  directTarget(): Buffer | undefined {
    const left = this.#parser.contentLeft;
    if (left < DIRECT_BYTES_MIN || this.#parser.streamId !== STREAM_ID) return undefined;
    const remainder = this.#assembler.remainder;
    if (remainder === undefined || remainder.length < DIRECT_BYTES_MIN) return undefined;
    return remainder.length <= left ? remainder : remainder.subarray(0, left);
  }

  receivedDirect(lengthBytes: number): void {
    if (this.#settled || this.receivedEnd) return;
    this.#spanBytes += lengthBytes;
    this.#guard(() => {
      this.#assembler.advance(lengthBytes);
      this.#parser.skipContent(lengthBytes);
    });
  }

  #guard(act: () => void): void {
    try {
      act();
    } catch (error) {
      if (!(error instanceof StorageError)) throw error;
      if (error instanceof Http2Error) this.connectionError(error.h2Error, error);
      else this.close(error);
    }
  }

  // --- what the roles add

  /** Ends our side of the stream in order. Sets `sentEnd`. */
  protected abstract sendEnd(): void;
  /** Ends the stream at once, telling the peer why. */
  protected abstract sendError(error: StorageError): void;
  protected abstract onHeaders(streamId: number, headers: HeaderList, endStream: boolean): void;
  /** END_STREAM on a DATA frame. */
  protected abstract onEndOfData(): void;
  /** The first SETTINGS of the peer were read. */
  protected onReady(): void {}

  // --- ends

  /** The stream is over: after an orderly end what the windows allow is still sent, the rest of the
   *  queue is dropped; then
   *  `farewell` tells the peer, and the handlers are told. */
  protected finish(error: StorageError | undefined, farewell: () => void): void {
    if (this.#settled) return;
    this.#settled = true;
    if (error === undefined) this.queue.flush();
    this.queue.drop();
    if (!this.socket.destroyed) {
      farewell();
      this.socket.end();
    }
    this.#destroyAfter(LINGER_MS);
    this.#parser.stop();
    process.nextTick(() => {
      this.#releaseHeld();
      this.handlers?.onClose(error);
    });
  }

  /** The peer ended the stream: after the messages that are held while paused it is over. */
  protected peerEnded(error: StorageError | undefined, farewell: () => void): void {
    if (this.#settled || this.receivedEnd) return;
    this.receivedEnd = true;
    let reason = error;
    if (reason === undefined && !this.#assembler.atBoundary) {
      reason = new StorageError('PROTOCOL_ERROR', `${this.peer} ended the stream inside a message`);
    }
    this.#parser.stop();
    if (this.#held.length > 0) {
      this.#heldEnd = { error: reason };
      this.#heldFarewell = farewell;
    } else this.finish(reason, farewell);
  }
  #heldFarewell: () => void = () => undefined;

  protected connectionError(h2Error: number, error: StorageError): void {
    this.finish(error, () => this.write(goawayFrame(STREAM_ID, h2Error)));
  }

  /** Writes a frame outside the flow of messages; for the last words, so it never throws. */
  protected write(bytes: Buffer): void {
    if (!this.socket.destroyed && !this.socket.writableEnded) this.socket.write(bytes);
  }

  #destroyAfter(delayMs: number): void {
    this.#linger?.cancel();
    if (this.socket.destroyed) return;
    this.#linger = this.clock.after(delayMs, () => this.socket.destroy(), { background: true });
  }

  #lost(cause: Error | undefined): void {
    if (this.#settled) {
      // Nothing more comes: no need to linger.
      if (cause === undefined && this.socket.writableFinished) this.socket.destroy();
      return;
    }
    const why = cause?.message ?? 'closed by the other side';
    const error = new StorageError(
      'UNAVAILABLE',
      `connection to ${this.peer} lost: ${why}`,
      {},
      { cause },
    );
    this.finish(error, () => undefined);
    this.socket.destroy();
  }

  // --- messages

  #deliver(message: ReceivedMessage): void {
    if (this.#settled || this.handlers === undefined) {
      message.release();
      return;
    }
    if (this.#paused || this.#held.length > 0) {
      this.#held.push(message);
      return;
    }
    this.#handle(message, this.handlers);
  }

  #handle(message: ReceivedMessage, handlers: MessageStreamHandlers): void {
    try {
      handlers.onMessage(message);
    } finally {
      message.release();
    }
  }

  #deliverHeld(): void {
    let delivered = 0;
    try {
      while (!this.#paused && !this.#settled && delivered < this.#held.length) {
        const message = this.#held[delivered++] as ReceivedMessage;
        if (this.handlers !== undefined) this.#handle(message, this.handlers);
      }
    } catch (error) {
      this.close(toStorageError(error, 'message handler'));
      if (!(error instanceof StorageError)) throw error;
    } finally {
      this.#held.splice(0, delivered);
    }
    const end = this.#heldEnd;
    if (end !== undefined && this.#held.length === 0) this.finish(end.error, this.#heldFarewell);
  }

  #releaseHeld(): void {
    for (const message of this.#held.splice(0)) message.release();
  }

  // --- frames

  onDataStart(streamId: number, lengthBytes: number): void {
    this.#checkFirst(FRAME.DATA);
    if (streamId === 0) throw new Http2Error(H2_ERROR.PROTOCOL_ERROR, 'DATA on stream 0');
    const ours = streamId === STREAM_ID;
    this.#window.take(lengthBytes, ours);
    if (lengthBytes === 0 || !ours) this.#flood.count(this.clock.nowMs());
    if (ours && !this.streamOpen) {
      throw new Http2Error(H2_ERROR.PROTOCOL_ERROR, 'DATA before HEADERS');
    }
    this.#spanBytes = 0;
  }

  onDataSpan(streamId: number, chunk: Buffer, span: { start: number; end: number }): void {
    if (streamId !== STREAM_ID) return;
    this.#spanBytes += span.end - span.start;
    this.#assembler.push(chunk, span, this.#piece);
  }

  onDataEnd(streamId: number, flags: number, lengthBytes: number): void {
    if (streamId !== STREAM_ID) return;
    const padding = lengthBytes - this.#spanBytes;
    if (padding > 0) this.#window.credit(padding);
    if ((flags & FLAG.END_STREAM) !== 0) this.onEndOfData();
  }

  /** HEADERS that open the stream for DATA from the peer have come. */
  protected abstract get streamOpen(): boolean;

  onFrame(header: ParsedHeader, payload: Buffer): void {
    this.#checkFirst(header.type);
    switch (header.type) {
      case FRAME.HEADERS:
        this.#flood.count(this.clock.nowMs());
        this.#onBlock(this.#blocks.start(header, payload));
        return;
      case FRAME.CONTINUATION:
        this.#onBlock(this.#blocks.goOn(header, payload));
        return;
      case FRAME.SETTINGS:
        this.#onSettings(header, payload);
        return;
      case FRAME.WINDOW_UPDATE:
        this.#onWindowUpdate(header.streamId, payload);
        return;
      case FRAME.PING:
        this.#onPing(header, payload);
        return;
      case FRAME.RST_STREAM:
        this.#onReset(header.streamId, payload);
        return;
      case FRAME.GOAWAY:
        this.#onGoaway(payload);
        return;
      case FRAME.PUSH_PROMISE:
        throw new Http2Error(H2_ERROR.PROTOCOL_ERROR, 'PUSH_PROMISE');
      default:
        // PRIORITY, and what extensions may send.
        this.#flood.count(this.clock.nowMs());
    }
  }

  #checkFirst(type: number): void {
    if (!this.#sawSettings && type !== FRAME.SETTINGS) {
      throw new Http2Error(H2_ERROR.PROTOCOL_ERROR, 'the first frame is not SETTINGS');
    }
    this.#blocks.check(type);
  }

  #onBlock(block: HeaderBlock | undefined): void {
    if (block !== undefined) this.onHeaders(block.streamId, block.headers, block.endStream);
  }

  #onSettings(header: ParsedHeader, payload: Buffer): void {
    if (header.streamId !== 0) throw new Http2Error(H2_ERROR.PROTOCOL_ERROR, 'SETTINGS on stream');
    this.#flood.count(this.clock.nowMs());
    if ((header.flags & FLAG.ACK) !== 0) {
      if (payload.length > 0) throw new Http2Error(H2_ERROR.FRAME_SIZE_ERROR, 'SETTINGS ack');
      return;
    }
    const settings = parseSettings(payload);
    if (settings.specialised === true) this.peerSpecialised = true;
    if (settings.frameBytesMax !== undefined) this.queue.frameBytesMax = settings.frameBytesMax;
    if (settings.initialWindow !== undefined) this.queue.setInitialWindow(settings.initialWindow);
    this.queue.control(SETTINGS_ACK_FRAME);
    if (this.#sawSettings) return;
    this.#sawSettings = true;
    this.onReady();
  }

  #onWindowUpdate(streamId: number, payload: Buffer): void {
    if (payload.length !== 4) throw new Http2Error(H2_ERROR.FRAME_SIZE_ERROR, 'WINDOW_UPDATE');
    const increment = payload.readUInt32BE(0) & 0x7fffffff;
    if (streamId === 0) this.queue.grow('connection', increment);
    else if (streamId === STREAM_ID) this.queue.grow('stream', increment);
    else this.#flood.count(this.clock.nowMs());
  }

  #onPing(header: ParsedHeader, payload: Buffer): void {
    if (header.streamId !== 0) throw new Http2Error(H2_ERROR.PROTOCOL_ERROR, 'PING on stream');
    if (payload.length !== 8) throw new Http2Error(H2_ERROR.FRAME_SIZE_ERROR, 'PING');
    this.#flood.count(this.clock.nowMs());
    if ((header.flags & FLAG.ACK) !== 0) return;
    this.queue.control(frame(FRAME.PING, payload, { flags: FLAG.ACK }));
  }

  #onReset(streamId: number, payload: Buffer): void {
    if (payload.length !== 4) throw new Http2Error(H2_ERROR.FRAME_SIZE_ERROR, 'RST_STREAM');
    if (streamId === 0) throw new Http2Error(H2_ERROR.PROTOCOL_ERROR, 'RST_STREAM on stream 0');
    this.#flood.count(this.clock.nowMs());
    if (streamId !== STREAM_ID) return;
    this.finish(errorOfReset(payload.readUInt32BE(0), this.peer), () => this.goodbye());
  }

  #onGoaway(payload: Buffer): void {
    if (payload.length < 8) throw new Http2Error(H2_ERROR.FRAME_SIZE_ERROR, 'GOAWAY');
    const lastStreamId = payload.readUInt32BE(0) & 0x7fffffff;
    const code = payload.readUInt32BE(4);
    this.#flood.count(this.clock.nowMs());
    if (code === H2_ERROR.NO_ERROR && lastStreamId >= STREAM_ID) return;
    const text = `${this.peer} closes the connection: ${h2ErrorName(code)}`;
    const calm = code === H2_ERROR.ENHANCE_YOUR_CALM;
    this.finish(new StorageError(calm ? 'OVERLOADED' : 'UNAVAILABLE', text), () => undefined);
  }

  protected goodbye(): void {
    this.write(goawayFrame(STREAM_ID, H2_ERROR.NO_ERROR));
  }
}

function errorOfReset(code: number, peer: string): StorageError {
  const text = `${peer} reset the stream: ${h2ErrorName(code)}`;
  if (code === H2_ERROR.CANCEL) return new StorageError('ABORTED', text);
  if (code === H2_ERROR.REFUSED_STREAM) return new StorageError('UNAVAILABLE', text);
  if (code === H2_ERROR.ENHANCE_YOUR_CALM) return new StorageError('OVERLOADED', text);
  return new StorageError('PROTOCOL_ERROR', text);
}
