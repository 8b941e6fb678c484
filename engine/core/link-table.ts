/**
 * The links of the volume by what they are for, and what members without a link miss meanwhile.
 *
 * Invariants
 * - A link is in `all` (it receives every change) or in neither list; `inSync` is the part of `all`
 *   that may be read and whose acknowledgement counts.
 * - A member without a link is in `away`, from the very moment its link left `all`.
 * - What a member missed begins with what it refused while it was here: whether it is excluded for
 *   that is decided only when the others have answered, and by then it may have left and be back.
 * - The lists are changed in place, in one step of the event loop: who holds them sees the present.
 */
import assert from 'node:assert';
import { MissedWrites } from './missed-writes.js';
import type { ReplicaLink } from './replica-link.js';

export class LinkTable {
  readonly all: ReplicaLink[] = [];
  readonly inSync: ReplicaLink[] = [];
  readonly away = new Map<string, MissedWrites>();
  /** by links in `all`; may hold what was refused by all, which nobody misses: only more is
   *  copied */
  readonly #refused = new Map<ReplicaLink, MissedWrites>();

  find(replicaId: string): ReplicaLink | undefined {
    return this.all.find((link) => link.replicaId === replicaId);
  }

  /** From now on the link receives every change. @returns what its member has missed until now */
  add(link: ReplicaLink, inSync: boolean): MissedWrites | undefined {
    assert(this.find(link.replicaId) === undefined, `two links to replica ${link.replicaId}`);
    const missed = this.away.get(link.replicaId);
    this.away.delete(link.replicaId);
    this.all.push(link);
    if (inSync) this.inSync.push(link);
    return missed;
  }

  /** The member is in-sync: it may be read. */
  promote(link: ReplicaLink): void {
    assert(this.all.includes(link) && !this.inSync.includes(link));
    this.inSync.push(link);
  }

  isInSync(link: ReplicaLink): boolean {
    return this.inSync.includes(link);
  }

  /** The link is gone; its member begins to miss what happens. False if it was not here. */
  remove(link: ReplicaLink): boolean {
    const at = this.all.indexOf(link);
    if (at < 0) return false;
    this.all.splice(at, 1);
    const readable = this.inSync.indexOf(link);
    if (readable >= 0) this.inSync.splice(readable, 1);
    this.away.set(link.replicaId, this.#refused.get(link) ?? new MissedWrites());
    this.#refused.delete(link);
    return true;
  }

  /** A member of whose past nothing is known here. */
  addAway(replicaId: string): void {
    const missed = new MissedWrites();
    missed.forget();
    this.away.set(replicaId, missed);
  }

  /** A change that no member without a link will see. */
  noteMissed(offsetBytes: number, lengthBytes: number): void {
    for (const missed of this.away.values()) missed.note(offsetBytes, lengthBytes);
  }

  /** A change that one member may have missed: it refused it, or its link has broken. Told at once,
   *  before the member can be back. */
  noteMissedBy(link: ReplicaLink, offsetBytes: number, lengthBytes: number): void {
    if (this.all.includes(link)) this.#refusedBy(link).note(offsetBytes, lengthBytes);
    else this.away.get(link.replicaId)?.note(offsetBytes, lengthBytes);
  }

  #refusedBy(link: ReplicaLink): MissedWrites {
    let refused = this.#refused.get(link);
    if (refused === undefined) {
      refused = new MissedWrites();
      this.#refused.set(link, refused);
    }
    return refused;
  }

  /** Forgets everything: the tenure is over. */
  clear(): void {
    this.all.length = 0;
    this.inSync.length = 0;
    this.away.clear();
    this.#refused.clear();
  }
}
