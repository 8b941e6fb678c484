/**
 * Sends every change of the volume to every member and decides when it may be acknowledged.
 *
 * Invariants
 * - All changes of one event-loop turn travel in one message, encoded once, in one order for all
 *   members (N3).
 * - An operation is acknowledged only when every member that the durable record names in-sync has
 *   acknowledged it (P3): whoever failed is excluded, durably, before the promise resolves.
 * - What no member of the tenure can decide any more waits, unacknowledged, for the next tenure and
 *   is sent again there: the callers' range locks are held all the time, so that nothing can come
 *   in between.
 * - Bytes on their way are bounded by the members' window; what does not fit waits in order.
 * - Nothing is sent to a range in which the members may differ (P5). The volume asks before it
 *   starts, but what waited since an earlier tenure, or for the window, has passed then.
 * - `ackedThrough` never passes an operation whose outcome is open: the members remember the later
 *   ones (in-flight window).
 */
import type { Clock } from '../../common/clock.js';
import { StorageError, toStorageError } from '../../common/errors.js';
import { Semaphore } from '../../common/semaphore.js';
import { type ChecksumBlocks, IO_OP, IoBatchEncoder } from '../../proto/io-codec.js';
import { AckHorizon } from './ack-horizon.js';
import type { EqualGate } from './equal-gate.js';
import { type Change, FanoutOp, type FanoutOwner, isRefusal } from './fanout-op.js';
import type { LinkTable } from './link-table.js';
import type { MembershipKeeper } from './membership-keeper.js';
import type { EndOfTurn, Settled } from './pending-op.js';
import type { ReplicaLink } from './replica-link.js';

/** A message is sent before the end of the turn once it holds this much. */
const BATCH_BYTES = 256 * 1024;
const BATCH_REQUESTS = 1024;
/** An operation that every tenure was lost with is what the members cannot do. */
const TENURES_MAX = 3;

export interface FanoutOptions {
  readonly table: LinkTable;
  readonly gate: EqualGate;
  readonly clock: Clock;
  readonly endOfTurn: EndOfTurn;
  readonly nextId: () => number;
  readonly checksumBlocks: ChecksumBlocks;
  /** smallest window of the members, by payload bytes and by requests */
  readonly windowBytes: number;
  readonly windowRequests: number;
}

export class Fanout implements FanoutOwner {
  readonly #options: FanoutOptions;
  readonly #encoder: IoBatchEncoder;
  readonly #bytesWindow: Semaphore;
  readonly #requestWindow: Semaphore;
  readonly #horizon = new AckHorizon();
  /** of the tenure; undefined between tenures: operations are parked */
  #keeper: MembershipKeeper | undefined;
  /** between tenures: nothing is waited for any more */
  #refusal: StorageError | undefined;
  #batch: FanoutOp[] = [];
  #parked: FanoutOp[] = [];
  #turnScheduled = false;

  constructor(options: FanoutOptions) {
    this.#options = options;
    this.#encoder = new IoBatchEncoder({ checksumBlocks: options.checksumBlocks });
    // Waiters are bounded by admission: every client request is admitted before it gets here.
    this.#bytesWindow = new Semaphore('fan-out window', options.windowBytes, 1 << 16);
    this.#requestWindow = new Semaphore('fan-out requests', options.windowRequests, 1 << 16);
  }

  get ackedThrough(): number {
    return this.#horizon.ackedThrough;
  }

  /** Resolves when every change that was sent before has its outcome on all members. */
  whenSettled(): Promise<void> {
    return this.#horizon.whenSettled();
  }

  /** Operations that wait for a tenure. */
  get parked(): number {
    return this.#parked.length;
  }

  /** Resolves once every member has the data (FUA: on stable storage). Whole blocks, at most one
   *  extent long.
   *  @param payload pieces in order; borrowed until settled
   *  @throws StorageError NO_SPACE (on every member; nothing changed) | NO_REPLICA | IO_ERROR |
   *    DEADLINE */
  write(
    offsetBytes: number,
    lengthBytes: number,
    payload: readonly Buffer[],
    flags: number,
    after?: Settled,
  ): Promise<void> {
    const change = { op: IO_OP.WRITE, flags, offsetBytes, lengthBytes, arg: 0, payload };
    return this.#admit(change, after);
  }

  /** Any other change that goes to every member: flush, trim, write zeroes. Same promise as
   *  `write`. */
  command(fields: Omit<Change, 'payload'>): Promise<void> {
    return this.#admit({ ...fields, payload: NO_PAYLOAD }, undefined);
  }

  #admit(change: Change, after: Settled | undefined): Promise<void> {
    if (!this.#requestWindow.tryAcquire(1)) return this.#admitLater(change, after);
    if (!this.#bytesWindow.tryAcquire(windowBytes(change))) {
      this.#requestWindow.release(1);
      return this.#admitLater(change, after);
    }
    return this.#add(change, after);
  }

