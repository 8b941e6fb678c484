/**
 * Checks a history by the rules for what a replicated block device owes its clients.
 *
 * Cells are independent registers, so each is checked alone. The report is bounded; `undecided`
 * counts eras of cells that took more search than allowed (their zeroes are not judged).
 */
import { type History, type Operation, ZERO } from '../../support/history.js';
import { checkCell } from './cell-check.js';
import { HistoryIndex } from './history-index.js';
import { named, type Violation } from './violation.js';

export interface CheckReport {
  readonly violations: readonly Violation[];
  /** cells that any operation touched */
  readonly cells: number;
  /** operations on cells: the work that was checked */
  readonly steps: number;
  readonly undecided: number;
}

const VIOLATIONS_MAX = 20;

export function checkHistory(
  history: History,
  options: { readonly violationsMax?: number } = {},
): CheckReport {
  const violationsMax = options.violationsMax ?? VIOLATIONS_MAX;
  const index = new HistoryIndex(history);
  const violations: Violation[] = [];
  let cells = 0;
  let steps = 0;
  let undecided = 0;
  for (let cell = 0; cell < history.header.cells; cell += 1) {
    const count = index.countOf(cell);
    if (count === 0) continue;
    const result = checkCell(index, cell);
    cells += 1;
    steps += count;
    undecided += result.undecided;
    if (result.violation !== undefined) violations.push(result.violation);
    if (violations.length >= violationsMax) break;
  }
  return { violations, cells, steps, undecided };
}

/** What happened to one cell, in order, for people: its last `max` operations, and every crash,
 *  start and note between them. */
export function cellStory(history: History, cell: number, max = 40): string[] {
  const touching = [...new HistoryIndex(history).operationsOf(cell)].slice(-max);
  const from = touching[0]?.startAt ?? 0;
  const lines = touching.map((o) => ({ at: o.startAt, ms: o.startMs, text: told(o, cell) }));
  for (const { at, ms, hard } of history.crashes) {
    lines.push({ at, ms, text: hard ? '-- every in-sync copy lost power' : '-- crash' });
  }
  for (const { at, ms, tenure } of history.serves) {
    lines.push({ at, ms, text: `-- tenure ${tenure} serves` });
  }
  for (const { at, ms, text } of history.notes) lines.push({ at, ms, text: `-- ${text}` });
  return lines
    .filter(({ at }) => at >= from)
    .sort((a, b) => a.at - b.at)
    .map(({ ms, text }) => `${ms.toFixed(3).padStart(12)} ms  ${text}`);
}

function told(operation: Operation, cell: number): string {
  const { kind, endMs, fua, connection, first, count, code } = operation;
  const at = `${named(operation)} connection ${connection}, cells ${first}..${first + count - 1}`;
  const end = Number.isFinite(endMs) ? `, ended at ${endMs.toFixed(3)} ms ${code}`.trimEnd() : '';
  if (kind !== 'R') return `${at}${fua ? ', FUA' : ''}${end}`;
  const value = operation.values?.[cell - first];
  const saw = value === undefined ? '' : ` -> ${value === ZERO ? 'zeroes' : value}`;
  return `${at}${end}${saw}`;
}
