/**
 * When a scrub begins by itself.
 *
 * The age of the last pass is told by wall time, for it has to outlive the engine; a clock that
 * jumps makes a scrub early or late and nothing else (scenario 75). All waiting is monotonic.
 */
import type { Clock, Timer } from '../../common/clock.js';
import type { ScrubReport } from './scrub.js';

export interface ScrubAge {
  readonly report: Pick<ScrubReport, 'state' | 'startedMs' | 'finishedMs'>;
  /** the pass under way ended with its engine, or because no member could be asked: nobody stopped
   *  it on purpose */
  readonly interrupted: boolean;
  readonly everyMs: number;
  readonly wallMs: number;
}

/** True if a pass should begin, or go on, now. Pure. */
export function isScrubDue({ report, interrupted, everyMs, wallMs }: ScrubAge): boolean {
  if (everyMs === 0 || report.state === 'running') return false;
  if (interrupted || report.state === 'never') return true;
  // A pass that a person stopped rests until the next one would be due.
  const lastMs = report.state === 'stopped' ? report.startedMs : report.finishedMs;
  return lastMs > wallMs || wallMs - lastMs >= everyMs;
}

/** After the start of an engine there is recovery to do first, and hosts that lost power together
 *  come back together. */
const FIRST_LOOK_MS = 600_000;
const LOOK_MS = 600_000;

export interface ScrubScheduleOptions {
  readonly everyMs: number;
  readonly clock: Clock;
  readonly scrub: {
    readonly report: ScrubReport;
    readonly interrupted: boolean;
    start(): void;
  };
  /** whether members can be asked now */
  readonly serving: () => boolean;
}

/** Looks from time to time, from `start` until `stop`. */
export class ScrubSchedule {
  readonly #options: ScrubScheduleOptions;
  #timer: Timer | undefined;

  constructor(options: ScrubScheduleOptions) {
    this.#options = options;
  }

  start(): void {
    if (this.#options.everyMs > 0) this.#lookAfter(FIRST_LOOK_MS);
  }

  #lookAfter(delayMs: number): void {
    this.#timer = this.#options.clock.after(delayMs, () => this.#look(), { background: true });
  }

  #look(): void {
    const { scrub, everyMs, clock, serving } = this.#options;
    const { report, interrupted } = scrub;
    const due = isScrubDue({ report, interrupted, everyMs, wallMs: clock.wallMs() });
    if (due && serving()) scrub.start();
    this.#lookAfter(LOOK_MS);
  }

  stop(): void {
    this.#timer?.cancel();
  }
}
