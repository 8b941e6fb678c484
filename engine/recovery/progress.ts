/** How far a catch-up is, for people and metrics. */
import type { Clock } from '../../common/clock.js';

export type Phase = 'connecting' | 'listing' | 'comparing' | 'copying' | 'flushing';

export interface ProgressView {
  readonly phase: Phase;
  readonly doneBytes: number;
  readonly totalBytes: number;
  /** since it began, of what is done in this phase */
  readonly bytesPerSecond: number;
  /** 0: nothing to tell it from */
  readonly etaMs: number;
}

/** Rates are smoothed over this time. */
const RATE_MS = 2_000;

export class Progress {
  readonly #clock: Clock;
  #phase: Phase = 'connecting';
  #doneBytes = 0;
  #totalBytes = 0;
  #rate = 0;
  #rateFromMs = 0;
  #rateFromBytes = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  phase(phase: Phase): void {
    this.#phase = phase;
  }

  begin(phase: Phase, totalBytes: number): void {
    this.#phase = phase;
    this.#totalBytes = totalBytes;
    this.#doneBytes = 0;
    this.#rate = 0;
    this.#rateFromMs = this.#clock.nowMs();
    this.#rateFromBytes = 0;
  }

  advance(bytes: number): void {
    this.#doneBytes = Math.min(this.#totalBytes, this.#doneBytes + bytes);
    const elapsedMs = this.#clock.nowMs() - this.#rateFromMs;
    if (elapsedMs < RATE_MS) return;
    this.#rate = ((this.#doneBytes - this.#rateFromBytes) / elapsedMs) * 1000;
    this.#rateFromMs += elapsedMs;
    this.#rateFromBytes = this.#doneBytes;
  }

  view(): ProgressView {
    const elapsedMs = this.#clock.nowMs() - this.#rateFromMs;
    const fresh = elapsedMs > 0 ? ((this.#doneBytes - this.#rateFromBytes) / elapsedMs) * 1000 : 0;
    const bytesPerSecond = this.#rate > 0 ? this.#rate : fresh;
    const leftBytes = this.#totalBytes - this.#doneBytes;
    return {
      phase: this.#phase,
      doneBytes: Math.round(this.#doneBytes),
      totalBytes: Math.round(this.#totalBytes),
      bytesPerSecond: Math.round(bytesPerSecond),
      etaMs: bytesPerSecond > 0 ? Math.round((leftBytes / bytesPerSecond) * 1000) : 0,
    };
  }
}
