/**
 * Performs what the replica set decides: makes each change durable, first in the authority and then
 * on every member it is to be stored on, before anything that depends on it is acknowledged (P3).
 *
 * - An unknown outcome of the compare-and-set is read back until it is known; nothing that waits
 *   for the change is acknowledged meanwhile, and what has waited too long fails.
 * - A record of somebody else, or a member that knows a higher epoch, means that this engine is
 *   fenced (R5): it decides nothing any more.
 */
import type { Clock } from '../../common/clock.js';
import { sleep } from '../../common/clock.js';
import { StorageError, toStorageError } from '../../common/errors.js';
import { isFencing } from './fencing.js';
import type { CommitOutcome, MembershipAuthority, RecordCopies } from './membership-authority.js';
import {
  compareRecords,
  type MembershipChange,
  type MembershipRecord,
  type RecordVersion,
  type ReplicaSet,
} from './replica-set.js';

export interface KeeperEvents {
  /** A member is out of use; its exclusion follows. */
  onFailed(replicaId: string, error: StorageError): void;
  /** The change is durable everywhere. */
  onStored(change: MembershipChange): void;
  /** The authority cannot be reached; changes wait. */
  onStalled(error: StorageError): void;
  /** No in-sync member is left. */
  onFaulted(error: StorageError): void;
  /** Another engine has the volume. */
  onFenced(error: StorageError): void;
}

export interface KeeperOptions {
  readonly set: ReplicaSet;
  readonly authority: MembershipAuthority;
  readonly copies: RecordCopies;
  readonly events: KeeperEvents;
  readonly clock: Clock;
  /** how long an acknowledgement waits for a change before it fails */
  readonly settleDeadlineMs: number;
}

interface Waiter {
  readonly resolve: () => void;
  readonly reject: (error: StorageError) => void;
}

const RETRY_MS = 500;

export class MembershipKeeper {
  readonly set: ReplicaSet;
  readonly #options: KeeperOptions;
  readonly #abort = new AbortController();
  readonly #waiters = new Set<Waiter>();
  readonly #promotions = new Map<string, Waiter>();
  /** what the authority has; newer than the set's record while members are still to store it */
  #recorded: RecordVersion;
  #running = false;
  #idle: Array<() => void> = [];
  #ended: StorageError | undefined;

  constructor(options: KeeperOptions) {
    this.set = options.set;
    this.#recorded = options.set.record;
    this.#options = options;
  }

  /** Why it decides nothing any more: faulted, fenced or stopped. */
  get ended(): StorageError | undefined {
    return this.#ended;
  }

  /** A member failed. It is out of use when this returns; its exclusion is made durable in the
   *  background. */
  fail(replicaId: string, error: StorageError): void {
    if (this.#ended !== undefined || this.set.roleOf(replicaId) === undefined) return;
    if (!this.set.fail(replicaId, `${error.code}: ${error.message}`)) return;
    this.#options.events.onFailed(replicaId, error);
    if (this.#ended === undefined) this.#afterFailure(replicaId, error);
  }

  #afterFailure(replicaId: string, error: StorageError): void {
    this.#promotions.get(replicaId)?.reject(error);
    this.#promotions.delete(replicaId);
    if (isFencing(error, this.set.record.epoch)) this.#end(error, 'fenced');
    else if (this.set.faulted) this.#end(faulted(error), 'faulted');
    else this.change();
  }

  /** P6: a rebuilding member has everything, flushed. Resolves when it is in-sync, durably.
   *  @throws StorageError why it is not */
  promote(replicaId: string): Promise<void> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    this.set.promote(replicaId);
    return new Promise((resolve, reject) => {
      this.#promotions.set(replicaId, { resolve, reject });
      this.change();
    });
  }

