/**
 * One listener per process serves the data stream and the control services; one connection per engine-replica pair
 * carries the data stream. gRPC on the wire (docs/wire-protocol.md); why not stock grpc-js everywhere: ADR 0003.
 */
import type { AlignedBuffer } from '../common/block-device.js';
import type { Clock } from '../common/clock.js';
import type { Logger } from '../common/log.js';
import type { ControlService } from './control.js';
import type { MessageStream, MessageStreamHandlers } from './message-stream.js';
import type { TransportTls } from './transport/tls.js';

export type { TransportTls } from './transport/tls.js';

/** Memory for messages that do not arrive whole in one piece. May throw OVERLOADED: then ordinary memory is taken. */
export type AcquireMemory = (lengthBytes: number) => AlignedBuffer;

export interface TransportLimits {
  /** open connections of all kinds (512) */
  readonly connectionsMax: number;
  /** of those, not yet past TLS and HTTP/2 preface (64) */
  readonly handshakesMax: number;
  readonly handshakeMs: number;
}

export interface ListenOptions {
  /** `host:port` (port 0: any free one) or `unix:/path` (mode 0600; a dead socket file is replaced) */
  readonly address: string;
  readonly tls?: TransportTls | undefined;
  readonly acquire: AcquireMemory;
  /** Called once per data stream, before its first message. */
  onIoStream(stream: MessageStream): MessageStreamHandlers;
  readonly services: readonly ControlService[];
  readonly limits?: Partial<TransportLimits> | undefined;
  readonly log: Logger;
  readonly clock: Clock;
}

export interface TransportListener {
  /** As given, with the real port. */
  readonly address: string;
  /** Open connections now. */
  readonly connections: number;
  /** Refuses new connections, ends data streams with CLOSED, lets running control calls finish for 2 s, then cuts. */
  close(): Promise<void>;
}

export interface ConnectOptions {
  readonly address: string;
  readonly tls?: TransportTls | undefined;
  readonly acquire: AcquireMemory;
  readonly handlers: MessageStreamHandlers;
  readonly clock: Clock;
  /** From call to usable stream; default 10 s. */
  readonly deadlineMs?: number | undefined;
}

export function listenTransport(_options: ListenOptions): Promise<TransportListener> {
  throw new Error('not yet');
}

/** Resolves with a stream that is ready to send. The handlers may be called before the caller sees the promise settle.
 *  @throws StorageError UNAVAILABLE | DEADLINE | PERMISSION (TLS) | PROTOCOL_ERROR; the handlers are then never called */
export function connectIo(_options: ConnectOptions): Promise<MessageStream> {
  throw new Error('not yet');
}
