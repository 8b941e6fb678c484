/**
 * Whether the operations of one cell can be put in one order that agrees with time, where several
 * writes have one value (trims). Exhaustive with memory (Wing and Gong; Lowe): meant for the few
 * cells and eras in which zones cannot tell the writes apart.
 *
 * A read of the current value that may come next is taken at once where that forbids nothing: it
 * changes nothing, so no order is lost.
 */
import type { Position } from '../../support/history.js';

export interface Step {
  readonly value: number;
  readonly isRead: boolean;
  readonly start: Position;
  readonly end: Position;
  /** a write that may have had no effect */
  readonly maybe: boolean;
}

export type Answer = 'possible' | 'impossible' | 'undecided';

const STATES_MAX = 50_000;

interface State {
  /** steps before this one are taken or given up */
  readonly base: number;
  /** taken ones from `base` on, ascending */
  readonly taken: readonly number[];
  readonly value: number;
  /** last start of a step that was taken: what ended before it can be taken no more */
  readonly lastStart: Position;
}

/** @param initial what the cell held before; undefined: some value that no step reads */
export function searchOrder(
  unordered: readonly Step[],
  initial: number | undefined,
  statesMax = STATES_MAX,
): Answer {
  const steps = [...unordered].sort((a, b) => a.start - b.start);
  const seen = new Set<string>();
  const open: State[] = [{ base: 0, taken: [], value: initial ?? Number.NaN, lastStart: -1 }];
  for (let from = open.pop(); from !== undefined; from = open.pop()) {
    const state = advance(steps, from);
    if (state === undefined) continue;
    if (state.base === steps.length) return 'possible';
    const key = `${state.base} ${state.taken.join(',')} ${state.value} ${state.lastStart}`;
    if (seen.has(key)) continue;
    if (seen.size >= statesMax) return 'undecided';
    seen.add(key);
    open.push(...successors(steps, state));
  }
  return 'impossible';
}

function successors(steps: readonly Step[], state: State): State[] {
  const { required, optional } = limits(steps, state);
  const states: State[] = [];
  for (let at = state.base; at < steps.length; at += 1) {
    const step = steps[at] as Step;
    if (step.start > required) break;
    if (step.end <= state.lastStart || state.taken.includes(at)) continue;
    if (!step.isRead) states.push({ ...take(state, at, step), value: step.value });
    else if (step.value === state.value) {
      const read = take(state, at, step);
      if (step.start < optional) return [read];
      states.push(read);
    }
  }
  return states;
}

/** First end of a step that has to be taken, and of one that may be. */
function limits(steps: readonly Step[], state: State): { required: Position; optional: Position } {
  let required = Number.POSITIVE_INFINITY;
  let optional = Number.POSITIVE_INFINITY;
  for (let at = state.base; at < steps.length; at += 1) {
    const { start, end, maybe } = steps[at] as Step;
    if (start > required) break;
    if (state.taken.includes(at)) continue;
    if (!maybe) required = Math.min(required, end);
    else if (end > state.lastStart) optional = Math.min(optional, end);
  }
  return { required, optional };
}

function take(state: State, at: number, step: Step): State {
  const taken = [...state.taken, at].sort((a, b) => a - b);
  return { ...state, taken, lastStart: Math.max(state.lastStart, step.start) };
}

/** Moves the base over what is taken or given up. Undefined: a step that had to come can come no
 *  more. */
function advance(steps: readonly Step[], state: State): State | undefined {
  let { base } = state;
  for (; base < steps.length; base += 1) {
    const { end, maybe } = steps[base] as Step;
    if (state.taken.includes(base)) continue;
    const late = end <= state.lastStart;
    if (late && !maybe) return undefined;
    if (!late && !(maybe && nothingRequired(steps, base, state.taken))) break;
  }
  return { ...state, base, taken: state.taken.filter((at) => at >= base) };
}

function nothingRequired(steps: readonly Step[], from: number, taken: readonly number[]): boolean {
  for (let at = from; at < steps.length; at += 1) {
    if (!(steps[at] as Step).maybe && !taken.includes(at)) return false;
  }
  return true;
}
