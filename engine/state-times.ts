/** How long each subject (the volume, each of its replicas) has been in which state. Pure: told the
 *  time, and what is the case, whenever something changed. */
import assert from 'node:assert';

export interface StateTime {
  readonly subject: string;
  readonly state: string;
  readonly ms: number;
}

interface Present {
  readonly state: string;
  readonly sinceMs: number;
}

export class StateTimes {
  #atMs = Number.NEGATIVE_INFINITY;
  readonly #present = new Map<string, Present>();
  /** up to #atMs, by subject and state */
  readonly #totals = new Map<string, Map<string, number>>();

  /** The states from `nowMs` on (monotonic); until then what was noted before held. A subject that
   *  is not named any more is forgotten. */
  note(nowMs: number, states: ReadonlyMap<string, string>): void {
    assert(nowMs >= this.#atMs, 'time does not go back');
    this.#account(nowMs);
    for (const subject of [...this.#present.keys()]) {
      if (states.has(subject)) continue;
      this.#present.delete(subject);
      this.#totals.delete(subject);
    }
    for (const [subject, state] of states) {
      if (this.#present.get(subject)?.state === state) continue;
      this.#present.set(subject, { state, sinceMs: nowMs });
    }
  }

  #account(nowMs: number): void {
    for (const [subject, { state, sinceMs }] of this.#present) {
      const totals = this.#totals.get(subject) ?? new Map<string, number>();
      const elapsedMs = nowMs - Math.max(sinceMs, this.#atMs);
      totals.set(state, (totals.get(state) ?? 0) + elapsedMs);
      this.#totals.set(subject, totals);
    }
    this.#atMs = nowMs;
  }

  /** How long the subject has been in its present state; 0 if it is not known. */
  presentMs(subject: string, nowMs: number): number {
    const present = this.#present.get(subject);
    return present === undefined ? 0 : Math.max(0, nowMs - present.sinceMs);
  }

  /** Up to the newest `note`, every state that a subject was in. */
  *totals(): Iterable<StateTime> {
    for (const [subject, totals] of this.#totals) {
      for (const [state, ms] of totals) yield { subject, state, ms };
    }
  }
}
