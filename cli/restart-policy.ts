/** When a process that died is started again: at once at first, then ever more slowly (scenario 8).
 *  Pure. */

export const FIRST_DELAY_MS = 250;
export const DELAY_MS_MAX = 30_000;
/** A process that ran this long counts as healthy: its next death starts from the first delay
 *  again. */
export const STABLE_MS = 60_000;

export class RestartPolicy {
  #delayMs = FIRST_DELAY_MS;
  #restarts = 0;

  /** Restarts so far, for people. */
  get restarts(): number {
    return this.#restarts;
  }

  /** Milliseconds to wait before the next start, after a life of `ranMs`. */
  nextDelayMs(ranMs: number): number {
    if (ranMs >= STABLE_MS) this.#delayMs = FIRST_DELAY_MS;
    const delayMs = this.#delayMs;
    this.#delayMs = Math.min(this.#delayMs * 2, DELAY_MS_MAX);
    this.#restarts += 1;
    return delayMs;
  }
}
