/**
 * A connection between two simulated processes, seen from both ends as a MessageStream.
 *
 * Each direction is a pipe with the promises of TCP: in order, whole, once, or the connection ends.
 * A pipe takes so many bytes that were not read yet; what is more waits with its sender and counts
 * as queued. A process that dies ends its connections; a host without power does not say a word,
 * and the peer hears of it only when it sends something after the host is up again.
 */
import assert from 'node:assert';
import { StorageError } from '../../../common/errors.js';
import { KIB, MIB } from '../../../common/units.js';
import type {
  MessageStream,
  MessageStreamHandlers,
  OutgoingMessage,
} from '../../../proto/message-stream.js';
import type { Death, SimProcess } from '../kernel/sim-process.js';
import type { Link } from './link.js';
import { DeliveredMessage, flipped, type MessageBytes, type MessagePool } from './message-bytes.js';

const HIGH_MARK_BYTES = MIB;
const LOW_MARK_BYTES = 256 * KIB;
const QUEUED_BYTES_MAX = 64 * MIB;
/** An orderly end that the other side does not answer. */
const CLOSE_MS = 5_000;

type Segment =
  | { readonly kind: 'accept' }
  | { readonly kind: 'message'; readonly taken: MessageBytes }
  | { readonly kind: 'end'; readonly error: StorageError | undefined }
  | { readonly kind: 'lost'; readonly why: string };

export interface EndOptions {
  readonly role: 'client' | 'server';
  readonly process: SimProcess;
  /** how things get from here to the other end */
  readonly link: Link;
  readonly pool: MessagePool;
  readonly peer: string;
  /** bytes on their way or unread */
  readonly windowBytes: number;
  readonly onAccept?: () => void;
}

export class ConnectionEnd implements MessageStream {
  readonly peer: string;
  readonly process: SimProcess;
  other!: ConnectionEnd;
  handlers: MessageStreamHandlers | undefined;
  /** over for its user */
  settled = false;
  readonly #options: EndOptions;
  readonly #link: Link;
  /** given to `send`, not yet to the kernel */
  readonly #queue: OutgoingMessage[] = [];
  #queuedBytes = 0;
  #full = false;
  #ending = false;
  #endSent = false;
  /** on their way to the other end, in order */
  #underWay: Segment[] = [];
  #unreadBytes = 0;
  #lastArrivalMs = 0;
  #paused = false;
  /** arrived while paused */
  #held: Segment[] = [];

  constructor(options: EndOptions) {
    this.#options = options;
    this.peer = options.peer;
    this.process = options.process;
    this.#link = options.link;
    options.process.onDeath((how) => this.#died(how));
  }

  get isClient(): boolean {
    return this.#options.role === 'client';
  }

  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  send(message: OutgoingMessage): boolean {
    if (this.settled || this.#ending) {
      message.done();
      return true;
    }
    this.#queue.push(message);
    this.#queuedBytes += message.lengthBytes;
    assert(this.#queuedBytes <= QUEUED_BYTES_MAX, 'a sender that does not wait');
    this.#pump();
    this.#full ||= this.#queuedBytes > HIGH_MARK_BYTES;
    return !this.#full;
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.process.post(this.#nowMs, () => this.#deliverHeld());
  }

  close(error?: StorageError): void {
    if (this.settled) return;
    if (error !== undefined) {
      this.#settle(error);
      this.#push({ kind: 'end', error });
      return;
    }
    if (this.#ending) return;
    this.#ending = true;
    this.#pump();
    this.process.clock.after(CLOSE_MS, () => this.#settle(undefined));
  }

  /** The server's end: the client may speak from now on. */
  accept(handlers: MessageStreamHandlers): void {
    this.handlers = handlers;
    this.#push({ kind: 'accept' });
  }

  /** The network or a peer that is gone ends the connection for this end. */
  lose(why: string): void {
    if (!this.process.alive) return;
    this.#settle(new StorageError('UNAVAILABLE', `connection to ${this.peer} lost: ${why}`));
  }

  /** Drops what is on its way to the other end from some point on, then ends it there. */
  reset(why: string): void {
    const kept = this.#link.random.int(this.#underWay.length + 1);
    for (const dropped of this.#underWay.splice(kept)) release(dropped);
    this.#push({ kind: 'lost', why });
  }

  /** The other host is up again, and its kernel knows nothing of this connection. */
  meetReboot(): void {
    if (!this.settled && this.#unreadBytes > 0) this.#refusedByKernel();
  }

  get #nowMs(): number {
    return this.process.scheduler.nowMs;
  }

  #pump(): void {
    const { pool, role, windowBytes } = this.#options;
    while (this.#queue.length > 0 && this.#unreadBytes < windowBytes) {
      const message = this.#queue.shift() as OutgoingMessage;
      let taken = pool.take(message);
      message.done();
      this.#queuedBytes -= message.lengthBytes;
      if (this.#link.random.chance(this.#link.quality.flipRate)) {
        taken = flipped(taken, role, this.#link.random);
      }
      this.#push({ kind: 'message', taken });
    }
    if (this.#ending && !this.#endSent && this.#queue.length === 0) {
      this.#endSent = true;
      this.#push({ kind: 'end', error: undefined });
    }
  }

  #push(segment: Segment): void {
    const lengthBytes = sizeOf(segment);
    this.#unreadBytes += lengthBytes;
    this.#underWay.push(segment);
    this.#link.whenOpen(() => {
      const arrival = this.#nowMs + this.#link.latencyMs(lengthBytes);
      this.#lastArrivalMs = Math.max(this.#lastArrivalMs, arrival);
      if (this.other.process.alive) {
        this.other.process.post(this.#lastArrivalMs, () => this.other.#arrive());
      } else if (this.process.alive) this.#refusedByKernel();
    });
  }

  /** Something was sent to a process that is no more: its kernel says so, if there is one. */
  #refusedByKernel(): void {
    this.#link.carry(() => {
      if (!this.other.process.host.up) return;
      this.other.#link.carry(() => {
        this.process.post(this.#nowMs, () => this.lose('reset by peer'));
      });
    });
  }

