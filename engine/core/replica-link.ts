/**
 * The engine's end of one data stream to one replica.
 *
 * Invariants
 * - Replies are matched by id; a reply nobody waits for, or a second one, breaks the link
 *   (PROTOCOL_ERROR).
 * - A link that broke stays broken: every operation that waited on it is told `onLost` once, and
 *   the replica has to come back through recovery (P7). Nothing is sent again here.
 * - Operations older than the deadline break the link, so do pings that are not answered: half-open
 *   peers are found by our own messages, not by TCP's patience (scenarios 25, 34).
 */
import assert from 'node:assert';
import type { Clock } from '../../common/clock.js';
import { StorageError } from '../../common/errors.js';
import {
  type ChecksumBlocks,
  decodeIoReplyBatch,
  encodeIoHello,
  IO_OP,
  IoBatchEncoder,
  type IoHello,
  type IoHelloReply,
  type IoReplaceContent,
  type IoReplyBatchVisitor,
  type IoReplyView,
} from '../../proto/io-codec.js';
import type {
  IncomingMessage,
  MessageStream,
  OutgoingMessage,
} from '../../proto/message-stream.js';
import type { EndOfTurn, PendingOp } from './pending-op.js';
import type { LeaseMember } from './read-lease.js';

export interface ReplicaLinkOptions {
  readonly index: number;
  readonly replicaId: string;
  readonly address: string;
  /** same host: preferred for reads */
  readonly local: boolean;
  readonly clock: Clock;
  readonly endOfTurn: EndOfTurn;
  readonly nextId: () => number;
  /** told to the replica with each message: its in-flight window shrinks to what is later */
  readonly ackedThrough: () => number;
  readonly checksumBlocks: ChecksumBlocks;
  /** an operation without an answer for so long breaks the link */
  readonly opDeadlineMs: number;
  /** a member that confirmed nothing for so long is pinged … */
  readonly keepaliveMs: number;
  /** … and given up if it does not answer within this: half-open peers are found in their sum and a
   *  tick */
  readonly pingDeadlineMs: number;
  readonly onBroken: (link: ReplicaLink, error: StorageError) => void;
}

/** Weight of the newest sample in the smoothed latency. */
const LATENCY_WEIGHT = 1 / 16;

/** Asks only for an answer. */
class Ping implements PendingOp {
  sentMs = 0;
  open = true;

  onReply(): void {
    this.open = false;
  }

  onLost(): void {
    this.open = false;
  }
}

