/**
 * One NBD connection over a unix socket, in transmission: sends frames, cuts the stream of replies.
 *
 * Frames of one turn of the event loop leave in one write: small ones are copied into a staging
 * buffer, large ones go by reference and are held until the socket let go of them. Received bytes
 * are handed on in place; only a reply that spans two reads is assembled, in the one buffer that
 * exists for that, most of it received there directly.
 */
import assert from 'node:assert';
import { connect as connectSocket, type Socket } from 'node:net';
import type { Clock } from '../../common/clock.js';
import { StorageError } from '../../common/errors.js';
import { KIB } from '../../common/units.js';
import {
  COMMAND,
  REQUEST_BYTES,
  SIMPLE_REPLY_BYTES,
  SIMPLE_REPLY_MAGIC,
} from '../nbd/constants.js';
import { NbdHandshake } from './nbd-handshake.js';
import type { NbdRequest } from './nbd-request.js';
import { type ExportInfo, encodeRequest } from './nbd-wire.js';

const RECEIVE_BYTES = 256 * KIB;
const STAGING_BYTES = 256 * KIB;
/** Frames up to this length are copied: cheaper than one more piece in a gathered write. */
const COPIED_FRAME_BYTES_MAX = 16 * KIB;
const STAGING_KEPT_MAX = 4;
/** A rest this long is received in its place; less goes through the receive buffer, with what
 *  follows it. */
const DIRECT_BYTES_MIN = 64 * KIB;

export interface NbdConnectionOptions {
  readonly socketPath: string;
  readonly exportName: string;
  readonly clock: Clock;
  /** connect and negotiation together */
  readonly timeoutMs: number;
  /** longest READ that will be asked for */
  readonly readBytesMax: number;
}

export interface NbdConnectionHandlers {
  /** The request that this cookie names and that is sent and unanswered, else undefined. */
  requestOf(high: number, low: number): NbdRequest | undefined;
  /** @param reply see NbdRequest.complete */
  onReply(request: NbdRequest, errno: number, reply: Buffer | undefined): void;
  /** Once, last call. `PROTOCOL_ERROR`: the server is broken; else the connection or the server
   *  ended. */
  onClose(error: StorageError): void;
}

export class NbdConnection {
  readonly #socket: Socket;
  readonly #receive = Buffer.allocUnsafeSlow(RECEIVE_BYTES);
  readonly #options: NbdConnectionOptions;
  #handshake: NbdHandshake | undefined;
  #onHandshake: ((outcome: ExportInfo | StorageError) => void) | undefined;
  #handlers: NbdConnectionHandlers | undefined;
  #closed = false;

  #queue: NbdRequest[] = [];
  readonly #stagingFree: Buffer[] = [];

  // A reply that spans reads: `#assembled` bytes of it are in `#assembly`.
  #assembly: Buffer = Buffer.allocUnsafeSlow(SIMPLE_REPLY_BYTES);
  #assembled = 0;
  #assembledRequest: NbdRequest | undefined;

  /** Connects and negotiates; `go` opens the export, `info` only asks and ends the connection.
   *  @throws StorageError UNAVAILABLE | NOT_FOUND | PROTOCOL_ERROR | DEADLINE */
  static async open(
    options: NbdConnectionOptions,
    purpose: 'go' | 'info',
  ): Promise<{ connection: NbdConnection; info: ExportInfo }> {
    const connection = new NbdConnection(options, purpose);
    const info = await connection.#negotiate();
    if (purpose === 'info') connection.#socket.end(NbdHandshake.abort());
    return { connection, info };
  }

