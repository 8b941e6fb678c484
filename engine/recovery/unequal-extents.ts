/**
 * Extents in which the members may differ after a start (R1, P5): nothing of them is read or
 * written before they are equal and flushed on all members.
 *
 * Made equal in the background in ascending order, and ahead of it whatever an operation asks for.
 * An extent that no source can read fails who asks for it, and holds up no other one.
 * The set outlives a tenure: who waits goes on waiting, and is let through by whichever tenure has
 * made the extent equal. Bounded: one bit per extent of the suspect regions.
 */
import { type Clock, sleep } from '../../common/clock.js';
import { type ErrorCode, type StorageError, toStorageError } from '../../common/errors.js';
import type { Logger } from '../../common/log.js';
import { EXTENT_SIZE, EXTENTS_PER_REGION } from '../../common/units.js';
import type { EqualGate } from '../core/equal-gate.js';

/** Makes these extents equal and flushes all members; resolves when both are done.
 *  @throws StorageError CORRUPT_BLOCK: no source can read all of them | why a member failed */
export type Equalize = (extents: readonly number[]) => Promise<void>;

export interface UnequalOptions {
  readonly clock: Clock;
  readonly log: Logger;
  readonly onDone: () => void;
}

/** Extents made equal with one flush. */
const BATCH_EXTENTS = 16;
const RETRY_MS = 200;
/** An extent that cannot be made equal is tried again after this, or when somebody asks for it. */
const POSTPONE_MS = 5_000;
/** No source can read it. All else is about a member, and the next attempt is without that one. */
const ABOUT_CONTENT: ErrorCode = 'CORRUPT_BLOCK';

interface Waiter {
  readonly resolve: () => void;
  readonly reject: (error: StorageError) => void;
}

export class UnequalExtents implements EqualGate {
  readonly #options: UnequalOptions;
  /** suspect regions, ascending: one bit per extent that is not equal yet */
  #regions = new Map<number, [low: number, high: number]>();
  #left = 0;
  #total = 0;
  readonly #waiters = new Map<number, Waiter[]>();
  readonly #urgent = new Set<number>();
  /** extents that could not be made equal, and when they are tried again */
  readonly #postponed = new Map<number, number>();
  #allWaiters: Waiter[] = [];
  #refusal: StorageError | undefined;
  #signal: AbortSignal | undefined;

  constructor(options: UnequalOptions) {
    this.#options = options;
  }

  get active(): boolean {
    return this.#left > 0;
  }

