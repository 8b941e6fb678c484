/** Histories as JSON lines: the form in which processes write them and people keep them. */
import { History, type OperationKind, type Outcome } from './history.js';

type Entry = Readonly<Record<string, unknown>>;

const KINDS = 'RWFTZ';
const OUTCOMES: readonly string[] = ['ok', 'error', 'unknown'] satisfies Outcome[];

/** One line per entry, in order, without line ends. */
export function historyLines(history: History): string[] {
  const entries: Array<{ at: number; entry: Entry }> = [];
  for (const o of history.operations) {
    const range = o.kind === 'F' ? {} : { first: o.first, count: o.count };
    const fua = o.fua ? { fua: true } : {};
    const entry = { e: 'start', t: o.startMs, op: o.op, c: o.connection, k: o.kind };
    entries.push({ at: o.startAt, entry: { ...entry, ...range, ...fua, n: o.tenure } });
    if (o.outcome === undefined) continue;
    const more = { ...(o.code === '' ? {} : { code: o.code }), ...valuesOf(o.values) };
    entries.push({ at: o.endAt, entry: { e: 'end', t: o.endMs, op: o.op, r: o.outcome, ...more } });
  }
  for (const { at, ms, hard } of history.crashes) {
    entries.push({ at, entry: { e: 'crash', t: ms, hard } });
  }
  for (const { at, ms, tenure } of history.serves) {
    entries.push({ at, entry: { e: 'serve', t: ms, n: tenure } });
  }
  for (const { at, ms, text } of history.notes) {
    entries.push({ at, entry: { e: 'note', t: ms, text } });
  }
  entries.sort((a, b) => a.at - b.at);
  const header = JSON.stringify({ format: 1, ...history.header });
  return [header, ...entries.map(({ entry }) => JSON.stringify(entry))];
}

function valuesOf(values: readonly number[] | undefined): Entry {
  return values === undefined ? {} : { v: values };
}

/** @throws Error that names the line which is not a history */
export function parseHistory(lines: Iterable<string>): History {
  let history: History | undefined;
  let line = 0;
  for (const text of lines) {
    line += 1;
    if (text.trim() === '') continue;
    try {
      const entry = JSON.parse(text) as Entry;
      if (history === undefined) history = startOf(entry);
      else add(history, entry);
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new Error(`history line ${line}: ${reason}`, { cause });
    }
  }
  if (history === undefined) throw new Error('a history has a header');
  return history;
}

function startOf(entry: Entry): History {
  if (entry['format'] !== 1) throw new Error(`format ${String(entry['format'])} is not known`);
  return new History({
    run: numberOf(entry, 'run'),
    cells: numberOf(entry, 'cells'),
    multiConn: entry['multiConn'] === true,
  });
}

function add(history: History, entry: Entry): void {
  const ms = numberOf(entry, 't');
  switch (entry['e']) {
    case 'start': {
      const op = numberOf(entry, 'op');
      if (op !== history.operations.length + 1) throw new Error(`operation ${op} out of order`);
      history.start(ms, operationOf(entry));
      return;
    }
    case 'end':
      history.end(ms, numberOf(entry, 'op'), resultOf(entry));
      return;
    case 'crash':
      history.crash(ms, entry['hard'] === true);
      return;
    case 'serve':
      history.serve(ms, numberOf(entry, 'n', 0));
      return;
    case 'note':
      history.note(ms, String(entry['text']));
      return;
    default:
      throw new Error(`entry "${String(entry['e'])}" is not known`);
  }
}

function operationOf(entry: Entry) {
  const kind = String(entry['k']);
  if (kind.length !== 1 || !KINDS.includes(kind)) throw new Error(`kind ${kind} is not known`);
  return {
    kind: kind as OperationKind,
    connection: numberOf(entry, 'c', 0),
    first: numberOf(entry, 'first', 0),
    count: numberOf(entry, 'count', 0),
    fua: entry['fua'] === true,
    tenure: numberOf(entry, 'n', 0),
  };
}

function resultOf(entry: Entry) {
  const outcome = String(entry['r']);
  if (!OUTCOMES.includes(outcome)) throw new Error(`outcome ${outcome} is not known`);
  const values = entry['v'];
  const numeric = Array.isArray(values) && values.every((value) => Number.isSafeInteger(value));
  if (values !== undefined && !numeric) throw new Error('values are not numbers');
  const code = entry['code'];
  return {
    outcome: outcome as Outcome,
    ...(typeof code === 'string' ? { code } : {}),
    ...(numeric ? { values: values as number[] } : {}),
  };
}

function numberOf(entry: Entry, name: string, missing?: number): number {
  const value = entry[name] ?? missing;
  if (typeof value === 'number' && Number.isFinite(value)) return value;
  throw new Error(`${name} is no number`);
}
