/** Which events are news to somebody who has seen some. An event that repeats keeps its number and
 *  counts up, so the newest number alone does not tell. Pure. */
import type { EngineEvent } from '../proto/control.js';

export class EventFollower {
  readonly #firstMax: number;
  /** by subject: only the newest of each can still count up */
  readonly #newest = new Map<string, { readonly seq: number; readonly count: number }>();
  #started = false;

  /** @param firstMax  of what was there before, the newest so many are shown */
  constructor(firstMax: number) {
    this.#firstMax = firstMax;
  }

  /** What to ask for: only events with a larger number can be news. */
  get afterSeq(): number {
    const oldest = Math.min(...[...this.#newest.values()].map(({ seq }) => seq));
    return Number.isFinite(oldest) ? oldest - 1 : 0;
  }

  /** @param events  with a number larger than `afterSeq`, oldest first
   *  @returns those that are new, or happened again */
  next(events: readonly EngineEvent[]): readonly EngineEvent[] {
    const news = events.filter((event) => this.#isNews(event));
    for (const { replica, seq, count } of news) this.#newest.set(replica, { seq, count });
    const shown = this.#started ? news : news.slice(-this.#firstMax);
    this.#started = true;
    return shown;
  }

  #isNews({ replica, seq, count }: EngineEvent): boolean {
    const seen = this.#newest.get(replica);
    if (seen === undefined) return true;
    return seq > seen.seq || (seq === seen.seq && count > seen.count);
  }
}
