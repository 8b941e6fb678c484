/**
 * Gives out zeroed physical extents, zeroes more ahead of need, and returns freed ones to the
 * device.
 *
 * Invariants:
 * - An extent is given out only after it was zeroed and the device flushed since (extent-space.ts).
 * - The reserve is never given out. When only it is left, freed extents that wait for a metadata
 *   sync are synced first; then the answer is NO_SPACE.
 */
import type { BlockDevice } from '../../common/block-device.js';
import { StorageError, toStorageError } from '../../common/errors.js';
import type { Logger } from '../../common/log.js';
import { EXTENT_SIZE, formatSize } from '../../common/units.js';
import type { StoreCounters } from '../store/store-counters.js';
import type { ExtentRun, ExtentSpace } from './extent-space.js';

/** Zeroed in one go: one flush per 64 MiB of new space. */
const ZERO_EXTENTS_MAX = 64;
/** Zeroing starts in the background when fewer than these are ready. */
const READY_EXTENTS_MIN = 32;

interface Waiter {
  readonly resolve: (physical: number) => void;
  readonly reject: (error: unknown) => void;
}

export interface ExtentSupplyOptions {
  readonly device: BlockDevice;
  readonly space: ExtentSpace;
  readonly reserveExtents: number;
  readonly counters: StoreCounters;
  readonly log: Logger;
  /** where physical extent 0 begins */
  readonly offsetBytes: number;
  readonly flush: () => Promise<void>;
  /** Makes freeing durable, so that `release` is called for what waits; the number that waits. */
  readonly syncFreed: () => Promise<void>;
  readonly freedWaiting: () => number;
}

export class ExtentSupply {
  readonly #options: ExtentSupplyOptions;
  readonly #waiters: Waiter[] = [];
  /** released in this session; zeroed eagerly, which gives their space back to the device */
  #released: ExtentRun[] = [];
  #working = false;
  #lastWork: Promise<void> = Promise.resolve();
  #stopped = false;

  constructor(options: ExtentSupplyOptions) {
    this.#options = options;
  }

  /** An extent, now used, that is durably zero.
   *  @throws StorageError NO_SPACE | IO_ERROR (it could not be zeroed; nothing changed) | CLOSED */
  allocate(): number | Promise<number> {
    const { space, counters } = this.#options;
    if (this.#waiters.length === 0 && space.freeCount > this.#options.reserveExtents) {
      const physical = space.take();
      if (physical !== undefined) {
        counters.extentsAllocated += 1;
        if (space.zeroedCount < READY_EXTENTS_MIN) this.#pump();
        return physical;
      }
    }
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject });
      this.#pump();
    });
  }

  /** Gives back what `allocate` gave and nobody wrote to. */
  giveBack(physical: number): void {
    this.#options.space.untake(physical);
    this.#options.counters.extentsAllocated -= 1;
  }

  /** Freed extents whose freeing is durable (P9). */
  release(freed: readonly number[]): void {
    const { space, counters } = this.#options;
    for (const run of runsOf(freed)) {
      for (let n = 0; n < run.count; n += 1) space.release(run.first + n);
      this.#released.push(run);
    }
    counters.extentsFreed += freed.length;
    this.#pump();
  }

  /** Ends background work; waiters get CLOSED. */
  async stop(): Promise<void> {
    this.#stopped = true;
    const closed = new StorageError('CLOSED', 'the disk is closed');
    for (const waiter of this.#waiters.splice(0)) waiter.reject(closed);
    await this.#lastWork;
  }

  #pump(): void {
    if (this.#stopped || this.#working) return;
    this.#working = true;
    this.#lastWork = this.#work();
  }

  async #work(): Promise<void> {
    // One step later: what is wanted and freed in one turn is served together.
    await Promise.resolve();
    try {
      do this.#serve();
      while (!this.#stopped && (await this.#step()));
    } catch (error) {
      const failure = toStorageError(error, 'zero free extents');
      this.#options.log.error({ err: failure }, 'free space could not be zeroed');
      for (const waiter of this.#waiters.splice(0)) waiter.reject(failure);
    }
    // In the same step as the last look at the waiters, or one that came meanwhile would be
    // forgotten.
    this.#working = false;
  }

  /** Does one thing; false if there is nothing to do. */
  async #step(): Promise<boolean> {
    const { space, reserveExtents } = this.#options;
    if (this.#waiters.length > 0 && space.freeCount <= reserveExtents) {
      if (this.#options.freedWaiting() > 0) {
        await this.#options.syncFreed();
        if (space.freeCount > reserveExtents) return true;
      }
      this.#refuse();
      return true;
    }
    if (this.#released.length > 0) {
      await this.#zero(this.#released.splice(0));
      return true;
    }
    if (space.zeroedCount >= READY_EXTENTS_MIN && this.#waiters.length === 0) return false;
    const run = space.nextUnknown(ZERO_EXTENTS_MAX);
    if (run === undefined) return this.#waiters.length > 0;
    await this.#zero([run]);
    return true;
  }

  /** The runs stay unknown if this fails. */
  async #zero(runs: readonly ExtentRun[]): Promise<void> {
    const { device, offsetBytes, space } = this.#options;
    for (const { first, count } of runs) {
      const at = offsetBytes + first * EXTENT_SIZE;
      await device.writeZeroes(at, count * EXTENT_SIZE, { mayUnmap: true });
    }
    await this.#options.flush();
    for (const run of runs) space.markZeroed(run);
  }

  #serve(): void {
    const { space, counters, reserveExtents } = this.#options;
    while (this.#waiters.length > 0 && space.freeCount > reserveExtents) {
      const physical = space.take();
      if (physical === undefined) return;
      counters.extentsAllocated += 1;
      this.#waiters.shift()?.resolve(physical);
    }
  }

  #refuse(): void {
    const { space, counters, reserveExtents } = this.#options;
    const size = formatSize(space.extents * EXTENT_SIZE);
    for (const waiter of this.#waiters.splice(0)) {
      counters.noSpace += 1;
      waiter.reject(
        new StorageError(
          'NO_SPACE',
          `disk of ${size} is full: ${space.takenCount} extents in use, ${reserveExtents} reserved`,
          { hint: 'delete or trim volumes, or enlarge the disk' },
        ),
      );
    }
  }
}

/** Ascending runs of a set of numbers, each at most ZERO_EXTENTS_MAX long. */
function runsOf(numbers: readonly number[]): ExtentRun[] {
  const sorted = [...numbers].sort((a, b) => a - b);
  const runs: Array<{ first: number; count: number }> = [];
  for (const number of sorted) {
    const last = runs.at(-1);
    if (last !== undefined && number === last.first + last.count && last.count < ZERO_EXTENTS_MAX) {
      last.count += 1;
    } else runs.push({ first: number, count: 1 });
  }
  return runs;
}
