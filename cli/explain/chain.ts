/** The causal chain of one replica, cut out of the events of its volume: what began the present
 *  trouble, and each step since. Pure. */
import type { EngineEvent } from '../../proto/control.js';

export interface ChainLink {
  readonly kind: string;
  readonly text: string;
  /** of the first and the last of `count` equal ones */
  readonly wallMs: number;
  readonly lastWallMs: number;
  readonly count: number;
  readonly code: string;
  readonly errno: string;
  /** of the membership after this step, and before it; 0: it did not change */
  readonly generation: number;
  readonly generationBefore: number;
}

const KINDS: ReadonlySet<string> = new Set([
  'slow',
  'failed',
  'excluded',
  'absent',
  'joined',
  'rebuilding',
  'in-sync',
]);

/** Steps that only say how it goes on: the newest ones are enough. */
const REPEATING: ReadonlySet<string> = new Set(['absent', 'rebuilding']);
const LINKS_MAX = 12;

/** @param events  of the volume, oldest first
 *  @param inSync  the replica is in-sync now: its last trouble is over
 *  @returns oldest first; empty if nothing is known */
export function chainOf(
  replicaId: string,
  events: readonly EngineEvent[],
  inSync: boolean,
): readonly ChainLink[] {
  let over: EngineEvent[] = [];
  let open: EngineEvent[] = [];
  for (const event of events) {
    const own = event.replica === replicaId && KINDS.has(event.kind);
    const withAll = isReturnOfAll(event) && open.length > 0 && !open.some(isOut);
    if (own || withAll) open.push(event);
    if (!withAll && !(own && event.kind === 'in-sync')) continue;
    over = open;
    open = [];
  }
  const steps = (inSync ? over : open).map((event) => linkOf(event, events));
  return shortened(merged(steps));
}

/** A new tenure: every member that was not excluded before is in-sync with it. */
function isReturnOfAll({ replica, kind, generation }: EngineEvent): boolean {
  return replica === '' && (kind === 'back' || kind === 'opened') && generation > 0;
}

/** From here on only `in-sync` makes it well. */
function isOut({ kind }: EngineEvent): boolean {
  return kind === 'excluded' || kind === 'joined';
}

function linkOf(event: EngineEvent, events: readonly EngineEvent[]): ChainLink {
  const { kind, text, wallMs, lastWallMs, count, code, errno, generation } = event;
  const generationBefore = generation === 0 ? 0 : newestBefore(event, events);
  const times = { wallMs, lastWallMs, count };
  return { kind, text, ...times, code, errno, generation, generationBefore };
}

/** The generation that the event changed: the newest one that an earlier event names, for several
 *  members can be excluded by one change. */
function newestBefore(event: EngineEvent, events: readonly EngineEvent[]): number {
  const known = events
    .filter((other) => other.seq < event.seq && other.generation < event.generation)
    .map((other) => other.generation);
  return Math.max(0, ...(known.length === 0 ? [event.generation - 1] : known));
}

/** Repeated attempts alternate between two texts: one link for each, where it happened first. */
function merged(steps: readonly ChainLink[]): ChainLink[] {
  const links: ChainLink[] = [];
  for (const step of steps) {
    const at = REPEATING.has(step.kind)
      ? links.findIndex((link) => link.kind === step.kind && link.text === step.text)
      : -1;
    const same = links[at];
    if (same === undefined) links.push(step);
    else {
      const lastWallMs = Math.max(same.lastWallMs, step.lastWallMs);
      links[at] = { ...same, lastWallMs, count: same.count + step.count };
    }
  }
  return links;
}

/** The cause is kept, and what happened last. */
function shortened(links: readonly ChainLink[]): readonly ChainLink[] {
  if (links.length <= LINKS_MAX) return links;
  const head = LINKS_MAX / 2;
  return [...links.slice(0, head), ...links.slice(head - LINKS_MAX)];
}
