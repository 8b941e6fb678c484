/** Performs what the replica set decides: makes each exclusion durable before anything it affects
 *  is acknowledged (P3). */
import { StorageError, toStorageError } from '../../common/errors.js';
import type { MembershipChange, MembershipRecord, ReplicaSet } from './replica-set.js';

/** Where membership records live: on the replicas themselves (standalone), or in the manager's
 *  store. */
export interface MembershipAuthority {
  /** Makes the record durable on every replica of `storeOn`; returns those where it could not be
   *  stored, with the reason. Bounded by its own deadline; never throws. */
  store(change: MembershipChange): Promise<ReadonlyMap<string, string>>;
}

export interface KeeperEvents {
  onFailed(replicaId: string, reason: string): void;
  onRecord(record: MembershipRecord): void;
  onFaulted(reason: string): void;
}

export class MembershipKeeper {
  #running = false;
  #waiters: Array<{ resolve: () => void; reject: (error: StorageError) => void }> = [];

  constructor(
    readonly set: ReplicaSet,
    readonly authority: MembershipAuthority,
    readonly events: KeeperEvents,
  ) {}

  /** A member failed. It is out of use when this returns; its exclusion is made durable in the
   *  background. */
  fail(replicaId: string, reason: string): void {
    if (!this.set.fail(replicaId, reason)) return;
    this.events.onFailed(replicaId, reason);
    if (this.set.faulted) {
      this.events.onFaulted(reason);
      for (const waiter of this.#waiters.splice(0)) waiter.reject(this.#faultedError());
    } else if (!this.#running) {
      this.#running = true;
      void this.#settle();
    }
  }

  /** Resolves when every member named in-sync by a durable record works. @throws StorageError
   *  NO_REPLICA when faulted */
  whenSettled(): Promise<void> {
    if (this.set.faulted) return Promise.reject(this.#faultedError());
    if (this.set.settled) return Promise.resolve();
    return new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }));
  }

  async #settle(): Promise<void> {
    for (let change = this.set.propose(); change !== undefined; change = this.set.propose()) {
      const failed = await this.#store(change);
      if (failed.size === 0) {
        this.set.stored(change);
        this.events.onRecord(change.record);
        continue;
      }
      const news = [...failed].filter(([id]) => this.set.reasonOf(id) === undefined);
      this.set.notStored(change, failed);
      for (const [id, reason] of news) this.events.onFailed(id, reason);
    }
    this.#running = false;
    const waiters = this.#waiters.splice(0);
    if (this.set.faulted) {
      this.events.onFaulted('no replica could store the membership');
      for (const waiter of waiters) waiter.reject(this.#faultedError());
    } else {
      for (const waiter of waiters) waiter.resolve();
    }
  }

  async #store(change: MembershipChange): Promise<ReadonlyMap<string, string>> {
    try {
      return await this.authority.store(change);
    } catch (error) {
      const reason = toStorageError(error, 'store membership').message;
      return new Map(change.storeOn.map((id) => [id, reason]));
    }
  }

  #faultedError(): StorageError {
    return new StorageError('NO_REPLICA', 'no in-sync replica is left', {
      hint: 'restore the connection to the replicas and start the engine again',
    });
  }
}