  private constructor(options: NbdConnectionOptions, purpose: 'go' | 'info') {
    this.#options = options;
    this.#handshake = new NbdHandshake(options.exportName, purpose);
    this.#socket = connectSocket({
      path: options.socketPath,
      onread: {
        buffer: () => this.#nextBuffer(),
        callback: (lengthBytes, buffer) => {
          this.#onBytes(lengthBytes, buffer);
          return true;
        },
      },
    });
    this.#socket.on('error', (cause) => {
      this.#fail(new StorageError('UNAVAILABLE', `NBD socket: ${cause.message}`, {}, { cause }));
    });
    this.#socket.on('close', () => {
      this.#fail(new StorageError('UNAVAILABLE', 'the NBD server closed the connection'));
    });
  }

  /** Starts the exchange of requests. Before this nothing is sent and nothing may be received. */
  start(handlers: NbdConnectionHandlers): void {
    assert(this.#handlers === undefined);
    this.#handlers = handlers;
    if (this.#closed) {
      handlers.onClose(new StorageError('UNAVAILABLE', 'the NBD server closed the connection'));
    }
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Queues the request, whose header is filled in here; `flush` sends everything queued. */
  send(request: NbdRequest, cookie: { high: number; low: number }): void {
    encodeRequest(request.frame, 0, request, cookie);
    request.holdFrame();
    this.#queue.push(request);
  }

  /** Gives the queued frames to the kernel. Cheap when nothing is queued. */
  flush(): void {
    const queue = this.#queue;
    if (queue.length === 0) return;
    this.#queue = [];
    if (this.#closed) {
      for (const request of queue) request.releaseFrame();
      return;
    }
    const first = queue[0] as NbdRequest;
    if (queue.length === 1) {
      this.#socket.write(first.frame, () => first.releaseFrame());
      return;
    }
    this.#socket.cork();
    let staging: Buffer | undefined;
    let staged = 0;
    for (const request of queue) {
      const frame = request.frame;
      const copied = frame.length <= COPIED_FRAME_BYTES_MAX;
      if (staging !== undefined && (!copied || staged + frame.length > STAGING_BYTES)) {
        this.#writeStaging(staging, staged);
        staging = undefined;
      }
      if (!copied) {
        this.#socket.write(frame, () => request.releaseFrame());
        continue;
      }
      if (staging === undefined) {
        staging = this.#stagingFree.pop() ?? Buffer.allocUnsafeSlow(STAGING_BYTES);
        staged = 0;
      }
      frame.copy(staging, staged);
      staged += frame.length;
      request.releaseFrame();
    }
    if (staging !== undefined) this.#writeStaging(staging, staged);
    this.#socket.uncork();
  }

  /** Ends in order: DISC after everything sent. The caller waited for its replies. onClose is not
   *  called. */
  disconnect(): void {
    this.flush();
    this.#handlers = undefined;
    this.#closed = true;
    const frame = Buffer.alloc(REQUEST_BYTES);
    const request = { type: COMMAND.DISC, flags: 0, offsetBytes: 0, lengthBytes: 0 };
    encodeRequest(frame, 0, request, { high: 0, low: 0 });
    this.#socket.end(frame, () => this.#socket.destroy());
  }

  /** Ends at once; unsent frames are let go. onClose is called with `error`. */
  destroy(error: StorageError): void {
    this.#fail(error);
  }

  #writeStaging(staging: Buffer, lengthBytes: number): void {
    this.#socket.write(staging.subarray(0, lengthBytes), () => {
      if (this.#stagingFree.length < STAGING_KEPT_MAX) this.#stagingFree.push(staging);
    });
  }

  #negotiate(): Promise<ExportInfo> {
    return new Promise((resolve, reject) => {
      const timer = this.#options.clock.after(this.#options.timeoutMs, () => {
        this.#fail(new StorageError('DEADLINE', 'the NBD server does not finish the handshake'));
      });
      this.#onHandshake = (outcome) => {
        timer.cancel();
        this.#onHandshake = undefined;
        if (outcome instanceof StorageError) reject(outcome);
        else resolve(outcome);
      };
    });
  }

  /** Where the next bytes go: the rest of a long read straight to its place. */
  #nextBuffer(): Uint8Array {
    const request = this.#assembledRequest;
    if (request === undefined) return this.#receive;
    const total = replyBytes(request, this.#assembly.readUInt32BE(4));
    if (total - this.#assembled < DIRECT_BYTES_MIN) return this.#receive;
    return this.#assembly.subarray(this.#assembled, total);
  }

  #onBytes(lengthBytes: number, buffer: Uint8Array): void {
    if (this.#closed) return;
    const bytes = this.#receive.subarray(0, lengthBytes);
    try {
      if (buffer !== this.#receive) this.#takeDirect(lengthBytes);
      else if (this.#handshake !== undefined) this.#takeHandshake(this.#handshake, bytes);
      else this.#takeReplies(bytes);
    } catch (error) {
      if (!(error instanceof StorageError)) throw error;
      this.#fail(error);
    }
  }

  #takeHandshake(handshake: NbdHandshake, bytes: Buffer): void {
    // Copied: the handshake keeps incomplete bytes, and the receive buffer is read into again.
    const step = handshake.push(Buffer.from(bytes));
    if (step.kind === 'need-more') return;
    if (step.kind === 'send') {
      this.#socket.write(step.bytes);
      return;
    }
    this.#handshake = undefined;
    if (step.rest.length > 0) {
      throw new StorageError('PROTOCOL_ERROR', 'NBD server speaks before it is asked');
    }
    this.#onHandshake?.(step.info);
  }

  #takeReplies(bytes: Buffer): void {
    let at = 0;
    if (this.#assembled > 0) at = this.#continueAssembly(bytes);
    while (at + SIMPLE_REPLY_BYTES <= bytes.length && !this.#closed) {
      const request = this.#requestOfHeader(bytes, at);
      const errno = bytes.readUInt32BE(at + 4);
      const end = at + replyBytes(request, errno);
      if (end > bytes.length) {
        this.#beginAssembly(request, end - at);
        break;
      }
      this.#deliver(request, errno, bytes.subarray(at, end));
      at = end;
    }
    if (at < bytes.length && !this.#closed) {
      bytes.copy(this.#assembly, this.#assembled, at);
      this.#assembled += bytes.length - at;
    }
  }

  #takeDirect(lengthBytes: number): void {
    const request = this.#assembledRequest;
    assert(request !== undefined);
    this.#assembled += lengthBytes;
    const errno = this.#assembly.readUInt32BE(4);
    const total = replyBytes(request, errno);
    if (this.#assembled < total) return;
    this.#assembledRequest = undefined;
    this.#assembled = 0;
    this.#deliver(request, errno, this.#assembly.subarray(0, total));
  }

  /** Takes what belongs to the reply under assembly; returns how many bytes that were. */
  #continueAssembly(bytes: Buffer): number {
    let at = 0;
    if (this.#assembledRequest === undefined) {
      at = Math.min(SIMPLE_REPLY_BYTES - this.#assembled, bytes.length);
      bytes.copy(this.#assembly, this.#assembled, 0, at);
      this.#assembled += at;
      if (this.#assembled < SIMPLE_REPLY_BYTES) return at;
      const request = this.#requestOfHeader(this.#assembly, 0);
      this.#beginAssembly(request, replyBytes(request, this.#assembly.readUInt32BE(4)));
    }
    const request = this.#assembledRequest as NbdRequest;
    const errno = this.#assembly.readUInt32BE(4);
    const total = replyBytes(request, errno);
    const taken = Math.min(total - this.#assembled, bytes.length - at);
    bytes.copy(this.#assembly, this.#assembled, at, at + taken);
    this.#assembled += taken;
    if (this.#assembled === total) {
      this.#assembledRequest = undefined;
      this.#assembled = 0;
      this.#deliver(request, errno, this.#assembly.subarray(0, total));
    }
    return at + taken;
  }

  #beginAssembly(request: NbdRequest, totalBytes: number): void {
    this.#assembledRequest = request;
    if (this.#assembly.length >= totalBytes) return;
    const larger = Buffer.allocUnsafeSlow(this.#options.readBytesMax + SIMPLE_REPLY_BYTES);
    assert(larger.length >= totalBytes);
    this.#assembly.copy(larger, 0, 0, this.#assembled);
    this.#assembly = larger;
  }

  #deliver(request: NbdRequest, errno: number, reply: Buffer): void {
    const withData = request.type === COMMAND.READ && errno === 0;
    this.#handlers?.onReply(request, errno, withData ? reply : undefined);
  }

  #requestOfHeader(bytes: Buffer, at: number): NbdRequest {
    if (bytes.readUInt32BE(at) !== SIMPLE_REPLY_MAGIC) {
      throw new StorageError('PROTOCOL_ERROR', 'NBD reply has a wrong magic number');
    }
    const high = bytes.readUInt32BE(at + 8);
    const low = bytes.readUInt32BE(at + 12);
    const request = this.#handlers?.requestOf(high, low);
    if (request === undefined) {
      throw new StorageError('PROTOCOL_ERROR', `NBD reply to unknown request ${high}:${low}`);
    }
    return request;
  }

  #fail(error: StorageError): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#socket.destroy();
    for (const request of this.#queue.splice(0)) request.releaseFrame();
    this.#onHandshake?.(error);
    this.#handlers?.onClose(error);
  }
}

function replyBytes(request: NbdRequest, errno: number): number {
  const withData = request.type === COMMAND.READ && errno === 0;
  return SIMPLE_REPLY_BYTES + (withData ? request.lengthBytes : 0);
}
