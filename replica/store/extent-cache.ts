/**
 * Extent records in memory: fixed slots in one slab, shared by the replicas of a disk, no object
 * per extent.
 *
 * Invariants:
 * - A slot is free, or belongs to one extent of one owner. A pinned slot is never evicted; a slot
 *   whose record is newer than the metadata (DIRTY) is written back before it is evicted, and stays
 *   pinned until that batch has resolved, so that whoever loads the record later finds it in the
 *   metadata.
 * - Eviction is second chance (CLOCK), clean slots first.
 */
import assert from 'node:assert';
import { blankRecord, SLOT_BYTES } from './extent-record.js';
import type { StoreCounters } from './store-counters.js';

export interface SlotOwner {
  /** Stores the records of the given slots; resolves when they are in the metadata. Rejects if the
   *  store fails. */
  writeBack(slots: readonly number[]): Promise<void>;
  /** The slot no longer holds this extent; the owner may have given the extent another slot
   *  before. */
  evicted(extent: number, slot: number): void;
}

export const SLOT_REFERENCED = 1;
/** newer than the metadata */
export const SLOT_DIRTY = 2;
/** the metadata has a record of this extent; its seal is in `storedSeals` */
export const SLOT_STORED = 4;
/** waits in a group that will store it */
export const SLOT_QUEUED = 8;
/** the checksums were not recomputed since an unclean start */
export const SLOT_UNPROVEN = 16;

const SLOTS_MIN = 128;
const WRITE_BACK_SLOTS_MAX = 64;

export class ExtentCache {
  readonly slab: Buffer;
  readonly slots: number;
  readonly flags: Uint8Array;
  /** seal of the record as last stored; valid with SLOT_STORED */
  readonly storedSeals: Uint32Array;
  readonly #counters: StoreCounters;
  readonly #owners: Array<SlotOwner | undefined>;
  readonly #extents: Uint32Array;
  readonly #pins: Uint32Array;
  readonly #free: number[] = [];
  #hand = 0;
  /** callers that found every slot pinned; woken by the next unpin */
  #starved: Array<() => void> = [];

  constructor(budgetBytes: number, counters: StoreCounters) {
    this.slots = Math.max(SLOTS_MIN, Math.floor(budgetBytes / SLOT_BYTES));
    this.slab = Buffer.allocUnsafeSlow(this.slots * SLOT_BYTES);
    this.flags = new Uint8Array(this.slots);
    this.storedSeals = new Uint32Array(this.slots);
    this.#extents = new Uint32Array(this.slots);
    this.#pins = new Uint32Array(this.slots);
    this.#owners = new Array<SlotOwner | undefined>(this.slots).fill(undefined);
    for (let slot = this.slots - 1; slot >= 0; slot -= 1) this.#free.push(slot);
    this.#counters = counters;
  }

  pin(slot: number): void {
    this.#pins[slot] = (this.#pins[slot] ?? 0) + 1;
    this.flags[slot] = (this.flags[slot] ?? 0) | SLOT_REFERENCED;
  }

  unpin(slot: number): void {
    const pins = this.#pins[slot] ?? 0;
    assert(pins > 0, `slot ${slot} is not pinned`);
    this.#pins[slot] = pins - 1;
    if (pins === 1 && this.#starved.length > 0) for (const wake of this.#starved.splice(0)) wake();
  }

  extentOf(slot: number): number {
    return this.#extents[slot] ?? 0;
  }

  pinsOf(slot: number): number {
    return this.#pins[slot] ?? 0;
  }

  /** A blank slot for `extent`, pinned once. The caller makes sure that the extent has no slot
   *  yet. */
  async acquire(owner: SlotOwner, extent: number): Promise<number> {
    for (;;) {
      const slot = this.#free.pop() ?? this.#evictClean();
      if (slot !== undefined) return this.#take(slot, owner, extent);
      const dirty = this.#dirtyVictims();
      if (dirty.length > 0) await this.#writeBack(dirty);
      else await new Promise<void>((resolve) => this.#starved.push(resolve));
    }
  }

  /** Gives up a slot that its caller alone has pinned. */
  drop(slot: number): void {
    assert(this.#pins[slot] === 1, `slot ${slot} is dropped with ${this.#pins[slot]} pins`);
    this.#pins[slot] = 0;
    this.#release(slot);
    for (const wake of this.#starved.splice(0)) wake();
  }

  /** Forgets every slot of an owner that has failed or closed; nothing of it is in flight. */
  dropOwner(owner: SlotOwner): void {
    for (let slot = 0; slot < this.slots; slot += 1) {
      if (this.#owners[slot] !== owner) continue;
      this.#pins[slot] = 0;
      this.#release(slot);
    }
    for (const wake of this.#starved.splice(0)) wake();
  }

  #take(slot: number, owner: SlotOwner, extent: number): number {
    blankRecord(this.slab, slot * SLOT_BYTES);
    this.#owners[slot] = owner;
    this.#extents[slot] = extent;
    this.#pins[slot] = 1;
    this.flags[slot] = SLOT_REFERENCED;
    return slot;
  }

  #release(slot: number): void {
    this.#owners[slot]?.evicted(this.#extents[slot] ?? 0, slot);
    this.#owners[slot] = undefined;
    this.flags[slot] = 0;
    this.#free.push(slot);
  }

  #evictClean(): number | undefined {
    for (let step = 0; step < 2 * this.slots; step += 1) {
      const slot = this.#hand;
      this.#hand = slot + 1 === this.slots ? 0 : slot + 1;
      if (this.#pins[slot] !== 0 || this.#owners[slot] === undefined) continue;
      const flags = this.flags[slot] ?? 0;
      if ((flags & SLOT_REFERENCED) !== 0) this.flags[slot] = flags & ~SLOT_REFERENCED;
      else if ((flags & SLOT_DIRTY) === 0) {
        this.#release(slot);
        return this.#free.pop();
      }
    }
    return undefined;
  }

  #dirtyVictims(): number[] {
    const victims: number[] = [];
    for (let step = 0; step < this.slots && victims.length < WRITE_BACK_SLOTS_MAX; step += 1) {
      const slot = (this.#hand + step) % this.slots;
      const dirty = ((this.flags[slot] ?? 0) & SLOT_DIRTY) !== 0;
      if (dirty && this.#pins[slot] === 0 && this.#owners[slot] !== undefined) victims.push(slot);
    }
    return victims;
  }

  async #writeBack(victims: readonly number[]): Promise<void> {
    const byOwner = new Map<SlotOwner, number[]>();
    for (const slot of victims) {
      const owner = this.#owners[slot];
      assert(owner !== undefined);
      const slots = byOwner.get(owner);
      if (slots === undefined) byOwner.set(owner, [slot]);
      else slots.push(slot);
      this.pin(slot);
    }
    this.#counters.cacheWriteBacks += victims.length;
    const outcomes = await Promise.allSettled(
      [...byOwner].map(([owner, slots]) => owner.writeBack(slots)),
    );
    for (const slot of victims) {
      if (this.#owners[slot] === undefined || this.#pins[slot] === 0) continue;
      this.unpin(slot);
      const clean = ((this.flags[slot] ?? 0) & SLOT_DIRTY) === 0;
      if (clean && this.#pins[slot] === 0) this.#release(slot);
    }
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
  }
}
