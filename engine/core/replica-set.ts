/**
 * Who belongs to a volume, as a pure state machine: it decides, others perform (P3, P6, R3, R4).
 *
 * Roles of a member, and how it moves between them:
 *
 *   in-sync --fail--> failing --(exclusion stored)--> out --attach--> rebuilding
 *      ^                 ^                             ^ |                |  |
 *      |                 +----------fail-----+         +-|-----fail-------+  | promote
 *      +---------(promotion stored)---- promoting <------|-------------------+
 *                                                        +--leave--> leaving --(stored)--> gone
 *
 * Invariants
 * - `record` is the newest membership known to be durable on every member that it names in-sync.
 * - A member that failed receives no further operation, although a record may still name it.
 * - `failing`: some record that is, or may have become, durable names this member in-sync, and it
 *   misses what happens now. While there is one (`settled` is false) nothing it missed may be
 *   acknowledged. A member that fails while its promotion is under way is failing, too.
 * - A promoting member is not yet one of those that may exclude others: only once its promotion is
 *   stored on every other in-sync member does each of them know that it cannot start without it.
 * - A leaving member is not attached any more: it is about to be no member.
 * - One change at a time is under way; its generation is larger than any that was ever proposed,
 *   stored or not.
 * - The last in-sync member is never excluded: with none left the volume is faulted and the record
 *   stays, so that the next tenure looks for exactly the members that hold every acknowledged
 *  write.
 */
import assert from 'node:assert';

export type MemberState = 'in-sync' | 'rebuilding' | 'failed';

export interface MemberRecord {
  readonly replicaId: string;
  /** where the engine last found it: a hint for people, never an identity (R8) */
  readonly address: string;
  readonly state: MemberState;
}

export interface RecordVersion {
  readonly epoch: number;
  readonly generation: number;
}

/** The membership record. Compared by epoch, then generation; time never decides (P12). */
export interface MembershipRecord extends RecordVersion {
  /** engine whose tenure stored it; '' before the first */
  readonly engineId: string;
  /** grows whenever a start had to accept the loss of acknowledged writes */
  readonly era: number;
  readonly members: readonly MemberRecord[];
}

/** Negative if `a` is older than `b`, 0 if equal, positive if newer. */
export function compareRecords(a: RecordVersion, b: RecordVersion): number {
  return a.epoch - b.epoch || a.generation - b.generation;
}

export type MemberRole = 'in-sync' | 'failing' | 'out' | 'rebuilding' | 'promoting' | 'leaving';

/** A change to be made durable: in the authority, then on each of `storeOn`; then report. */
export interface MembershipChange {
  readonly record: MembershipRecord;
  readonly storeOn: readonly string[];
  /** for people: what changes */
  readonly excluded: readonly string[];
  readonly promoted: readonly string[];
}

export class ReplicaSet {
  #record: MembershipRecord;
  readonly #roles = new Map<string, MemberRole>();
  readonly #reasons = new Map<string, string>();
  /** rebuilding members that have everything */
  readonly #complete = new Set<string>();
  readonly #joining = new Map<string, MemberRecord>();
  readonly #storedOn = new Map<string, number>();
  #underWay: MembershipChange | undefined;
  #generationMax: number;

  constructor(record: MembershipRecord) {
    assert(
      record.members.some((m) => m.state === 'in-sync'),
      'a volume has an in-sync member',
    );
    this.#record = record;
    this.#generationMax = record.generation;
    for (const m of record.members) {
      this.#roles.set(m.replicaId, m.state === 'in-sync' ? 'in-sync' : 'out');
      if (m.state === 'in-sync') this.#storedOn.set(m.replicaId, record.generation);
    }
  }

  get record(): MembershipRecord {
    return this.#record;
  }

  /** The highest generation that was ever proposed: it may be stored somewhere, or still come. */
  get generationMax(): number {
    return this.#generationMax;
  }

  roleOf(replicaId: string): MemberRole | undefined {
    return this.#roles.get(replicaId);
  }

