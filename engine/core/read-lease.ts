/**
 * The right to answer reads: every member that a record may name in-sync has confirmed, within the
 * lease, that this engine's epoch is the one it has opened (P13, R5).
 *
 * A member confirms with any answer; what counts is when the question was sent. A new engine that
 * cannot prove the old one dead waits one lease after it has fenced the members, before it
 * acknowledges its first write: so nothing that this engine answers within its lease is stale.
 */
import type { Clock } from '../../common/clock.js';

/** A member as the lease sees it. */
export interface LeaseMember {
  /** when the newest question was sent that this member has answered */
  readonly confirmedMs: number;
  /** Asks for a confirmation, unless one is on its way. */
  confirm(): void;
}

export interface ReadLeaseOptions {
  readonly clock: Clock;
  readonly leaseMs: number;
  /** Members whose confirmation is needed; undefined: one of them can give none (it failed, and its
   *  exclusion is not durable yet), or there is no tenure. */
  readonly members: () => readonly LeaseMember[] | undefined;
}

export class ReadLease {
  readonly #options: ReadLeaseOptions;
  /** held at least until then: saves the look at every member on the hot path */
  #heldUntilMs = Number.NEGATIVE_INFINITY;

  constructor(options: ReadLeaseOptions) {
    this.#options = options;
  }

  /** True while reads may be answered: asked just before each answer. */
  get held(): boolean {
    const { clock, leaseMs, members } = this.#options;
    const now = clock.nowMs();
    if (now < this.#heldUntilMs) return true;
    const needed = members();
    if (needed === undefined || needed.length === 0) return false;
    let oldestMs = Number.POSITIVE_INFINITY;
    for (const member of needed) oldestMs = Math.min(oldestMs, member.confirmedMs);
    this.#heldUntilMs = oldestMs + leaseMs;
    return now < this.#heldUntilMs;
  }

  /** Asks every member for a confirmation. */
  renew(): void {
    for (const member of this.#options.members() ?? []) member.confirm();
  }

  /** The members are others now: what was confirmed counts no more. */
  reset(): void {
    this.#heldUntilMs = Number.NEGATIVE_INFINITY;
  }
}