  async #admitLater(change: Change, after: Settled | undefined): Promise<void> {
    try {
      await this.#requestWindow.acquire(1);
      try {
        await this.#bytesWindow.acquire(windowBytes(change));
      } catch (error) {
        this.#requestWindow.release(1);
        throw error;
      }
    } catch (error) {
      after?.settled();
      throw error;
    }
    return this.#add(change, after);
  }

  #add(change: Change, after: Settled | undefined): Promise<void> {
    const op = new FanoutOp(this, change, after);
    const promise = new Promise<void>((resolve, reject) => {
      op.resolve = resolve;
      op.reject = reject;
    });
    this.#enter(op);
    return promise;
  }

  /** Sends the operation, once it may go. */
  #enter(op: FanoutOp): void {
    const { gate } = this.#options;
    const { offsetBytes } = op.change;
    const unequal = gate.active && op.changedBytes > 0;
    if (this.#keeper === undefined) this.#park(op);
    else if (unequal) void this.#enterLater(op, gate.pending(offsetBytes, op.changedBytes));
    else this.#queue(op);
  }

  async #enterLater(op: FanoutOp, pending: Promise<void> | undefined): Promise<void> {
    if (pending === undefined) {
      this.#queue(op);
      return;
    }
    try {
      await pending;
    } catch (cause) {
      this.#settle(op, toStorageError(cause, 'wait until the members are equal'));
      return;
    }
    // Maybe in another tenure.
    this.#enter(op);
  }

  #queue(op: FanoutOp): void {
    const { change } = op;
    if (!this.#encoder.fits(windowBytes(change))) this.#send();
    op.id = this.#options.nextId();
    const { flags, offsetBytes, lengthBytes } = change;
    if (change.op === IO_OP.WRITE) {
      this.#encoder.addWrite({ flags, id: op.id, offsetBytes, lengthBytes }, change.payload);
    } else {
      const { op: kind, arg } = change;
      this.#encoder.add({ op: kind, flags, id: op.id, offsetBytes, lengthBytes, arg });
    }
    this.#batch.push(op);
    this.#horizon.open(op);
    if (this.#encoder.lengthBytes >= BATCH_BYTES || this.#encoder.requests >= BATCH_REQUESTS) {
      this.#send();
    } else if (!this.#turnScheduled) {
      this.#turnScheduled = true;
      this.#options.endOfTurn(this.#endTurn);
    }
  }

  readonly #endTurn = (): void => {
    this.#turnScheduled = false;
    if (this.#batch.length > 0) this.#send();
  };

  #send(): void {
    const batch = this.#batch;
    this.#batch = [];
    const { table, clock } = this.#options;
    const links = table.all;
    const message = this.#encoder.finish(this.ackedThrough, Math.max(1, links.length));
    const now = clock.nowMs();
    const missed = table.away.size > 0;
    for (const op of batch) {
      op.sentMs = now;
      op.outstanding = links.length;
      op.okMask = 0;
      op.failures = undefined;
      if (missed) table.noteMissed(op.change.offsetBytes, op.changedBytes);
    }
    if (links.length === 0) {
      message.done();
      for (const op of batch) this.#park(op);
      return;
    }
    for (const op of batch) for (const link of links) link.expect(op.id, op);
    // A link that breaks while it is told is taken out of the list.
    for (const link of [...links]) link.send(message);
  }

  missedBy(op: FanoutOp, link: ReplicaLink): void {
    this.#options.table.noteMissedBy(link, op.change.offsetBytes, op.changedBytes);
  }

  answered(op: FanoutOp): void {
    const keeper = this.#keeper;
    if (op.failures === undefined && keeper?.set.settled === true) this.#settle(op, undefined);
    else void this.#settleDegraded(op, keeper);
  }

  async #settleDegraded(op: FanoutOp, keeper: MembershipKeeper | undefined): Promise<void> {
    if (keeper === undefined) {
      this.#park(op);
      return;
    }
    this.#blame(op);
    try {
      await keeper.whenSettled();
    } catch (cause) {
      this.#undecided(op, keeper, toStorageError(cause, 'acknowledge'));
      return;
    }
    if (keeper !== this.#keeper) this.#park(op);
    else if (this.#isUnasked(op)) this.#askAgain(op);
    else this.#settle(op, this.#verdict(op));
  }

  /** True of a flush that a member knows nothing of which became in-sync while it ran. (Other
   *  changes hold their range: who catches up waits for them.) */
  #isUnasked(op: FanoutOp): boolean {
    if (op.change.op !== IO_OP.FLUSH) return false;
    const failures = op.failures ?? [];
    const { inSync } = this.#options.table;
    return inSync.some((link) => !op.isOk(link) && failures.every((f) => f.link !== link));
  }

  #askAgain(op: FanoutOp): void {
    this.#horizon.settle(op);
    this.#queue(op);
  }

  /** Breaks with whoever is not as the others are. If every in-sync member says that it changed
   *  nothing (full on all of them, scenario 38), none of them leaves. */
  #blame(op: FanoutOp): void {
    const { table } = this.#options;
    const failures = op.failures ?? [];
    const taken = table.inSync.some((link) => op.isOk(link));
    const refused = !taken && failures.some(({ error }) => isRefusal(error));
    for (const { link, error } of failures) {
      if (refused && isRefusal(error) && table.isInSync(link)) continue;
      link.break(error);
    }
    if (!refused) return;
    // Whoever took it and has left meanwhile has to undo it, too.
    table.noteMissed(op.change.offsetBytes, op.changedBytes);
    for (const link of [...table.all]) {
      if (table.isInSync(link) || !op.isOk(link)) continue;
      link.break(new StorageError('ABORTED', 'took a change that the in-sync members refused'));
      this.missedBy(op, link);
    }
  }

  /** The membership is settled: undefined if every in-sync member has the change, else why none
   *  has. */
  #verdict(op: FanoutOp): StorageError | undefined {
    const { inSync } = this.#options.table;
    if (inSync.length > 0 && inSync.every((link) => op.isOk(link))) return undefined;
    const failures = op.failures ?? [];
    const refusal = failures.find(({ error }) => isRefusal(error)) ?? failures[0];
    return refusal?.error ?? new StorageError('NO_REPLICA', 'no in-sync replica answered');
  }

  /** Nobody can say yet whether the change is on all members that will be left. */
  #undecided(op: FanoutOp, keeper: MembershipKeeper, error: StorageError): void {
    if (keeper !== this.#keeper) {
      this.#park(op);
      return;
    }
    // Refused to the client; decided when the exclusion is stored, or by the next tenure (N5).
    this.#settle(op, error);
    if (keeper.ended === undefined) void this.#decideLater(op, keeper);
  }

  async #decideLater(op: FanoutOp, keeper: MembershipKeeper): Promise<void> {
    for (;;) {
      try {
        await keeper.whenSettled();
        break;
      } catch {
        if (keeper.ended !== undefined) return;
      }
    }
    if (keeper !== this.#keeper) return;
    const error = this.#verdict(op);
    if (error === undefined || isRefusal(error)) this.#horizon.settle(op);
  }

  #settle(op: FanoutOp, error: StorageError | undefined): void {
    this.#requestWindow.release(1);
    this.#bytesWindow.release(windowBytes(op.change));
    if (error === undefined || isRefusal(error)) this.#horizon.settle(op);
    op.after?.settled();
    if (error === undefined) op.resolve();
    else op.reject(error);
  }

  /** Keeps the operation for the next tenure, or ends it if nothing is waited for. */
  #park(op: FanoutOp): void {
    op.tenures += 1;
    const last = op.failures?.[0]?.error;
    if (this.#refusal !== undefined) this.#settle(op, this.#refusal);
    else if (op.tenures > TENURES_MAX && last !== undefined) this.#settle(op, last);
    else this.#parked.push(op);
  }

  /** The tenure is over, or was never: operations wait from now on. What the links held is told by
   *  them as lost. */
  suspend(): void {
    this.#keeper = undefined;
    const batch = this.#batch;
    this.#batch = [];
    if (batch.length === 0) return;
    this.#encoder.finish(this.ackedThrough, 1).done();
    for (const op of batch) this.#park(op);
  }

  /** A tenure begins, its members equal: what waited is sent, in its old order. */
  resume(keeper: MembershipKeeper): void {
    this.#keeper = keeper;
    this.#refusal = undefined;
    this.#horizon.reset();
    const parked = this.#parked;
    this.#parked = [];
    for (const op of parked) this.#enter(op);
  }

  /** Between tenures: what waits fails with `error`, and so does what comes, until `resume`. */
  refuse(error: StorageError): void {
    if (this.#keeper !== undefined) return;
    this.#refusal = error;
    for (const op of this.#parked.splice(0)) this.#settle(op, error);
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
    const fields = { op: IO_OP.FLUSH, flags: 0, offsetBytes: 0, lengthBytes: 0, arg: 0 };
    const running = this.command(fields);
    this.#flushRunning = running;
    this.#flushNext = undefined;
    return running;
  }
}

const NO_PAYLOAD: readonly Buffer[] = [];

function windowBytes(change: Change): number {
  return change.op === IO_OP.WRITE ? change.lengthBytes : 0;
}
