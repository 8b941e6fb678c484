/**
 * The extent records of one replica: found in the cache, loaded from the metadata, made, stored.
 *
 * Invariants:
 * - An extent has at most one slot. It is loaded or made once, however many callers ask at the same
 *   time.
 * - Records that changed in one turn are stored by one batch; a slot stays pinned until its batch
 *   has resolved.
 * - A record of an extent that may have been written before an unclean stop is used only after its
 *   checksums were recomputed from the device, once, except for raw reads (SLOT_UNPROVEN).
 */
import assert from 'node:assert';
import { anySet, clearBits, setBits } from '../../common/bitmap.js';
import { StorageError } from '../../common/errors.js';
import { BLOCKS_PER_EXTENT } from '../../common/units.js';
import {
  SLOT_DIRTY,
  SLOT_QUEUED,
  SLOT_STORED,
  SLOT_UNPROVEN,
  type SlotOwner,
} from './extent-cache.js';
import { proveExtent } from './extent-proof.js';
import {
  BUSY_AT,
  EXTENT_FORMAT,
  PHYSICAL_AT,
  PRESENT_AT,
  RECORD_BODY_BYTES,
  RECORD_BYTES,
  SLOT_BYTES,
} from './extent-record.js';
import { extentKey } from './keys.js';
import type { BatchBuilder } from './metadata-writer.js';
import { checkSeal, sealOf } from './sealed-value.js';
import type { StoreContext } from './store-context.js';

interface StoreGroup {
  readonly slots: number[];
  done: Promise<void>;
}

/** As many as one submit to the metadata writer may hold. */
const GROUP_SLOTS_MAX = 64;

export class ExtentRecords implements SlotOwner {
  readonly #context: StoreContext;
  readonly #slots = new Map<number, number>();
  readonly #loading = new Map<number, Promise<unknown>>();
  readonly #busyWaiters = new Map<number, Array<() => void>>();
  #group: StoreGroup | undefined;

  constructor(context: StoreContext) {
    this.#context = context;
  }

  /** The slot of an extent if it is in the cache; not pinned. */
  cached(extent: number): number | undefined {
    return this.#slots.get(extent);
  }

