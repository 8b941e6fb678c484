/** How long to wait before a disk that failed or was refused is tried again: twice as long each
 *  time, and from the start once it has served for long enough. */

export const RETRY_MS_MIN = 5_000;
export const RETRY_MS_MAX = 5 * 60_000;

export class RetryDelay {
  #nextMs = RETRY_MS_MIN;

  /** The wait before the next try.
   *  @param servedMs  how long the disk had served before; 0 if the last try failed */
  next(servedMs: number): number {
    if (servedMs >= RETRY_MS_MAX) this.#nextMs = RETRY_MS_MIN;
    const delayMs = this.#nextMs;
    this.#nextMs = Math.min(2 * delayMs, RETRY_MS_MAX);
    return delayMs;
  }
}
