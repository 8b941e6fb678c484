/** A logger that others cannot flood: so many warnings per ten seconds, then one line with how
 *  many were kept back. */
import type { Logger } from '../../common/log.js';

const WINDOW_MS = 10_000;

export class QuietLog {
  #lines = 0;
  #keptBack = 0;
  #windowAtMs = 0;

  constructor(
    readonly log: Logger,
    readonly linesMax: number,
  ) {}

  warn(fields: object, message: string): void {
    this.#lines += 1;
    if (this.#lines <= this.linesMax) this.log.warn(fields, message);
    else this.#keptBack += 1;
  }

  /** Starts a new window when it is time. */
  tick(nowMs: number): void {
    if (nowMs - this.#windowAtMs < WINDOW_MS) return;
    this.#windowAtMs = nowMs;
    if (this.#keptBack > 0) this.log.warn({ lines: this.#keptBack }, 'more like these');
    this.#lines = 0;
    this.#keptBack = 0;
  }
}
