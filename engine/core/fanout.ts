/**
 * Sends every change of the volume to every member and decides when it may be acknowledged.
 *
 * Invariants
 * - All changes of one event-loop turn travel in one message, encoded once, in one order for all
 *   members (N3).
 * - An operation is acknowledged only when every member that the durable record names in-sync has
 *   acknowledged it (P3): whoever failed is excluded, durably, before the promise resolves.
 * - Bytes on their way are bounded by the members' window; what does not fit waits in order.
 * - `ackedThrough` never passes an operation whose outcome is open: the members remember the later
 *   ones (in-flight window).
 */
import assert from 'node:assert';
import type { Clock } from '../../common/clock.js';
import { type ErrorCode, StorageError } from '../../common/errors.js';
import { Semaphore } from '../../common/semaphore.js';
import {
  type ChecksumBlocks,
  IO_OP,
  IoBatchEncoder,
  type IoReplyView,
} from '../../proto/io-codec.js';
import { codeOfStatus } from '../../proto/status.js';
import type { MembershipKeeper } from './membership-keeper.js';
import type { EndOfTurn, PendingOp, Settled } from './pending-op.js';
import type { ReplicaLink } from './replica-link.js';

/** A message is sent before the end of the turn once it holds this much. */
const BATCH_BYTES = 256 * 1024;
const BATCH_REQUESTS = 1024;

/** With these a member says that it changed nothing and works on. If all of them say so the client
 *  is told, and nobody leaves. */
const REFUSALS: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'NO_SPACE',
  'OVERLOADED',
  'CONFLICT',
  'OUT_OF_RANGE',
  'INVALID_ARGUMENT',
  'UNSUPPORTED',
]);

export interface FanoutOptions {
  readonly links: () => readonly ReplicaLink[];
  readonly keeper: MembershipKeeper;
  readonly clock: Clock;
  readonly endOfTurn: EndOfTurn;
  readonly nextId: () => number;
  readonly checksumBlocks: ChecksumBlocks;
  /** smallest window of the members, by payload bytes and by requests */
  readonly windowBytes: number;
  readonly windowRequests: number;
}

/** One change on its way to all members. */
class FanoutOp implements PendingOp {
  sentMs = 0;
  outstanding = 0;
  okCount = 0;
  /** its outcome is known and equal on all members */
  settled = false;
  /** replies other than OK; allocated only when there is one */
  failures: Array<{ link: ReplicaLink; error: StorageError }> | undefined;
  resolve!: () => void;
  reject!: (error: StorageError) => void;

  constructor(
    readonly fanout: Fanout,
    readonly id: number,
    readonly windowBytes: number,
    readonly after: Settled | undefined,
  ) {}

  onReply(link: ReplicaLink, reply: IoReplyView): void {
    if (reply.status === 0) {
      this.okCount += 1;
      link.noteWrite(this.sentMs);
    } else {
      const code = codeOfStatus(reply.status) ?? 'INTERNAL';
      this.#addFailure(link, new StorageError(code, reply.detail || `status ${reply.status}`));
    }
    this.#answered();
  }

  onLost(link: ReplicaLink, error: StorageError): void {
    this.#addFailure(link, error);
    this.#answered();
  }

  #addFailure(link: ReplicaLink, error: StorageError): void {
    this.failures ??= [];
    this.failures.push({ link, error });
  }

  #answered(): void {
    this.outstanding -= 1;
    assert(this.outstanding >= 0, 'one answer per member');
    if (this.outstanding === 0) this.fanout.answered(this);
  }
}

export class Fanout {
  readonly #options: FanoutOptions;
  readonly #encoder: IoBatchEncoder;
  readonly #bytesWindow: Semaphore;
  readonly #requestWindow: Semaphore;
  #batch: FanoutOp[] = [];
  /** operations in id order from the oldest open one; the ack horizon moves over its settled
   *  head */
  #open: FanoutOp[] = [];
  #openHead = 0;
  #ackedThrough = 0;
  #turnScheduled = false;

  constructor(options: FanoutOptions) {
    this.#options = options;
    this.#encoder = new IoBatchEncoder({ checksumBlocks: options.checksumBlocks });
    // Waiters are bounded by admission: every client request is admitted before it gets here.
    this.#bytesWindow = new Semaphore('fan-out window', options.windowBytes, 1 << 16);
    this.#requestWindow = new Semaphore('fan-out requests', options.windowRequests, 1 << 16);
  }

  get ackedThrough(): number {
    return this.#ackedThrough;
  }

  /** Resolves once every member has the data (FUA: on stable storage). Whole blocks, at most one
   *  extent long.
   *  @param payload pieces in order; copied before this returns, or while waiting for the window:
   *    borrowed until settled
   *  @throws StorageError NO_SPACE (on every member; nothing changed) | NO_REPLICA | IO_ERROR */
  write(
    offsetBytes: number,
    lengthBytes: number,
    payload: readonly Buffer[],
    flags: number,
    after?: Settled,
  ): Promise<void> {
    const encode = (id: number): void =>
      this.#encoder.addWrite({ flags, id, offsetBytes, lengthBytes }, payload);
    return this.#admit(lengthBytes, encode, after);
  }