  /** Members in a role, in the order of the record. */
  withRole(role: MemberRole): string[] {
    return [...this.#roles].filter(([, own]) => own === role).map(([id]) => id);
  }

  /** Members that hold every acknowledged write and still work. Empty: the volume is faulted. */
  healthy(): string[] {
    return this.withRole('in-sync');
  }

  get faulted(): boolean {
    return this.healthy().length === 0;
  }

  /** True when every member that a record may name in-sync works: what all of them acknowledged may
   *  be acknowledged (P3). */
  get settled(): boolean {
    for (const role of this.#roles.values()) if (role === 'failing') return false;
    return true;
  }

  /** Why a member failed last in this tenure. */
  reasonOf(replicaId: string): string | undefined {
    return this.#reasons.get(replicaId);
  }

  /** Generation of the newest record of this tenure that the member is known to have stored; 0: of
   *  none. One that has an older one is not as it left. */
  storedGeneration(replicaId: string): number {
    return this.#storedOn.get(replicaId) ?? 0;
  }

  /** A member failed: from now on it gets nothing. True if that is news. */
  fail(replicaId: string, reason: string): boolean {
    const role = this.#roles.get(replicaId);
    assert(role !== undefined, `replica ${replicaId} is no member`);
    this.#complete.delete(replicaId);
    if (role === 'out' || role === 'failing' || role === 'leaving') return false;
    this.#roles.set(replicaId, role === 'rebuilding' ? 'out' : 'failing');
    this.#reasons.set(replicaId, reason);
    return true;
  }

  /** A member is back: from now on it receives every change. */
  attach(replicaId: string): void {
    this.#move(replicaId, 'out', 'rebuilding');
  }

  /** P6: a rebuilding member has everything, flushed; it may be named in-sync. */
  promote(replicaId: string): void {
    assert(this.#roles.get(replicaId) === 'rebuilding', `${replicaId} is not rebuilding`);
    this.#complete.add(replicaId);
  }

  /** A new member, to be filled; it is `out` until it is attached. */
  join(replicaId: string, address: string): void {
    assert(!this.#roles.has(replicaId), `${replicaId} is a member already`);
    this.#joining.set(replicaId, { replicaId, address, state: 'rebuilding' });
  }

  /** Takes a member that is `out` off the record. */
  leave(replicaId: string): void {
    this.#move(replicaId, 'out', 'leaving');
  }

  /** The next change to make durable; undefined when none is needed, possible, or one is under
   *  way. */
  propose(): MembershipChange | undefined {
    if (this.#underWay !== undefined || this.faulted) return undefined;
    const excluded = this.withRole('failing');
    const promoted = [...this.#complete];
    const leaving = this.withRole('leaving');
    const wanted = excluded.length + promoted.length + this.#joining.size + leaving.length;
    if (wanted === 0) return undefined;
    for (const id of promoted) this.#roles.set(id, 'promoting');
    this.#generationMax += 1;
    const { epoch, engineId, era } = this.#record;
    this.#underWay = {
      record: { epoch, generation: this.#generationMax, engineId, era, members: this.#next() },
      storeOn: [...this.healthy(), ...promoted],
      excluded,
      promoted,
    };
    return this.#underWay;
  }

  #next(): MemberRecord[] {
    const kept = this.#record.members.filter((m) => this.#roles.get(m.replicaId) !== 'leaving');
    const changed = kept.map((m): MemberRecord => {
      const role = this.#roles.get(m.replicaId);
      if (role === 'failing') return { ...m, state: 'failed' };
      return role === 'promoting' ? { ...m, state: 'in-sync' } : m;
    });
    return [...changed, ...this.#joining.values()];
  }

  /** The change is durable everywhere it had to be: it is the record now. */
  stored(change: MembershipChange): void {
    assert(change === this.#underWay, 'only the change under way can be stored');
    this.#underWay = undefined;
    this.#record = change.record;
    for (const id of change.storeOn) this.#storedOn.set(id, change.record.generation);
    for (const id of change.excluded) this.#move(id, 'failing', 'out');
    for (const id of change.promoted) {
      this.#complete.delete(id);
      // One that failed meanwhile is named in-sync by this very record: its exclusion is due.
      if (this.#roles.get(id) === 'promoting') this.#roles.set(id, 'in-sync');
    }
    for (const { replicaId } of change.record.members) {
      if (this.#joining.delete(replicaId)) this.#roles.set(replicaId, 'out');
    }
    for (const id of this.withRole('leaving')) {
      if (change.record.members.some((m) => m.replicaId === id)) continue;
      this.#roles.delete(id);
      this.#reasons.delete(id);
    }
  }

  /** The change could not be stored on some members; they fail too, and a new change is proposed
   *  from there. */
  notStored(change: MembershipChange, failed: ReadonlyMap<string, string>): void {
    assert(change === this.#underWay, 'only the change under way can fail');
    assert(failed.size > 0, 'a change fails because of somebody');
    this.#underWay = undefined;
    for (const [replicaId, reason] of failed) this.fail(replicaId, reason);
    // It may be durable somewhere: whoever it names in-sync stays `promoting` until a later change
    // says so everywhere, or is excluded by one.
  }

  #move(replicaId: string, from: MemberRole, to: MemberRole): void {
    const role = this.#roles.get(replicaId);
    assert(role === from, `replica ${replicaId} is ${role}, not ${from}`);
    this.#roles.set(replicaId, to);
  }
}
