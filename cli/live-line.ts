/** A line that changes while a command waits: redrawn on a terminal, now and then a new line
 *  elsewhere. On stderr: stdout has the result. */
import type { Clock } from '../common/clock.js';

export interface LiveLineOptions {
  readonly clock: Clock;
  readonly write: (text: string) => void;
  /** undefined: no terminal */
  readonly columns: number | undefined;
}

/** Without a terminal a line is repeated only after so long. */
const QUIET_MS = 10_000;
const CLEAR = '\r\u001b[K';

export class LiveLine {
  readonly #options: LiveLineOptions;
  #shown = '';
  #shownMs = Number.NEGATIVE_INFINITY;
  /** what the line is about: a change of it is always shown */
  #topic = '';

  constructor(options: LiveLineOptions) {
    this.#options = options;
  }

  /** @param topic  a short text that changes when something other than a number does */
  show(text: string, topic: string): void {
    const { clock, write, columns } = this.#options;
    if (columns !== undefined) {
      // One column is left free: a full line would wrap, and clearing would leave its head.
      const line = text.substring(0, Math.max(1, columns - 1));
      if (line !== this.#shown) write(`${CLEAR}${line}`);
      this.#shown = line;
      return;
    }
    const now = clock.nowMs();
    if (topic === this.#topic && now - this.#shownMs < QUIET_MS) return;
    this.#topic = topic;
    this.#shownMs = now;
    write(`${text}\n`);
  }

  /** The terminal is free for other output. */
  clear(): void {
    if (this.#shown !== '') this.#options.write(CLEAR);
    this.#shown = '';
  }
}
