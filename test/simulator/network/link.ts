/** One direction between two hosts: how long things take, and what is wrong with it. */
import type { Random } from '../kernel/random.js';
import type { Scheduler } from '../kernel/scheduler.js';

export interface LinkQuality {
  /** fixed part of the delay, and mean of the varying part */
  delayMs: number;
  jitterMs: number;
  /** part of the sendings whose packet is lost: TCP sends it again after a while */
  lossRate: number;
  /** Infinity: no limit */
  bytesPerMs: number;
  /** part of the control requests that arrive a second time, later */
  duplicateRate: number;
  /** part of the messages with a payload in which one bit of it is changed */
  flipRate: number;
}

export const GOOD_QUALITY: Readonly<LinkQuality> = {
  delayMs: 0.05,
  jitterMs: 0.05,
  lossRate: 0,
  bytesPerMs: Number.POSITIVE_INFINITY,
  duplicateRate: 0,
  flipRate: 0,
};

const RETRANSMIT_MS = 200;
const RETRANSMITS_MAX = 5;

export class Link {
  quality: LinkQuality;
  readonly random: Random;
  readonly #scheduler: Scheduler;
  readonly #waiting: Array<() => void> = [];
  #cuts = 0;
  #busyUntilMs = 0;

  constructor(scheduler: Scheduler, random: Random, quality: LinkQuality) {
    this.#scheduler = scheduler;
    this.random = random;
    this.quality = { ...quality };
  }

  get isCut(): boolean {
    return this.#cuts > 0;
  }

  /** Nothing that is sent from now on arrives before the matching `heal`. Cuts nest. */
  cut(): void {
    this.#cuts += 1;
  }

  /** What was sent meanwhile goes on with the next retransmission. */
  heal(): void {
    this.#cuts = Math.max(0, this.#cuts - 1);
    if (this.#cuts > 0) return;
    for (const go of this.#waiting.splice(0)) {
      this.#scheduler.after(this.random.exponential(RETRANSMIT_MS), go);
    }
  }

  /** Calls back, in the world's time, when a packet sent now has arrived. */
  carry(arrived: () => void): void {
    this.whenOpen(() => {
      this.#scheduler.after(this.latencyMs(64), arrived);
    });
  }

  /** At once, or when the link is no longer cut. */
  whenOpen(callback: () => void): void {
    if (this.isCut) this.#waiting.push(() => this.whenOpen(callback));
    else callback();
  }

  /** How long so many bytes take that are sent now. */
  latencyMs(lengthBytes: number): number {
    const { delayMs, jitterMs, lossRate, bytesPerMs } = this.quality;
    let latency = delayMs + this.random.exponential(jitterMs);
    for (let n = 0; n < RETRANSMITS_MAX && this.random.chance(lossRate); n += 1) {
      latency += RETRANSMIT_MS * 2 ** n;
    }
    if (bytesPerMs === Number.POSITIVE_INFINITY) return latency;
    const { nowMs } = this.#scheduler;
    this.#busyUntilMs = Math.max(this.#busyUntilMs, nowMs) + lengthBytes / bytesPerMs;
    return latency + this.#busyUntilMs - nowMs;
  }
}
