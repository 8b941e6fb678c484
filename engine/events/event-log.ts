/**
 * What happened to a volume, in order, in words: the causal story that `explain` tells.
 *
 * A bounded ring in memory; whoever wants more listens (the engine process appends to a file). An
 * event that repeats the one before it of the same subject only counts up: a crash loop is one
 * line.
 */
import type { Clock } from '../../common/clock.js';

export type EventKind =
  | 'opened'
  | 'recovering'
  | 'recovered'
  | 'failed'
  | 'excluded'
  | 'slow'
  | 'absent'
  | 'rebuilding'
  | 'in-sync'
  | 'joined'
  | 'left'
  | 'bad-block'
  | 'repaired'
  | 'stalled'
  | 'lost'
  | 'refusing'
  | 'back'
  | 'fenced'
  | 'scrub'
  | 'stopped';

/** Plain values; empty texts and undefined are left out. */
export interface EventFacts {
  readonly replica?: string | undefined;
  readonly code?: string | undefined;
  readonly errno?: string | undefined;
  /** of the record after the event */
  readonly generation?: number | undefined;
  readonly bytes?: number | undefined;
  readonly source?: string | undefined;
}

export interface VolumeEvent extends EventFacts {
  /** grows by one; gaps mean that the ring was too short */
  readonly seq: number;
  /** wall time of the first, for people */
  readonly wallMs: number;
  /** wall time of the last of `count` equal ones */
  readonly lastWallMs: number;
  readonly count: number;
  readonly kind: EventKind;
  readonly text: string;
}

const EVENTS_MAX = 1000;

export class EventLog {
  readonly #clock: Clock;
  readonly #onEvent: (event: VolumeEvent) => void;
  readonly #eventsMax: number;
  #events: VolumeEvent[] = [];
  #seq = 0;

  /** @param options.onEvent  told of each event as it happens, repeated ones too */
  constructor(
    clock: Clock,
    options: {
      readonly onEvent?: (event: VolumeEvent) => void;
      readonly eventsMax?: number;
      /** of earlier engines, oldest first */
      readonly history?: readonly VolumeEvent[];
    } = {},
  ) {
    this.#clock = clock;
    this.#onEvent = options.onEvent ?? ((): void => undefined);
    this.#eventsMax = options.eventsMax ?? EVENTS_MAX;
    this.#events = (options.history ?? []).slice(-this.#eventsMax);
    this.#seq = this.#events.at(-1)?.seq ?? 0;
  }

  /** Oldest first. @param afterSeq  only later ones */
  events(afterSeq = 0): readonly VolumeEvent[] {
    return this.#events.filter((event) => event.seq > afterSeq);
  }

  add(kind: EventKind, text: string, facts: EventFacts = {}): void {
    const wallMs = this.#clock.wallMs();
    const before = this.#lastOf(facts.replica);
    const same = before?.kind === kind && before.text === text;
    const event: VolumeEvent = same
      ? { ...before, lastWallMs: wallMs, count: before.count + 1 }
      : { ...facts, seq: this.#next(), wallMs, lastWallMs: wallMs, count: 1, kind, text };
    if (same) this.#events[this.#events.indexOf(before)] = event;
    else this.#events.push(event);
    if (this.#events.length > this.#eventsMax) this.#events.shift();
    this.#onEvent(event);
  }

  #next(): number {
    this.#seq += 1;
    return this.#seq;
  }

  #lastOf(replica: string | undefined): VolumeEvent | undefined {
    return this.#events.findLast((event) => event.replica === replica);
  }
}
