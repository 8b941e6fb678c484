/**
 * Cleans regions that have been idle, so that a crash costs little (P1, P2).
 *
 * Order per round: lock the regions against writes (reads go on) -> check that they are still idle
 * and equal on all members -> flush every member -> each in-sync member stores checksums and one
 * new tag and removes the mark, in one synced batch. A tag is {epoch, counter} with a counter that
 * never repeats within the epoch: equal tags on clean extents prove equal content. A member that is
 * catching up takes no part: it may not hold all of the region.
 */
import type { Clock, Timer } from '../../common/clock.js';
import { StorageError, toStorageError } from '../../common/errors.js';
import type { Logger } from '../../common/log.js';
import { REGION_SIZE } from '../../common/units.js';
import { IO_OP } from '../../proto/io-codec.js';
import type { DirtyTracker } from './dirty-tracker.js';
import type { EqualGate } from './equal-gate.js';
import type { Fanout } from './fanout.js';
import { isRefusal } from './fanout-op.js';
import type { LinkTable } from './link-table.js';
import type { RangeLock } from './range-lock.js';
import type { ReplicaLink } from './replica-link.js';
import { UnaryOp } from './unary-op.js';

export interface RegionCleanerOptions {
  readonly tracker: DirtyTracker;
  readonly lock: RangeLock;
  readonly fanout: Fanout;
  readonly table: LinkTable;
  readonly gate: EqualGate;
  readonly clock: Clock;
  readonly log: Logger;
  readonly volumeBytes: () => number;
  readonly idleMs: number;
  readonly intervalMs: number;
}

/** Regions cleaned with one flush; also bounds how long a write can find them locked. */
const ROUND_REGIONS = 8;

export class RegionCleaner {
  readonly #options: RegionCleanerOptions;
  #timer: Timer | undefined;
  #round: Promise<void> = Promise.resolve();
  #stopped = false;
  #counter = 0;

  constructor(options: RegionCleanerOptions) {
    this.#options = options;
  }

  start(): void {
    if (this.#timer === undefined) this.#schedule();
  }

  /** A tenure begins: its epoch makes the counters new (a tag is never used twice). */
  beginEpoch(): void {
    this.#counter = 0;
  }

  /** No further round; resolves when the one under way has ended. */
  stop(): Promise<void> {
    this.#stopped = true;
    this.#timer?.cancel();
    return this.#round;
  }

  /** Cleans all regions that are idle for `idleMs` (0: all). @throws StorageError of the flush or
   *  of a member */
  async clean(idleMs: number): Promise<number> {
    let cleaned = 0;
    for (;;) {
      const { tracker, clock } = this.#options;
      const regions = tracker.idle(clock.nowMs(), idleMs, ROUND_REGIONS);
      if (regions.length === 0) return cleaned;
      const done = await this.#cleanSome(regions, idleMs);
      cleaned += done;
      if (done === 0) return cleaned;
    }
  }

  async #cleanSome(regions: readonly number[], idleMs: number): Promise<number> {
    const { lock, fanout, tracker, clock, gate, volumeBytes } = this.#options;
    const holds = regions.map((region) => {
      const start = region * REGION_SIZE;
      return lock.lock(start, Math.min(REGION_SIZE, volumeBytes() - start), false);
    });
    try {
      for (const hold of holds) if (hold.ready !== undefined) await hold.ready;
      // A write may have come before the lock was granted.
      const idle = regions.filter(
        (region) => tracker.isIdle(region, clock.nowMs(), idleMs) && !gate.touchesRegion(region),
      );
      if (idle.length === 0) return 0;
      await fanout.flush();
      // The flush may have waited for another tenure, in which the members may differ here.
      const equal = idle.filter((region) => !gate.touchesRegion(region));
      await Promise.all(equal.map((region) => this.#cleanOne(region)));
      return equal.length;
    } finally {
      for (const hold of holds) lock.unlock(hold);
    }
  }

  async #cleanOne(region: number): Promise<void> {
    const { table, tracker } = this.#options;
    this.#counter += 1;
    const arg = this.#counter;
    const links = [...table.inSync];
    if (links.length === 0) throw new StorageError('NO_REPLICA', 'no in-sync replica to clean');
    const cleans = links.map((link) => this.#cleanOn(link, region, arg));
    const outcomes = await Promise.allSettled(cleans);
    const failed = outcomes.find((outcome) => outcome.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
    tracker.cleaned(region);
  }

  async #cleanOn(link: ReplicaLink, region: number, arg: number): Promise<void> {
    const op = new UnaryOp();
    const offsetBytes = region * REGION_SIZE;
    link.request(op, { op: IO_OP.CLEAN, flags: 0, offsetBytes, lengthBytes: 0, arg });
    try {
      await op.done;
    } catch (cause) {
      const error = toStorageError(cause, `clean region ${region}`);
      // Metadata that cannot be written fails the member (P8), though no client asked for anything.
      if (!isRefusal(error)) link.break(error);
      throw error;
    }
  }

  #schedule(): void {
    if (this.#stopped) return;
    const { clock, intervalMs } = this.#options;
    this.#timer = clock.after(intervalMs, () => this.#tick(), { background: true });
  }

  #tick(): void {
    this.#round = this.clean(this.#options.idleMs)
      .then(
        () => undefined,
        (error: unknown) => this.#options.log.warn({ err: error }, 'cleaning regions failed'),
      )
      .finally(() => this.#schedule());
  }
}
