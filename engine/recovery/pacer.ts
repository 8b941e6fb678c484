/**
 * How fast copies are made equal beside the clients' I/O.
 *
 * Idle volume: as fast as the window allows. Busy volume: a small window, and after each piece a
 * pause in proportion to how long it took, so that copying takes a part of the time of disks and
 * network whatever their speed is; but never so long that the copy would not end. A rate limit, if
 * one is set, holds in both cases.
 */
import { type Clock, sleep } from '../../common/clock.js';
import { MIB } from '../../common/units.js';

/** What may be in flight; one piece may be, whatever its size. */
export interface PacerWindow {
  readonly pieces: number;
  readonly bytes: number;
}

export interface PacerPolicy {
  /** bytes per second over all members; 0: no limit */
  readonly bytesPerSecond: number;
  readonly idle: PacerWindow;
  /** while clients are busy */
  readonly busy: PacerWindow;
  /** pause after each piece while clients are busy, as a multiple of what it took */
  readonly busyPause: number;
  /** no pause makes it slower than so many bytes per second and piece in flight */
  readonly busyRateMin: number;
  /** clients count as busy for so long after their last operation */
  readonly busyMs: number;
}

export const PACER_POLICY: PacerPolicy = {
  bytesPerSecond: 0,
  idle: { pieces: 64, bytes: 6 * MIB },
  busy: { pieces: 8, bytes: MIB },
  busyPause: 2,
  busyRateMin: 8 * MIB,
  busyMs: 50,
};

/** A scrub is in no hurry. The rate counts what is read on all members together. */
export const SCRUB_PACER_POLICY: PacerPolicy = {
  bytesPerSecond: 256 * MIB,
  idle: { pieces: 2, bytes: 2 * MIB },
  busy: { pieces: 1, bytes: MIB },
  busyPause: 4,
  busyRateMin: 4 * MIB,
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
  #pieces = 0;
  #bytes = 0;
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
    await this.#enter(bytes, signal);
    const { clock } = this.#options;
    const startMs = clock.nowMs();
    try {
      await this.#awaitRate(bytes, signal);
      signal.throwIfAborted();
      const result = await work();
      if (this.busy) await sleep(clock, this.#pauseMs(bytes, clock.nowMs() - startMs), signal);
      return result;
    } finally {
      this.#pieces -= 1;
      this.#bytes -= bytes;
      this.#wake();
    }
  }

  #pauseMs(bytes: number, tookMs: number): number {
    const { busyPause, busyRateMin } = this.#policy;
    const longestMs = (bytes / busyRateMin) * 1000 - tookMs;
    return Math.max(0, Math.min(tookMs * busyPause, longestMs));
  }

  async #enter(bytes: number, signal: AbortSignal): Promise<void> {
    for (;;) {
      signal.throwIfAborted();
      const window = this.busy ? this.#policy.busy : this.#policy.idle;
      const fits = this.#pieces < window.pieces && this.#bytes + bytes <= window.bytes;
      if (fits || this.#pieces === 0) break;
      await new Promise<void>((resolve) => this.#waiters.push(resolve));
    }
    this.#pieces += 1;
    this.#bytes += bytes;
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
