/** The events of a volume as a time line: repeated ones are one entry. Pure. */
import type { EngineEvent } from '../../proto/control.js';

export interface TimelineEntry {
  /** of the first and the last of `count` */
  readonly wallMs: number;
  readonly lastWallMs: number;
  readonly count: number;
  readonly kind: string;
  /** replica that it is about; '': the volume */
  readonly replica: string;
  /** of the first */
  readonly text: string;
  /** the entry stands for events with other texts, too */
  readonly alike: boolean;
}

export interface TimelineWish {
  /** only what happened (or happened again) since then, by the engine's wall time */
  readonly sinceWallMs: number;
  /** the newest so many */
  readonly entriesMax: number;
}

/** A scrub that finds a rotten disk tells of each block: what kind it was is enough. */
const ALIKE: ReadonlySet<string> = new Set(['bad-block', 'repaired']);

/** @param events  oldest first; @returns oldest first */
export function timelineOf(
  events: readonly EngineEvent[],
  { sinceWallMs, entriesMax }: TimelineWish,
): readonly TimelineEntry[] {
  const entries: TimelineEntry[] = [];
  for (const event of events) {
    if (event.lastWallMs < sinceWallMs) continue;
    const before = entries.at(-1);
    if (before !== undefined && isSame(before, event))
      entries[entries.length - 1] = join(before, event);
    else entries.push(entryOf(event));
  }
  return entries.slice(-entriesMax);
}

function isSame(entry: TimelineEntry, event: EngineEvent): boolean {
  if (entry.kind !== event.kind || entry.replica !== event.replica) return false;
  return entry.text === event.text || ALIKE.has(entry.kind);
}

function join(entry: TimelineEntry, event: EngineEvent): TimelineEntry {
  return {
    ...entry,
    lastWallMs: Math.max(entry.lastWallMs, event.lastWallMs),
    count: entry.count + event.count,
    alike: entry.alike || entry.text !== event.text,
  };
}

function entryOf({ wallMs, lastWallMs, count, kind, replica, text }: EngineEvent): TimelineEntry {
  return { wallMs, lastWallMs, count, kind, replica, text, alike: false };
}