  /** Resolves when every member that a record may name in-sync works.
   *  @throws StorageError NO_REPLICA (faulted) | STALE_EPOCH (fenced) | DEADLINE (waited too long:
   *    the change goes on) */
  whenSettled(): Promise<void> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    if (this.set.settled) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const { clock, settleDeadlineMs } = this.#options;
      const timer = clock.after(settleDeadlineMs, () => {
        const text = `an exclusion could not be recorded in ${settleDeadlineMs} ms`;
        settle(() => reject(new StorageError('DEADLINE', text)));
      });
      const settle = (act: () => void): void => {
        timer.cancel();
        this.#waiters.delete(waiter);
        act();
      };
      const waiter: Waiter = {
        resolve: () => settle(resolve),
        reject: (error) => settle(() => reject(error)),
      };
      this.#waiters.add(waiter);
    });
  }

  /** The tenure is over: nothing is decided any more. */
  stop(): void {
    this.#end(new StorageError('CLOSED', 'the tenure is over'), 'stopped');
  }

  /** Resolves when every change that the set wants now is durable. @throws StorageError when
   *  nothing is decided any more */
  async changed(): Promise<void> {
    this.change();
    while (this.#running && this.#ended === undefined) {
      await new Promise<void>((resolve) => this.#idle.push(resolve));
    }
    if (this.#ended !== undefined) throw this.#ended;
  }

  /** Looks whether the set wants a change. */
  change(): void {
    if (this.#running || this.#ended !== undefined) return;
    this.#running = true;
    void this.#settle();
  }

  async #settle(): Promise<void> {
    for (;;) {
      const change = this.#ended === undefined ? this.set.propose() : undefined;
      if (change === undefined) break;
      const superseded = await this.#commit(change);
      if (this.#ended !== undefined) break;
      if (superseded !== undefined) {
        this.#end(superseded, 'fenced');
        break;
      }
      const failed = await this.#options.copies.store(change.record, change.storeOn);
      if (this.#ended !== undefined) break;
      if (failed.size > 0) this.#notStored(change, failed);
      else this.#stored(change);
    }
    this.#running = false;
    this.#wakeIdle();
  }

  #wakeIdle(): void {
    for (const wake of this.#idle.splice(0)) wake();
  }

  #stored(change: MembershipChange): void {
    this.set.stored(change);
    this.#options.events.onStored(change);
    for (const id of change.promoted) {
      if (this.set.roleOf(id) === 'in-sync') this.#promotions.get(id)?.resolve();
      this.#promotions.delete(id);
    }
    if (this.set.settled) for (const waiter of [...this.#waiters]) waiter.resolve();
  }

  #notStored(change: MembershipChange, failed: ReadonlyMap<string, StorageError>): void {
    const reasons = [...failed].map(
      ([id, error]) => [id, `${error.code}: ${error.message}`] as const,
    );
    const news = [...failed].filter(([id]) => !['out', 'failing'].includes(this.#roleOf(id)));
    this.set.notStored(change, new Map(reasons));
    for (const [id, error] of news) this.#options.events.onFailed(id, error);
    for (const [id, error] of news) if (this.#ended === undefined) this.#afterFailure(id, error);
  }

  #roleOf(replicaId: string): string {
    return this.set.roleOf(replicaId) ?? 'out';
  }

  /** Undefined once the change is the authority's record; else why it never will be. */
  async #commit(change: MembershipChange): Promise<StorageError | undefined> {
    const { clock, events } = this.#options;
    for (let stalled = false; ; stalled = true) {
      try {
        const outcome = stalled ? await this.#retry(change) : await this.#first(change);
        if (outcome.kind === 'superseded') return supersededBy(outcome.record);
        this.#recorded = change.record;
        return undefined;
      } catch (cause) {
        if (this.#ended !== undefined) return this.#ended;
        const error = toStorageError(cause, 'record the membership');
        if (!stalled) events.onStalled(error);
        await sleep(clock, RETRY_MS, this.#abort.signal).catch(() => undefined);
        if (this.#ended !== undefined) return this.#ended;
      }
    }
  }

  #first(change: MembershipChange): Promise<CommitOutcome> {
    return this.#options.authority.commit(this.#recorded, change.record);
  }

  /** The outcome of an earlier attempt is unknown: looks before it tries again. */
  async #retry(change: MembershipChange): Promise<CommitOutcome> {
    const now = await this.#options.authority.read();
    if (now === undefined) return this.#first(change);
    if (sameVersion(now, change.record)) return { kind: 'stored' };
    if (!sameVersion(now, this.#recorded)) return { kind: 'superseded', record: now };
    return this.#first(change);
  }

  #end(error: StorageError, how: 'faulted' | 'fenced' | 'stopped'): void {
    if (this.#ended !== undefined) return;
    this.#ended = error;
    this.#abort.abort(error);
    for (const waiter of [...this.#waiters]) waiter.reject(error);
    for (const [, waiter] of this.#promotions) waiter.reject(error);
    this.#promotions.clear();
    this.#wakeIdle();
    if (how === 'faulted') this.#options.events.onFaulted(error);
    if (how === 'fenced') this.#options.events.onFenced(error);
  }
}

const sameVersion = (a: RecordVersion, b: RecordVersion): boolean => compareRecords(a, b) === 0;

function faulted(cause: StorageError): StorageError {
  return new StorageError('NO_REPLICA', `no in-sync replica is left: ${cause.message}`, {
    hint: 'the volume goes on when its in-sync replicas are back',
  });
}

function supersededBy(record: MembershipRecord): StorageError {
  const { epoch, generation, engineId } = record;
  return new StorageError(
    'STALE_EPOCH',
    `the membership is {epoch ${epoch}, generation ${generation}} of engine ${engineId} now`,
    { epoch },
  );
}