  /** Any other operation that goes to every member: flush, trim, write zeroes, clean. Same promise
   *  as `write`. */
  command(fields: {
    op: number;
    flags: number;
    offsetBytes: number;
    lengthBytes: number;
    arg?: number;
  }): Promise<void> {
    const encode = (id: number): void => this.#encoder.add({ ...fields, id, arg: fields.arg ?? 0 });
    return this.#admit(0, encode, undefined);
  }

  #admit(
    windowBytes: number,
    encode: (id: number) => void,
    after: Settled | undefined,
  ): Promise<void> {
    if (!this.#requestWindow.tryAcquire(1)) return this.#admitLater(windowBytes, encode, after);
    if (!this.#bytesWindow.tryAcquire(windowBytes)) {
      this.#requestWindow.release(1);
      return this.#admitLater(windowBytes, encode, after);
    }
    return this.#add(windowBytes, encode, after);
  }

  async #admitLater(
    windowBytes: number,
    encode: (id: number) => void,
    after: Settled | undefined,
  ): Promise<void> {
    try {
      await this.#requestWindow.acquire(1);
      try {
        await this.#bytesWindow.acquire(windowBytes);
      } catch (error) {
        this.#requestWindow.release(1);
        throw error;
      }
    } catch (error) {
      after?.settled();
      throw error;
    }
    return this.#add(windowBytes, encode, after);
  }

  #add(
    windowBytes: number,
    encode: (id: number) => void,
    after: Settled | undefined,
  ): Promise<void> {
    if (!this.#encoder.fits(windowBytes)) this.#send();
    const op = new FanoutOp(this, this.#options.nextId(), windowBytes, after);
    encode(op.id);
    this.#batch.push(op);
    this.#open.push(op);
    const promise = new Promise<void>((resolve, reject) => {
      op.resolve = resolve;
      op.reject = reject;
    });
    if (this.#encoder.lengthBytes >= BATCH_BYTES || this.#encoder.requests >= BATCH_REQUESTS) {
      this.#send();
    } else if (!this.#turnScheduled) {
      this.#turnScheduled = true;
      this.#options.endOfTurn(this.#endTurn);
    }
    return promise;
  }

  readonly #endTurn = (): void => {
    this.#turnScheduled = false;
    if (this.#batch.length > 0) this.#send();
  };

  #send(): void {
    const batch = this.#batch;
    this.#batch = [];
    const links = this.#options.links();
    const message = this.#encoder.finish(this.#ackedThrough, Math.max(1, links.length));
    const now = this.#options.clock.nowMs();
    for (const op of batch) {
      op.sentMs = now;
      op.outstanding = links.length;
      for (const link of links) link.expect(op.id, op);
    }
    if (links.length === 0) {
      message.done();
      const error = new StorageError('NO_REPLICA', 'no in-sync replica is left');
      for (const op of batch) this.#settle(op, error);
      return;
    }
    for (const link of links) link.send(message);
  }

  /** Every member that got the operation has answered or is lost. */
  answered(op: FanoutOp): void {
    if (op.failures === undefined && this.#options.keeper.set.settled) this.#settle(op, undefined);
    else void this.#settleDegraded(op);
  }

  async #settleDegraded(op: FanoutOp): Promise<void> {
    const { keeper } = this.#options;
    const failures = op.failures ?? [];
    // Full on every member, for example, changes nothing anywhere (scenario 38).
    const refusal =
      op.okCount === 0 ? failures.find((f) => REFUSALS.has(f.error.code))?.error : undefined;
    for (const { link, error } of failures) {
      if (refusal !== undefined && REFUSALS.has(error.code)) continue;
      keeper.fail(link.replicaId, `${error.code}: ${error.message}`);
      link.break(error);
    }
    try {
      await keeper.whenSettled();
    } catch (error) {
      this.#settle(op, error as StorageError);
      return;
    }
    const failure = refusal ?? failures[0]?.error;
    if (op.okCount > 0) this.#settle(op, undefined);
    else this.#settle(op, failure ?? new StorageError('NO_REPLICA', 'no replica answered'));
  }

  #settle(op: FanoutOp, error: StorageError | undefined): void {
    op.settled = error === undefined || REFUSALS.has(error.code);
    this.#requestWindow.release(1);
    this.#bytesWindow.release(op.windowBytes);
    if (op.settled) this.#advance();
    op.after?.settled();
    if (error === undefined) op.resolve();
    else op.reject(error);
  }

  #advance(): void {
    const open = this.#open;
    let head = this.#openHead;
    while (head < open.length && (open[head] as FanoutOp).settled) {
      this.#ackedThrough = (open[head] as FanoutOp).id;
      head += 1;
    }
    if (head === open.length) {
      this.#open = [];
      head = 0;
    } else if (head > 1024) {
      open.splice(0, head);
      head = 0;
    }
    this.#openHead = head;
  }

  /** Flush on every member, covering all that was acknowledged before the call (D1, P8). Callers
   *  during a flush share the next. */
  flush(): Promise<void> {
    this.#flushNext ??= this.#flushRunning.then(
      () => this.#startFlush(),
      () => this.#startFlush(),
    );
    return this.#flushNext;
  }

  #flushRunning: Promise<void> = Promise.resolve();
  #flushNext: Promise<void> | undefined;

  #startFlush(): Promise<void> {
    const running = this.command({ op: IO_OP.FLUSH, flags: 0, offsetBytes: 0, lengthBytes: 0 });
    this.#flushRunning = running;
    this.#flushNext = undefined;
    return running;
  }
}