  /** One turn of this process: the next segment of the other end. */
  #arrive(): void {
    const segment = this.other.#underWay.shift();
    if (segment === undefined) return;
    if (this.#paused || this.#held.length > 0) this.#held.push(segment);
    else this.#take(segment);
  }

  #deliverHeld(): void {
    while (!this.#paused && this.#held.length > 0) {
      this.#take(this.#held.shift() as Segment);
    }
  }

  #take(segment: Segment): void {
    this.other.#read(sizeOf(segment));
    if (this.settled) {
      release(segment);
      return;
    }
    switch (segment.kind) {
      case 'accept':
        this.#options.onAccept?.();
        return;
      case 'message':
        this.#handle(segment.taken);
        return;
      case 'lost':
        this.lose(segment.why);
        return;
      default:
        this.#ended(segment.error);
    }
  }

  #handle(taken: MessageBytes): void {
    const message = new DeliveredMessage(taken, true);
    try {
      this.handlers?.onMessage(message);
    } finally {
      message.release();
    }
  }

  #ended(error: StorageError | undefined): void {
    const { role } = this.#options;
    // A stream that a client gives up is reset; only a server can say why.
    const told =
      error === undefined || role === 'client'
        ? error
        : new StorageError('ABORTED', `${this.peer} reset the stream: CANCEL`);
    this.#settle(told);
    if (!this.#endSent && error === undefined) this.#push({ kind: 'end', error: undefined });
  }

  /** The other end has taken so many of our bytes. */
  #read(lengthBytes: number): void {
    this.#unreadBytes -= lengthBytes;
    if (this.#queue.length === 0 && !this.#full) return;
    this.process.post(this.#nowMs + this.other.#link.latencyMs(0), () => this.#moreRoom());
  }

  #moreRoom(): void {
    if (this.settled) return;
    this.#pump();
    if (!this.#full || this.#queuedBytes > LOW_MARK_BYTES) return;
    this.#full = false;
    this.handlers?.onDrain();
  }

  #settle(error: StorageError | undefined): void {
    if (this.settled) return;
    this.settled = true;
    this.#dropQueue();
    for (const held of this.#held.splice(0)) release(held);
    this.process.post(this.#nowMs, () => this.handlers?.onClose(error));
  }

  #dropQueue(): void {
    for (const message of this.#queue.splice(0)) message.done();
    this.#queuedBytes = 0;
  }

  #died(how: Death): void {
    const wasOpen = !this.settled;
    this.settled = true;
    this.#queue.length = 0;
    for (const held of this.#held.splice(0)) release(held);
    if (how === 'power' || !wasOpen) return;
    // With unread bytes the kernel resets, and what is on its way is lost; else it ends in order.
    if (this.#link.random.chance(0.3)) this.reset('reset by peer');
    else this.#push({ kind: 'lost', why: 'closed by the other side' });
  }
}

function sizeOf(segment: Segment): number {
  return segment.kind === 'message' ? segment.taken.bytes.length : 1;
}

function release(segment: Segment): void {
  if (segment.kind === 'message') segment.taken.release();
}
