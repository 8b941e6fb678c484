/**
 * Puts all changes of a disk's metadata into one sequence of batches: one in flight, everything
 * else waits for the next.
 *
 * Invariants:
 * - Changes of one `submit` are in one batch, and batches are applied in the order of the calls.
 * - A change is built when its batch is, so it carries what is true then and not when it was asked
 *   for.
 * - Freed physical extents are handed over only after their batch, or a later one, was synced (P9).
 * - After one failed batch nothing is ever written again (P8).
 */
import assert from 'node:assert';
import { toStorageError } from '../../common/errors.js';
import { sumKey } from './keys.js';
import type { Kv, KvOp } from './kv.js';
import { seal } from './sealed-value.js';
import { StateSum } from './state-sum.js';
import type { StoreCounters } from './store-counters.js';

/** Changes of one batch, in order; a later one of the same key wins. */
export class BatchBuilder {
  readonly ops: KvOp[] = [];
  readonly freed: number[] = [];
  readonly #sums: Map<number, StateSum>;
  readonly #touched = new Set<number>();

  constructor(sums: Map<number, StateSum>) {
    this.#sums = sums;
  }

  /** @param oldSeal seal of the value that is stored now; undefined if none is. Returns the new
   *    seal. */
  put(scope: number, key: Buffer, body: Buffer, oldSeal: number | undefined): number {
    const { value, crc } = seal(key, body);
    this.putSealed(scope, key, { value, crc }, oldSeal);
    return crc;
  }

  putSealed(
    scope: number,
    key: Buffer,
    sealed: { value: Buffer; crc: number },
    oldSeal: number | undefined,
  ): void {
    const sum = this.#sumOf(scope);
    if (oldSeal !== undefined) sum.remove(oldSeal);
    sum.add(sealed.crc);
    this.ops.push({ key, value: sealed.value });
  }

  delete(scope: number, key: Buffer, oldSeal: number): void {
    this.#sumOf(scope).remove(oldSeal);
    this.ops.push({ key, value: undefined });
  }

  /** Deletes without knowing the stored value; only for a scope that ends with `dropScope`. */
  deleteUnsummed(key: Buffer): void {
    this.ops.push({ key, value: undefined });
  }

  dropScope(scope: number): void {
    this.#sums.delete(scope);
    this.#touched.delete(scope);
    this.ops.push({ key: sumKey(scope), value: undefined });
  }

  /** To be released for new use once this batch is synced. */
  free(physical: number): void {
    this.freed.push(physical);
  }

  /** Adds the sums of what was touched; `scope` in any case. */
  finish(always: number | undefined): void {
    if (this.#touched.size === 0 && always !== undefined) this.#sumOf(always);
    for (const scope of this.#touched) this.ops.push(this.#sumOf(scope).encode(scope));
  }

  #sumOf(scope: number): StateSum {
    this.#touched.add(scope);
    let sum = this.#sums.get(scope);
    if (sum === undefined) {
      sum = new StateSum();
      this.#sums.set(scope, sum);
    }
    return sum;
  }
}

type Fill = (batch: BatchBuilder) => void;

interface Waiting {
  readonly fill: Fill;
  readonly sync: boolean;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** Each submit of the data path holds at most 64 records: a batch stays below about 5 MiB. */
const SUBMITS_PER_BATCH_MAX = 64;

export interface MetadataWriterOptions {
  readonly kv: Kv;
  readonly counters: StoreCounters;
  /** as proved at open, by scope */
  readonly sums: Map<number, StateSum>;
  /** Called once. @param synced  the failed batch was to be synced: what earlier ones left to the
   *    operating system may be gone as well (D3) */
  readonly onFailure: (error: Error, synced: boolean) => void;
  /** physical extents whose freeing is durable */
  readonly onReleased: (physical: readonly number[]) => void;
}

export class MetadataWriter {
  readonly #options: MetadataWriterOptions;
  readonly #waiting: Waiting[] = [];
  #running = false;
  #failure: Error | undefined;
  /** something was written since the last sync */
  #unsynced = false;
  #freed: number[] = [];
  #idle: Array<() => void> = [];

  constructor(options: MetadataWriterOptions) {
    this.#options = options;
  }

  /** Freed extents that wait for a sync. */
  get freedWaiting(): number {
    return this.#freed.length;
  }

  /** `fill` is called when the batch is built, possibly within this turn. Resolves when the batch
   *  is in the operating system, with `sync` on stable storage. @throws StorageError of the first
   *  failed batch */
  submit(fill: Fill, options: { sync: boolean }): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      this.#waiting.push({ fill, sync: options.sync, resolve, reject });
      if (this.#running) return;
      this.#running = true;
      // One step later, so that whatever else completed in this turn joins the batch.
      queueMicrotask(() => void this.#run());
    });
  }

  /** Every submit that was called before is on stable storage when it resolves. */
  sync(): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (!this.#running && !this.#unsynced) return Promise.resolve();
    return this.submit(() => undefined, { sync: true });
  }

  /** Resolves when nothing is waiting or in flight, whether or not it failed. */
  async drained(): Promise<void> {
    while (this.#running) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  async #run(): Promise<void> {
    while (this.#waiting.length > 0) {
      const taken = this.#waiting.splice(0, SUBMITS_PER_BATCH_MAX);
      try {
        await this.#write(taken);
      } catch (error) {
        this.#fail(toStorageError(error, 'metadata batch'), taken);
        break;
      }
      for (const waiting of taken) waiting.resolve();
    }
    this.#running = false;
    for (const wake of this.#idle.splice(0)) wake();
  }

  async #write(taken: readonly Waiting[]): Promise<void> {
    const { kv, counters, sums, onReleased } = this.#options;
    const sync = taken.some((waiting) => waiting.sync);
    const batch = new BatchBuilder(sums);
    for (const waiting of taken) waiting.fill(batch);
    batch.finish(sync ? 0 : undefined);
    if (batch.ops.length === 0) return;
    for (const physical of batch.freed) this.#freed.push(physical);
    if (!sync) this.#unsynced = true;
    counters.kvBatches += 1;
    if (sync) counters.kvSyncs += 1;
    await kv.batch(batch.ops, { sync });
    if (!sync) return;
    this.#unsynced = false;
    const released = this.#freed;
    this.#freed = [];
    if (released.length > 0) onReleased(released);
  }

  #fail(error: Error, taken: readonly Waiting[]): void {
    assert(this.#failure === undefined);
    this.#failure = error;
    this.#options.onFailure(
      error,
      taken.some(({ sync }) => sync),
    );
    for (const waiting of taken) waiting.reject(error);
    for (const waiting of this.#waiting.splice(0)) waiting.reject(error);
  }
}
