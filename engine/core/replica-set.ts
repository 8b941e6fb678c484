/**
 * Who belongs to a volume, as a pure state machine: it decides, others perform (;
 * P3, R3, R4).
 *
 * Invariants
 * - `record` is the newest membership known to be durable on every member that it names in-sync.
 * - A member that failed receives no further operation, although `record` may still name it.
 * - While a failed member is still named in-sync (`settled` is false) nothing it missed may be
 *   acknowledged.
 * - One change at a time is under way; its generation is larger than any that was ever proposed,
 *   stored or not.
 * - The last member is never excluded: with no member left the volume is faulted and the record
 *   stays, so that the next engine looks for exactly the members that hold every acknowledged
 *   write.
 *
 * Not here: promotion of rebuilt members, which brings `rebuilding` to life.
 */
import assert from 'node:assert';

export type MemberState = 'in-sync' | 'rebuilding' | 'failed';

export interface MemberRecord {
  readonly replicaId: string;
  /** where the engine last found it: a hint for people, never an identity (R8) */
  readonly address: string;
  readonly state: MemberState;
}

/** The membership record. Compared by epoch, then generation; time never decides (P12). */
export interface MembershipRecord {
  readonly epoch: number;
  readonly generation: number;
  readonly members: readonly MemberRecord[];
  /** engine whose tenure stored it; '' : stored at creation */
  readonly engineId: string;
  /** grows when a start had to accept lost writes */
  readonly era: number;
}

/** Negative if `a` is older than `b`, 0 if equal, positive if newer. */
export function compareRecords(
  a: { epoch: number; generation: number },
  b: { epoch: number; generation: number },
): number {
  return a.epoch - b.epoch || a.generation - b.generation;
}

/** A change to be made durable: store `record` on each of `storeOn`, then report. */
export interface MembershipChange {
  readonly record: MembershipRecord;
  readonly storeOn: readonly string[];
}

export class ReplicaSet {
  #record: MembershipRecord;
  #failed = new Map<string, string>();
  #underWay: MembershipChange | undefined;
  #generationMax: number;

  constructor(record: MembershipRecord) {
    assert(
      record.members.some((m) => m.state === 'in-sync'),
      'a volume has an in-sync member',
    );
    this.#record = record;
    this.#generationMax = record.generation;
  }

  get record(): MembershipRecord {
    return this.#record;
  }

  /** Members that hold every acknowledged write and still work. Empty: the volume is faulted. */
  healthy(): string[] {
    return this.#record.members
      .filter((m) => m.state === 'in-sync' && !this.#failed.has(m.replicaId))
      .map((m) => m.replicaId);
  }

  get faulted(): boolean {
    return this.healthy().length === 0;
  }

  /** True when every member named in-sync works: what all of them acknowledged may be acknowledged
   *  (P3). */
  get settled(): boolean {
    return this.#record.members.every(
      (m) => m.state !== 'in-sync' || !this.#failed.has(m.replicaId),
    );
  }

  /** Why a member failed in this tenure. */
  reasonOf(replicaId: string): string | undefined {
    return this.#failed.get(replicaId);
  }

  /** A member failed: from now on it gets nothing. True if that is news. */
  fail(replicaId: string, reason: string): boolean {
    const known = this.#record.members.some((m) => m.replicaId === replicaId);
    assert(known, `replica ${replicaId} is no member`);
    if (this.#failed.has(replicaId)) return false;
    this.#failed.set(replicaId, reason);
    return true;
  }

  /** The next change to make durable; undefined when none is needed, possible, or one is under
   *  way. */
  propose(): MembershipChange | undefined {
    if (this.#underWay !== undefined || this.settled || this.faulted) return undefined;
    this.#generationMax += 1;
    const members = this.#record.members.map((m) =>
      this.#failed.has(m.replicaId) ? { ...m, state: 'failed' as const } : m,
    );
    this.#underWay = {
      record: { ...this.#record, generation: this.#generationMax, members },
      storeOn: this.healthy(),
    };
    return this.#underWay;
  }

  /** The change is durable on all of its `storeOn`: it is the record now. */
  stored(change: MembershipChange): void {
    assert(change === this.#underWay, 'only the change under way can be stored');
    this.#underWay = undefined;
    this.#record = change.record;
  }

  /** The change could not be stored on some members; they fail too, and a new change is proposed
   *  from there. */
  notStored(change: MembershipChange, failed: ReadonlyMap<string, string>): void {
    assert(change === this.#underWay, 'only the change under way can fail');
    assert(failed.size > 0, 'a change fails because of somebody');
    this.#underWay = undefined;
    for (const [replicaId, reason] of failed) this.fail(replicaId, reason);
  }
}