export class ReplicaLink implements LeaseMember {
  readonly index: number;
  readonly replicaId: string;
  readonly address: string;
  readonly local: boolean;
  /** Smoothed milliseconds from send to reply; 0 before the first sample. */
  readLatencyMs = 0;
  writeLatencyMs = 0;
  /** changes acknowledged in all */
  writes = 0;
  confirmedMs = Number.NEGATIVE_INFINITY;
  readonly #options: ReplicaLinkOptions;
  readonly #pending = new Map<number, PendingOp>();
  readonly #encoder: IoBatchEncoder;
  #stream: MessageStream | undefined;
  #broken: StorageError | undefined;
  #turnScheduled = false;
  #lastHeardMs: number;
  #ping: Ping | undefined;
  #message: IncomingMessage | undefined;
  #hello:
    | { resolve: (reply: IoHelloReply) => void; reject: (error: StorageError) => void }
    | undefined;
  readonly #visitor: IoReplyBatchVisitor = {
    onHello: (reply) => this.#onHello(reply),
    onReply: (view) => this.#onReply(view),
  };

  constructor(options: ReplicaLinkOptions) {
    this.index = options.index;
    this.replicaId = options.replicaId;
    this.address = options.address;
    this.local = options.local;
    this.#options = options;
    this.#lastHeardMs = options.clock.nowMs();
    // For what concerns this replica alone; changes by clients are encoded once for all by the
    // fan-out.
    this.#encoder = new IoBatchEncoder({ checksumBlocks: options.checksumBlocks });
  }

  get broken(): StorageError | undefined {
    return this.#broken;
  }

  /** When the newest message came. */
  get lastHeardMs(): number {
    return this.#lastHeardMs;
  }

  get inFlight(): number {
    return this.#pending.size;
  }

  /** Takes the stream (its handlers must lead to `onMessage` and `onClose`) and says hello;
   *  resolves with the answer.
   *  @throws StorageError what the replica refused with (STALE_EPOCH, IDENTITY_MISMATCH …), or why
   *    the stream ended */
  attach(stream: MessageStream, hello: IoHello): Promise<IoHelloReply> {
    assert(this.#stream === undefined, 'a link has one stream in its life');
    if (this.#broken !== undefined) {
      stream.close();
      return Promise.reject(this.#broken);
    }
    this.#stream = stream;
    const answered = new Promise<IoHelloReply>((resolve, reject) => {
      this.#hello = { resolve, reject };
    });
    stream.send(encodeIoHello(hello));
    return answered;
  }

  #onHello(reply: IoHelloReply): void {
    if (this.#hello === undefined) {
      throw new StorageError('PROTOCOL_ERROR', `replica ${this.replicaId} said hello twice`);
    }
    this.#hello.resolve(reply);
    this.#hello = undefined;
  }

  /** Files the operation under an id that a message about to be sent carries. */
  expect(id: number, op: PendingOp): void {
    this.#pending.set(id, op);
  }

  /** Sends a message that the fan-out shares among links. On a broken link only `done` is
   *  called. */
  send(message: OutgoingMessage): void {
    if (this.#stream === undefined || this.#broken !== undefined) message.done();
    else this.#stream.send(message);
  }

  /** Queues a request without payload; goes out at the end of the turn. On a broken link: `onLost`
   *  at once. */
  request(
    op: PendingOp,
    fields: {
      op: number;
      flags: number;
      offsetBytes: number;
      lengthBytes: number;
      arg?: number;
    },
  ): void {
    const id = this.#file(op, 0);
    if (id < 0) return;
    this.#encoder.add({ ...fields, id, arg: fields.arg ?? 0 });
    this.#schedule();
  }

  /** Writes whole blocks to this replica only: recovery and repair. `payload` is copied before the
   *  call returns. */
  requestWrite(op: PendingOp, offsetBytes: number, payload: Buffer): void {
    const id = this.#file(op, payload.length);
    if (id < 0) return;
    const fields = { flags: 0, id, offsetBytes, lengthBytes: payload.length };
    this.#encoder.addWrite(fields, [payload]);
    this.#schedule();
  }

  /** Makes a range of this replica hold exactly these blocks: recovery. Copied before the call
   *  returns. */
  requestReplace(
    op: PendingOp,
    range: { readonly offsetBytes: number; readonly lengthBytes: number },
    content: IoReplaceContent,
  ): void {
    const payloadBytes = content.payload.reduce((sum, piece) => sum + piece.length, 0);
    const id = this.#file(op, payloadBytes);
    if (id < 0) return;
    this.#encoder.addReplace({ id, ...range }, content);
    this.#schedule();
  }

  /** The id under which the operation waits; -1 if the link is broken and the operation was
   *  told. */
  #file(op: PendingOp, payloadBytes: number): number {
    if (this.#broken !== undefined) {
      op.onLost(this, this.#broken);
      return -1;
    }
    if (!this.#encoder.fits(payloadBytes)) this.#flushRequests();
    const id = this.#options.nextId();
    op.sentMs = this.#options.clock.nowMs();
    this.#pending.set(id, op);
    return id;
  }

  #schedule(): void {
    if (this.#turnScheduled) return;
    this.#turnScheduled = true;
    this.#options.endOfTurn(this.#flush);
  }

  readonly #flush = (): void => {
    this.#turnScheduled = false;
    this.#flushRequests();
  };

  #flushRequests(): void {
    if (this.#encoder.requests > 0)
      this.send(this.#encoder.finish(this.#options.ackedThrough(), 1));
  }

  onMessage(message: IncomingMessage): void {
    if (this.#broken !== undefined) return;
    this.#lastHeardMs = this.#options.clock.nowMs();
    this.#message = message;
    try {
      decodeIoReplyBatch(message.bytes, this.#visitor);
    } catch (error) {
      if (!(error instanceof StorageError)) throw error;
      this.break(error);
    } finally {
      this.#message = undefined;
    }
  }

  #onReply(view: IoReplyView): void {
    const op = this.#pending.get(view.id);
    if (op === undefined) {
      throw new StorageError(
        'PROTOCOL_ERROR',
        `replica ${this.replicaId} answered unknown id ${view.id}`,
      );
    }
    this.#pending.delete(view.id);
    if (op.sentMs > this.confirmedMs) this.confirmedMs = op.sentMs;
    op.onReply(this, view, this.#message as IncomingMessage);
  }

  noteRead(sentMs: number): void {
    this.readLatencyMs += (this.#lastHeardMs - sentMs - this.readLatencyMs) * LATENCY_WEIGHT;
  }

  noteWrite(sentMs: number): void {
    this.writes += 1;
    this.writeLatencyMs += (this.#lastHeardMs - sentMs - this.writeLatencyMs) * LATENCY_WEIGHT;
  }

  /** Operations that wait, oldest first. */
  pending(): IterableIterator<PendingOp> {
    return this.#pending.values();
  }

  confirm(): void {
    if (this.#broken !== undefined || this.#ping?.open === true) return;
    this.#ping = new Ping();
    this.request(this.#ping, { op: IO_OP.PING, flags: 0, offsetBytes: 0, lengthBytes: 0 });
  }

  /** Called about once a second: deadline of the oldest operation, keepalive.
   *  @param patience factor on the deadline: the last member is given more time, for without it the
   *    volume is gone */
  tick(patience: number): void {
    if (this.#broken !== undefined) return;
    const { opDeadlineMs, pingDeadlineMs, keepaliveMs, clock } = this.#options;
    const now = clock.nowMs();
    const oldest = this.#pending.values().next();
    const waitedMs = oldest.done ? 0 : now - oldest.value.sentMs;
    const pingedMs = this.#ping?.open === true ? now - this.#ping.sentMs : 0;
    if (waitedMs > opDeadlineMs * patience || pingedMs > pingDeadlineMs * patience) {
      const waited = `${Math.round(Math.max(waitedMs, pingedMs))} ms`;
      const message = `replica ${this.replicaId} left an operation unanswered for ${waited}`;
      this.break(new StorageError('DEADLINE', message, { replica: this.replicaId }));
    } else if (now - this.confirmedMs >= keepaliveMs) this.confirm();
  }

  /** The peer or the network ended the stream. */
  onClose(error: StorageError | undefined): void {
    const ended = `data stream to replica ${this.replicaId} at ${this.address} ended`;
    this.break(error ?? new StorageError('UNAVAILABLE', ended, { replica: this.replicaId }));
  }

  /** Gives the replica up: everything waiting is lost, the stream is closed. Idempotent. */
  break(error: StorageError): void {
    if (this.#broken !== undefined) return;
    this.#broken = error;
    this.#stream?.close(error);
    this.#hello?.reject(error);
    this.#hello = undefined;
    const lost = this.#takePending();
    // The set learns of the failure first, so that nothing lost below can be acknowledged without
    // this member (P3).
    this.#options.onBroken(this, error);
    for (const op of lost) op.onLost(this, error);
  }

  /** Ends the stream in order, after the last client operation. Recovery that still waits is told;
   *  nobody learns of a failure. */
  close(): void {
    if (this.#broken !== undefined) return;
    const error = new StorageError('CLOSED', `link to replica ${this.replicaId} is closed`);
    this.#broken = error;
    this.#stream?.close();
    for (const op of this.#takePending()) op.onLost(this, error);
  }

  #takePending(): PendingOp[] {
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    return pending;
  }
}
