/**
 * The seam between data path and network: one gRPC bidirectional stream, seen as messages of bytes.
 *
 * Implemented by the specialised HTTP/2 endpoint, by stock grpc-js, and by the simulator's network.
 * Messages are encoded protobuf (IoBatch, IoReplyBatch); the stream neither reads nor changes them.
 */
import type { StorageError } from '../common/errors.js';

/** Bytes that a sender leaves free in front of a message: HTTP/2 frame header (9) and gRPC header
 * (5). */
export const MESSAGE_HEADROOM = 14;
/** Largest message either side sends or accepts. A longer declared length ends the stream before
 * anything is allocated. */
export const MESSAGE_BYTES_MAX = 4 * 1024 * 1024;

/**
 * A message ready to send. `head` holds MESSAGE_HEADROOM free bytes and then the first bytes of the
 * message; `tail` are further pieces (large payloads sent by reference). The same object may be
 * sent on several streams at once: the headroom is written with equal contents by each (stream ids
 * are equal on specialised endpoints), or not used at all.
 */
export interface OutgoingMessage {
  readonly head: Buffer;
  readonly tail: readonly Buffer[];
  /** message bytes: head.length - MESSAGE_HEADROOM + sum of tail */
  readonly lengthBytes: number;
  /** Called exactly once by each stream that took the message, when it needs the bytes no longer:
   * sent, or stream closed. */
  done(): void;
}

/** One whole message that arrived. Valid until the handler returns, and longer for who retains it.
 */
export interface IncomingMessage {
  /** The message; starts at an address that is a multiple of 4096 in pool memory if `aligned`, else
   * anywhere. */
  readonly bytes: Buffer;
  readonly aligned: boolean;
  /** Keeps the bytes alive past the handler; pair each call with one `release`. */
  retain(): void;
  release(): void;
}

export interface MessageStreamHandlers {
  onMessage(message: IncomingMessage): void;
  /** The queue fell under the low mark after `send` returned false. */
  onDrain(): void;
  /** Exactly once, last call. No error: the peer ended the stream in order. */
  onClose(error: StorageError | undefined): void;
}

export interface MessageStream {
  readonly peer: string;
  /** Bytes taken by `send` and not yet given to the kernel. */
  readonly queuedBytes: number;
  /** Takes the message. False: more than the high mark is queued, send nothing more until onDrain
   *  (a sender that goes on is a programmer error past 64 MiB queued and asserts). After close:
   *  done() is called at once. */
  send(message: OutgoingMessage): boolean;
  /** Stops and restarts reading from the network: back-pressure to the peer. */
  pause(): void;
  resume(): void;
  /** Ends our side in order after what is queued; with an error: ends at once with that status.
   * Idempotent. */
  close(error?: StorageError): void;
}