  /** Extents that are not equal yet, and how many there were. */
  get progress(): { readonly left: number; readonly total: number } {
    return { left: this.#left, total: this.#total };
  }

  touchesRegion(region: number): boolean {
    const bits = this.#regions.get(region);
    return bits !== undefined && (bits[0] | bits[1]) !== 0;
  }

  pending(offsetBytes: number, lengthBytes: number): Promise<void> | undefined {
    if (this.#left === 0) return undefined;
    const last = Math.floor((offsetBytes + lengthBytes - 1) / EXTENT_SIZE);
    const waits: Promise<void>[] = [];
    for (let extent = Math.floor(offsetBytes / EXTENT_SIZE); extent <= last; extent += 1) {
      if (this.#isUnequal(extent)) waits.push(this.#await(extent));
    }
    return waits.length === 0 ? undefined : Promise.all(waits).then(() => undefined);
  }

  /** Resolves when every extent is equal, or with the beginning of another tenure: who waits finds
   *  out by its own signal. @throws StorageError as `pending` */
  whenEqual(): Promise<void> {
    if (this.#left === 0) return Promise.resolve();
    if (this.#refusal !== undefined) return Promise.reject(this.#refusal);
    return new Promise((resolve, reject) => this.#allWaiters.push({ resolve, reject }));
  }

  /** A tenure begins. These regions are suspect and no others; `equalize` is called until all are
   *  equal or `signal` is aborted. */
  begin(regions: readonly number[], equalize: Equalize, signal: AbortSignal): void {
    this.#refusal = undefined;
    this.#signal = signal;
    this.#regions = new Map(
      [...new Set(regions)].sort((a, b) => a - b).map((region) => [region, [-1, -1]]),
    );
    this.#total = this.#regions.size * EXTENTS_PER_REGION;
    this.#left = this.#total;
    this.#postponed.clear();
    for (const extent of [...this.#waiters.keys()]) {
      if (!this.#isUnequal(extent)) this.#release(extent);
    }
    for (const waiter of this.#allWaiters.splice(0)) waiter.resolve();
    if (this.#left > 0) void this.#run(equalize, signal);
  }

  /** Between tenures: who waits fails with `error`, and so does who comes, until `begin`. */
  refuse(error: StorageError): void {
    this.#refusal = error;
    for (const [, waiters] of this.#waiters) for (const waiter of waiters) waiter.reject(error);
    for (const waiter of this.#allWaiters.splice(0)) waiter.reject(error);
    this.#waiters.clear();
    this.#urgent.clear();
  }

  async #run(equalize: Equalize, signal: AbortSignal): Promise<void> {
    const { clock, onDone } = this.#options;
    while (this.#left > 0 && !signal.aborted) {
      const batch = this.#nextBatch();
      if (batch.length > 0) await this.#attempt(batch, equalize, signal);
      else await sleep(clock, RETRY_MS, signal).catch(() => undefined);
    }
    if (signal.aborted || this.#signal !== signal) return;
    onDone();
    for (const waiter of this.#allWaiters.splice(0)) waiter.resolve();
  }

  async #attempt(batch: readonly number[], equalize: Equalize, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    const { clock, log } = this.#options;
    try {
      await equalize(batch);
    } catch (cause) {
      if (signal.aborted) return;
      const error = toStorageError(cause, 'make members equal');
      const { code, message } = error;
      log.warn({ code, extents: batch.length }, `not equal yet: ${message}`);
      if (code !== ABOUT_CONTENT) await sleep(clock, RETRY_MS, signal).catch(() => undefined);
      else if (batch.length === 1) this.#postpone(batch, error);
      else for (const extent of batch) await this.#attempt([extent], equalize, signal);
      return;
    }
    if (signal.aborted) return;
    for (const extent of batch) this.#markEqual(extent);
  }

  #postpone([extent]: readonly number[], error: StorageError): void {
    if (extent === undefined) return;
    this.#postponed.set(extent, this.#options.clock.nowMs() + POSTPONE_MS);
    for (const waiter of this.#takeWaiters(extent)) waiter.reject(error);
  }

  #isPostponed(extent: number): boolean {
    const untilMs = this.#postponed.get(extent);
    return untilMs !== undefined && this.#options.clock.nowMs() < untilMs;
  }

  #nextBatch(): number[] {
    const urgent = [...this.#urgent].slice(0, BATCH_EXTENTS);
    if (urgent.length > 0) return urgent;
    const batch: number[] = [];
    for (const [region, bits] of this.#regions) {
      if ((bits[0] | bits[1]) === 0) {
        this.#regions.delete(region);
        continue;
      }
      for (let n = 0; n < EXTENTS_PER_REGION && batch.length < BATCH_EXTENTS; n += 1) {
        const extent = region * EXTENTS_PER_REGION + n;
        if (this.#isUnequal(extent) && !this.#isPostponed(extent)) batch.push(extent);
      }
      if (batch.length >= BATCH_EXTENTS) break;
    }
    return batch;
  }

  #isUnequal(extent: number): boolean {
    const bits = this.#regions.get(Math.floor(extent / EXTENTS_PER_REGION));
    if (bits === undefined) return false;
    const n = extent % EXTENTS_PER_REGION;
    return ((bits[n >>> 5] as number) & (1 << (n & 31))) !== 0;
  }

  #markEqual(extent: number): void {
    const bits = this.#regions.get(Math.floor(extent / EXTENTS_PER_REGION));
    if (bits === undefined || !this.#isUnequal(extent)) return;
    const n = extent % EXTENTS_PER_REGION;
    bits[n >>> 5] = (bits[n >>> 5] as number) & ~(1 << (n & 31));
    this.#left -= 1;
    this.#release(extent);
  }

  #await(extent: number): Promise<void> {
    if (this.#refusal !== undefined) return Promise.reject(this.#refusal);
    this.#urgent.add(extent);
    return new Promise((resolve, reject) => {
      const waiters = this.#waiters.get(extent) ?? [];
      waiters.push({ resolve, reject });
      this.#waiters.set(extent, waiters);
    });
  }

  #release(extent: number): void {
    this.#postponed.delete(extent);
    for (const waiter of this.#takeWaiters(extent)) waiter.resolve();
  }

  #takeWaiters(extent: number): readonly Waiter[] {
    const waiters = this.#waiters.get(extent) ?? [];
    this.#waiters.delete(extent);
    this.#urgent.delete(extent);
    return waiters;
  }
}
