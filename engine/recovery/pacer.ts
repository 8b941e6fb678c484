/**
 * How fast copies are made equal beside the clients' I/O.
 *
 * Idle volume: as fast as the window allows. Busy volume: few pieces at a time, and after each one
 * a pause in proportion to how long it took, so that copying takes a part of the time of disks and
 * network whatever their speed is. A rate limit, if one is set, holds in both cases.
 */
import { type Clock, sleep } from '../../common/clock.js';
import { MIB } from '../../common/units.js';

export interface PacerPolicy {
  /** bytes per second over all members; 0: no limit */
  readonly bytesPerSecond: number;
  /** pieces in flight while clients are idle, and while they are busy */
  readonly idlePieces: number;
  readonly busyPieces: number;
  /** pause after each piece while clients are busy, as a multiple of what it took */
  readonly busyPause: number;
  /** clients count as busy for so long after their last operation */
  readonly busyMs: number;
}

export const PACER_POLICY: PacerPolicy = {
  bytesPerSecond: 0,
  idlePieces: 6,
  busyPieces: 1,
  busyPause: 2,
  busyMs: 50,
};

/** A scrub is in no hurry. The rate counts what is read on all members together. */
export const SCRUB_PACER_POLICY: PacerPolicy = {
  bytesPerSecond: 256 * MIB,
  idlePieces: 2,
  busyPieces: 1,
  busyPause: 4,
  busyMs: 100,
};

export interface PacerOptions {
  readonly clock: Clock;
  readonly policy: PacerPolicy;
  /** when a client's operation last began */
  readonly lastClientMs: () => number;
}

export class Pacer {
  readonly #options: PacerOptions;
  #policy: PacerPolicy;
  #running = 0;
  #waiters: Array<() => void> = [];
  /** when the rate limit lets the next byte go */
  #allowedMs = 0;

  constructor(options: PacerOptions) {
    this.#options = options;
    this.#policy = options.policy;
  }

  get policy(): PacerPolicy {
    return this.#policy;
  }

  /** Takes effect with the next piece. */
  set(policy: PacerPolicy): void {
    this.#policy = policy;
    this.#wake();
  }

  get busy(): boolean {
    const { clock, lastClientMs } = this.#options;
    return clock.nowMs() - lastClientMs() < this.#policy.busyMs;
  }

  /** Runs one piece of work of `bytes` when its turn has come. @throws what `work` throws, or
   *  `signal.reason` */
  async run<T>(bytes: number, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    await this.#enter(signal);
    const { clock } = this.#options;
    const startMs = clock.nowMs();
    try {
      await this.#awaitRate(bytes, signal);
      signal.throwIfAborted();
      const result = await work();
      if (this.busy) {
        await sleep(clock, (clock.nowMs() - startMs) * this.#policy.busyPause, signal);
      }
      return result;
    } finally {
      this.#running -= 1;
      this.#wake();
    }
  }

  async #enter(signal: AbortSignal): Promise<void> {
    for (;;) {
      signal.throwIfAborted();
      const { idlePieces, busyPieces } = this.#policy;
      if (this.#running < (this.busy ? busyPieces : idlePieces)) break;
      await new Promise<void>((resolve) => this.#waiters.push(resolve));
    }
    this.#running += 1;
  }

  async #awaitRate(bytes: number, signal: AbortSignal): Promise<void> {
    const { bytesPerSecond } = this.#policy;
    if (bytesPerSecond === 0) return;
    const { clock } = this.#options;
    const now = clock.nowMs();
    const startMs = Math.max(now, this.#allowedMs);
    this.#allowedMs = startMs + (bytes / bytesPerSecond) * 1000;
    if (startMs > now) await sleep(clock, startMs - now, signal);
  }

  #wake(): void {
    for (const wake of this.#waiters.splice(0)) wake();
  }
}