  /** The pinned slot of an extent; undefined if the extent has no record and `create` is false. A
   *  made one has a physical extent and no block. With `prove` its checksums are true.
   *  @throws StorageError NO_SPACE | IO_ERROR | OVERLOADED | CORRUPT_METADATA (the store has failed
   *    then) */
  async acquire(
    extent: number,
    want: { create: boolean; prove: boolean },
  ): Promise<number | undefined> {
    const { cache, counters } = this.#context.disk;
    for (;;) {
      const slot = this.#slots.get(extent);
      const loading = this.#loading.get(extent);
      if (loading !== undefined && (slot === undefined || want.prove)) {
        await loading.catch(() => undefined);
        this.#context.checkFailure();
        continue;
      }
      if (slot !== undefined && !(want.prove && this.#hasFlag(slot, SLOT_UNPROVEN))) {
        counters.cacheHits += 1;
        cache.pin(slot);
        return slot;
      }
      if (slot === undefined && this.#context.map.get(extent) === -1 && !want.create)
        return undefined;
      const load = this.#load(extent, slot, want.prove);
      this.#loading.set(extent, load);
      try {
        return await load;
      } finally {
        this.#loading.delete(extent);
      }
    }
  }

  /** Unpins; a slot that was made and never used goes back with its physical extent. After a
   *  failure nobody knows whether something was written there: then the extent stays taken. */
  unpinUnused(slot: number): void {
    const { cache } = this.#context.disk;
    const extent = cache.extentOf(slot);
    const used =
      this.#context.failure !== undefined ||
      ((cache.flags[slot] ?? 0) & (SLOT_STORED | SLOT_QUEUED)) !== 0 ||
      cache.pinsOf(slot) !== 1;
    if (used || this.hasBlocks(slot) || this.#slots.get(extent) !== slot) {
      cache.unpin(slot);
      return;
    }
    this.#context.disk.giveBack(this.physicalOf(slot));
    this.#context.map.set(extent, -1);
    cache.drop(slot);
  }

  physicalOf(slot: number): number {
    return this.#context.disk.cache.slab.readUInt32LE(slot * SLOT_BYTES + PHYSICAL_AT);
  }

  hasBlocks(slot: number): boolean {
    const { slab } = this.#context.disk.cache;
    return anySet(slab, slot * SLOT_BYTES + PRESENT_AT, 0, BLOCKS_PER_EXTENT);
  }

  /** The record in memory is newer than the stored one; it will be stored when evicted, cleaned or
   *  closed. */
  noteChanged(slot: number): void {
    const { flags } = this.#context.disk.cache;
    flags[slot] = (flags[slot] ?? 0) | SLOT_DIRTY;
  }

  /** Resolves when the record as it is now, or newer, has reached the operating system. */
  store(slot: number): Promise<void> {
    const { cache } = this.#context.disk;
    const flags = cache.flags[slot] ?? 0;
    let group = this.#group;
    if ((flags & SLOT_QUEUED) !== 0 && group !== undefined && group.slots.includes(slot)) {
      return group.done;
    }
    if (group === undefined || group.slots.length >= GROUP_SLOTS_MAX) group = this.#openGroup();
    cache.flags[slot] = flags | SLOT_QUEUED | SLOT_DIRTY;
    cache.pin(slot);
    group.slots.push(slot);
    return group.done;
  }

  async writeBack(slots: readonly number[]): Promise<void> {
    await Promise.all(slots.map((slot) => this.store(slot)));
  }

  evicted(extent: number, slot: number): void {
    if (this.#slots.get(extent) === slot) this.#slots.delete(extent);
  }

  /** Slots with records newer than the metadata. */
  changedSlots(): number[] {
    return [...this.#slots.values()].filter((slot) => this.#hasFlag(slot, SLOT_DIRTY));
  }

  /** Adds the record to a batch as it is now. */
  put(slot: number, batch: BatchBuilder): void {
    const { cache } = this.#context.disk;
    const key = extentKey(this.#context.identity.number, cache.extentOf(slot));
    const value = Buffer.allocUnsafe(RECORD_BYTES);
    const base = slot * SLOT_BYTES;
    cache.slab.copy(value, 0, base, base + RECORD_BODY_BYTES);
    const crc = sealOf(key, value, 0, RECORD_BODY_BYTES);
    value.writeUInt32LE(crc, RECORD_BODY_BYTES);
    const oldSeal = this.#hasFlag(slot, SLOT_STORED) ? cache.storedSeals[slot] : undefined;
    batch.putSealed(this.#context.identity.number, key, { value, crc }, oldSeal);
    cache.storedSeals[slot] = crc;
    cache.flags[slot] = ((cache.flags[slot] ?? 0) | SLOT_STORED) & ~(SLOT_DIRTY | SLOT_QUEUED);
  }

  /** Takes an extent out of the volume if its caller alone holds it: from now on it reads as absent
   *  and a new write makes it anew. The caller passes the slot to `putFreed`, which also gives it
   *  up. */
  detach(slot: number): boolean {
    const { cache } = this.#context.disk;
    const extent = cache.extentOf(slot);
    if (cache.pinsOf(slot) !== 1 || this.#slots.get(extent) !== slot) return false;
    this.#slots.delete(extent);
    this.#context.map.set(extent, -1);
    return true;
  }

  /** Deletes the record of a detached slot and frees its physical extent (P9). */
  putFreed(slot: number, batch: BatchBuilder): void {
    const { cache } = this.#context.disk;
    const { number } = this.#context.identity;
    if (this.#hasFlag(slot, SLOT_STORED)) {
      batch.delete(number, extentKey(number, cache.extentOf(slot)), cache.storedSeals[slot] ?? 0);
    }
    batch.free(this.physicalOf(slot));
    cache.drop(slot);
  }

  isBusy(slot: number, first: number, count: number): boolean {
    return anySet(this.#context.disk.cache.slab, slot * SLOT_BYTES + BUSY_AT, first, count);
  }

  setBusy(slot: number, first: number, count: number): void {
    setBits(this.#context.disk.cache.slab, slot * SLOT_BYTES + BUSY_AT, first, count);
  }

  clearBusy(slot: number, first: number, count: number): void {
    clearBits(this.#context.disk.cache.slab, slot * SLOT_BYTES + BUSY_AT, first, count);
    if (this.#busyWaiters.size === 0) return;
    const waiters = this.#busyWaiters.get(slot);
    this.#busyWaiters.delete(slot);
    for (const wake of waiters ?? []) wake();
  }

  /** Resolves when some blocks of a pinned slot are no longer busy; look again then. */
  whenLessBusy(slot: number): Promise<void> {
    return new Promise((resolve) => {
      const waiters = this.#busyWaiters.get(slot);
      if (waiters === undefined) this.#busyWaiters.set(slot, [resolve]);
      else waiters.push(resolve);
    });
  }

  #hasFlag(slot: number, flag: number): boolean {
    return ((this.#context.disk.cache.flags[slot] ?? 0) & flag) !== 0;
  }

  #openGroup(): StoreGroup {
    const { cache, writer } = this.#context.disk;
    const group: StoreGroup = { slots: [], done: Promise.resolve() };
    const fill = (batch: BatchBuilder): void => {
      if (this.#group === group) this.#group = undefined;
      for (const slot of group.slots) this.put(slot, batch);
    };
    const unpin = (): void => {
      for (const slot of group.slots) cache.unpin(slot);
    };
    group.done = writer.submit(fill, { sync: false }).finally(unpin);
    this.#group = group;
    return group;
  }

  async #load(extent: number, present: number | undefined, prove: boolean): Promise<number> {
    const { cache, counters } = this.#context.disk;
    if (present !== undefined) cache.pin(present);
    else counters.cacheMisses += 1;
    const slot = present ?? (await cache.acquire(this, extent));
    try {
      if (present === undefined) {
        if (this.#context.map.get(extent) === -1) await this.#make(extent, slot);
        else await this.#fetch(extent, slot);
      }
      if (prove && this.#hasFlag(slot, SLOT_UNPROVEN)) await this.#prove(extent, slot);
      this.#slots.set(extent, slot);
      return slot;
    } catch (error) {
      if (present !== undefined || this.#slots.get(extent) === slot) cache.unpin(slot);
      else cache.drop(slot);
      throw error;
    }
  }

  async #make(extent: number, slot: number): Promise<void> {
    const { cache } = this.#context.disk;
    const allocated = this.#context.disk.allocate();
    const physical = typeof allocated === 'number' ? allocated : await allocated;
    cache.slab.writeUInt32LE(physical, slot * SLOT_BYTES + PHYSICAL_AT);
    this.#context.map.set(extent, physical);
    this.#context.regions.noteProven(extent);
    this.noteChanged(slot);
  }

  async #fetch(extent: number, slot: number): Promise<void> {
    const { cache, kv, counters } = this.#context.disk;
    const { number, volume, replicaId } = this.#context.identity;
    const key = extentKey(number, extent);
    counters.kvGets += 1;
    const value = await kv.get(key);
    const crc = value === undefined ? undefined : checkSeal(key, value);
    const good =
      value !== undefined &&
      crc !== undefined &&
      value.length === RECORD_BYTES &&
      value[0] === EXTENT_FORMAT &&
      value.readUInt32LE(PHYSICAL_AT) === this.#context.map.get(extent);
    if (!good) {
      const what = value === undefined ? 'is missing' : 'is damaged';
      const error = new StorageError(
        'CORRUPT_METADATA',
        `record of extent ${extent} of volume ${volume} ${what}`,
        { volume, replica: replicaId, extent },
      );
      this.#context.fail(error);
      throw error;
    }
    value.copy(cache.slab, slot * SLOT_BYTES, 0, RECORD_BODY_BYTES);
    cache.storedSeals[slot] = crc;
    const unproven = this.#context.regions.isUnproven(extent) ? SLOT_UNPROVEN : 0;
    cache.flags[slot] = (cache.flags[slot] ?? 0) | SLOT_STORED | unproven;
  }

  async #prove(extent: number, slot: number): Promise<void> {
    const { cache, counters } = this.#context.disk;
    await proveExtent(this.#context, { slot, physical: this.physicalOf(slot) });
    assert(cache.extentOf(slot) === extent);
    counters.reprovenExtents += 1;
    this.#context.regions.noteProven(extent);
    cache.flags[slot] = ((cache.flags[slot] ?? 0) & ~SLOT_UNPROVEN) | SLOT_DIRTY;
  }
}
