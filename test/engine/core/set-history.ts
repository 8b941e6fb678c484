/** Drives a replica set through any history that its callers could bring about, and checks after
 *  each step what its head comment promises, against records that may have become durable. */
import { expect } from 'vitest';
import type {
  MembershipChange,
  MembershipRecord,
  ReplicaSet,
} from '../../../engine/core/replica-set.js';

export interface Step {
  readonly act:
    | 'fail'
    | 'attach'
    | 'promote'
    | 'propose'
    | 'stored'
    | 'not-stored'
    | 'join'
    | 'leave';
  readonly who: number;
  /** of members that could not store */
  readonly mask: number;
}

const NAMES = ['a', 'b', 'c', 'd', 'n0', 'n1'];

export class SetHistory {
  /** records that some member may have stored and none of a later generation has replaced */
  #durable: MembershipRecord[];
  #underWay: MembershipChange | undefined;
  #newest: number;
  #joined = 0;
  /** members that failed and were not attached since */
  readonly #down = new Set<string>();
  /** members that were attached and have not failed since: somebody sends them every change */
  readonly #attached = new Set<string>();

  constructor(readonly set: ReplicaSet) {
    this.#durable = [set.record];
    this.#newest = set.record.generation;
  }

  step({ act, who, mask }: Step): void {
    const id = NAMES[who] as string;
    const role = this.set.roleOf(id);
    if (act === 'fail' && role !== undefined) this.#fail(id);
    if (act === 'attach' && role === 'out') {
      this.set.attach(id);
      this.#down.delete(id);
      this.#attached.add(id);
    }
    if (act === 'promote' && role === 'rebuilding') this.set.promote(id);
    if (act === 'join' && this.#joined < 2) this.#join();
    if (act === 'leave' && role === 'out') this.set.leave(id);
    if (act === 'propose') this.#propose();
    if (act === 'stored') this.#stored();
    if (act === 'not-stored') this.#notStored(mask);
    this.#check();
  }

  #fail(id: string): void {
    this.set.fail(id, 'x');
    this.#lost(id);
  }

  #join(): void {
    this.set.join(`n${this.#joined}`, '');
    this.#joined += 1;
  }

  #propose(): void {
    const change = this.set.propose();
    if (change === undefined) return;
    expect(this.#underWay).toBeUndefined();
    expect(change.record.generation).toBeGreaterThan(this.#newest);
    expect(change.storeOn.filter((id) => this.#down.has(id))).toEqual([]);
    expect(this.set.healthy().every((id) => change.storeOn.includes(id))).toBe(true);
    expect(inSyncOf(change.record).every((id) => change.storeOn.includes(id))).toBe(true);
    this.#newest = change.record.generation;
    this.#underWay = change;
    this.#durable.push(change.record);
  }

  #stored(): void {
    const change = this.#underWay;
    if (change === undefined) return;
    this.set.stored(change);
    this.#durable = [change.record];
    this.#underWay = undefined;
  }

  #notStored(mask: number): void {
    const change = this.#underWay;
    if (change === undefined) return;
    const failed = change.storeOn.filter((_, index) => (mask & (1 << index)) !== 0);
    const [first] = change.storeOn;
    if (failed.length === 0 && first !== undefined) failed.push(first);
    this.set.notStored(change, new Map(failed.map((id) => [id, 'y'])));
    for (const id of failed) this.#lost(id);
    this.#underWay = undefined;
  }

  #lost(id: string): void {
    this.#down.add(id);
    this.#attached.delete(id);
  }

  #check(): void {
    const { set } = this;
    const named = new Set(this.#durable.flatMap(inSyncOf));
    // Nothing is acknowledged that a member misses whom some record may name in-sync.
    expect(set.settled).toBe([...named].every((id) => !this.#down.has(id)));
    for (const id of this.#attached)
      expect(set.roleOf(id)).toMatch(/^(rebuilding|promoting|in-sync)$/);
    for (const id of NAMES) {
      const role = set.roleOf(id);
      if (role === 'in-sync') expect(inSyncOf(set.record)).toContain(id);
      if (role === 'in-sync' || role === 'promoting') expect(this.#down.has(id)).toBe(false);
      if (role === 'out' || role === 'rebuilding') expect(named.has(id)).toBe(false);
      if (role === 'failing') expect(named.has(id)).toBe(true);
    }
    expect(inSyncOf(set.record).length).toBeGreaterThan(0);
    expect(set.faulted).toBe(set.withRole('in-sync').length === 0);
    if (set.faulted) expect(set.propose()).toBeUndefined();
  }
}

function inSyncOf(record: MembershipRecord): string[] {
  return record.members.filter((m) => m.state === 'in-sync').map((m) => m.replicaId);
}
