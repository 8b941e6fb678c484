/**
 * Cleans regions that have been idle, so that a crash costs little (P1, P2).
 *
 * Order per round: lock the regions against writes (reads go on) -> check that they are still idle
 * -> flush every member -> each member stores checksums and one new tag and removes the mark, in
 * one synced batch. A tag is {epoch, counter} with a counter that never repeats within the epoch:
 * equal tags on clean extents prove equal content.
 */
import type { Clock, Timer } from '../../common/clock.js';
import type { Logger } from '../../common/log.js';
import { REGION_SIZE } from '../../common/units.js';
import { IO_OP } from '../../proto/io-codec.js';
import type { DirtyTracker } from './dirty-tracker.js';
import type { Fanout } from './fanout.js';
import type { RangeLock } from './range-lock.js';

export interface RegionCleanerOptions {
  readonly tracker: DirtyTracker;
  readonly lock: RangeLock;
  readonly fanout: Fanout;
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
    this.#schedule();
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
    const { lock, fanout, tracker, clock, volumeBytes } = this.#options;
    const holds = regions.map((region) => {
      const start = region * REGION_SIZE;
      return lock.lock(start, Math.min(REGION_SIZE, volumeBytes() - start), false);
    });
    try {
      for (const hold of holds) if (hold.ready !== undefined) await hold.ready;
      // A write may have come before the lock was granted.
      const idle = regions.filter((region) => tracker.isIdle(region, clock.nowMs(), idleMs));
      if (idle.length === 0) return 0;
      await fanout.flush();
      await Promise.all(idle.map((region) => this.#cleanOne(region)));
      return idle.length;
    } finally {
      for (const hold of holds) lock.unlock(hold);
    }
  }

  async #cleanOne(region: number): Promise<void> {
    this.#counter += 1;
    await this.#options.fanout.command({
      op: IO_OP.CLEAN,
      flags: 0,
      offsetBytes: region * REGION_SIZE,
      lengthBytes: 0,
      arg: this.#counter,
    });
    this.#options.tracker.cleaned(region);
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
