/**
 * The check of one cell, era by era (N1, N2, N5, D1-D3, F1-F3, R1, R2, R5).
 *
 * Within an era the writes and the reads of their values must have one order. Between two eras lies
 * a power cut of every copy: the value that the next one begins with is one single value, and none
 * that is ordered before a durable write. It counts as durable itself.
 */
import assert from 'node:assert';
import { BAD_FOREIGN, BAD_MISPLACED, BAD_TORN, ZERO } from '../../support/history.js';
import { type CellEra, type CellRead, type CellWrite, cellEras } from './cell-eras.js';
import type { HistoryIndex } from './history-index.js';
import { searchOrder } from './order-search.js';
import { named, type Violation, type ViolationKind, valueName } from './violation.js';
import { type Cluster, type Conflict, findConflict } from './zones.js';

/** What an era may begin with, and why other values may not be there any more. */
interface Beginning {
  readonly allowed: ReadonlySet<number>;
  readonly excludedBy: ReadonlyMap<number, Cluster>;
}

/** What was found out of one era. */
interface EraView {
  readonly era: CellEra;
  readonly clusters: Map<number, Cluster>;
  /** each trim and write of zeroes on its own, without reads */
  readonly zeroWrites: Cluster[];
  /** what it began with, if a read showed it */
  initial: number | undefined;
}

export interface CellResult {
  readonly violation: Violation | undefined;
  /** eras that the search over orders could not decide */
  readonly undecided: number;
}

export function checkCell(index: HistoryIndex, cell: number): CellResult {
  return new CellCheck(index, cell).run();
}

class CellCheck {
  #undecided = 0;

  constructor(
    readonly index: HistoryIndex,
    readonly cell: number,
  ) {}

  run(): CellResult {
    let beginning: Beginning = { allowed: new Set([ZERO]), excludedBy: new Map() };
    for (const era of cellEras(this.index, this.cell)) {
      const view: EraView = { era, clusters: new Map(), zeroWrites: [], initial: undefined };
      const violation =
        this.#collect(view) ?? this.#findInitial(view, beginning) ?? this.#order(view, beginning);
      if (violation !== undefined) return { violation, undecided: this.#undecided };
      beginning = candidates(view, beginning);
    }
    return { violation: undefined, undecided: this.#undecided };
  }

  /** Makes a cluster of each write, and judges each read alone. */
  #collect(view: EraView): Violation | undefined {
    for (const write of view.era.writes) {
      if (write.fenced) continue;
      const cluster = clusterOf(write);
      if (write.value === ZERO) view.zeroWrites.push(cluster);
      else view.clusters.set(write.value, cluster);
    }
    for (const read of view.era.reads) {
      const violation = this.#judge(read);
      if (violation !== undefined) return violation;
    }
    return undefined;
  }

  #judge(read: CellRead): Violation | undefined {
    const { value } = read;
    const by = named(read.operation);
    if (value === BAD_TORN) return this.#guilty('torn', `${by} returned a torn cell`, [read]);
    if (value === BAD_FOREIGN || value === BAD_MISPLACED) {
      const whose = value === BAD_FOREIGN ? 'another run' : 'another place';
      return this.#guilty('foreign', `${by} returned a cell of ${whose}`, [read]);
    }
    if (value === ZERO) return undefined;
    const write = this.index.history.operations[value - 1];
    const covers =
      write?.kind === 'W' &&
      this.cell >= write.first &&
      this.cell < write.first + write.count &&
      write.startAt < read.end;
    if (!covers) {
      return this.#guilty('invented', `${by} returned ${value}, which no earlier write made`, [
        read,
      ]);
    }
    if (write.outcome === 'ok' || !this.index.isFenced(write)) return undefined;
    const text = `${by} returned ${named(write)}, sent to a fenced engine and not acknowledged`;
    return this.#guilty('fenced', text, [read, { operation: write }]);
  }

  /** Reads of values that no write of this era made show what it began with. */
  #findInitial(view: EraView, beginning: Beginning): Violation | undefined {
    let shown: CellRead | undefined;
    for (const read of view.era.reads) {
      const own = view.clusters.get(read.value);
      if (own !== undefined) {
        join(own, read);
        continue;
      }
      if (read.value === ZERO) continue;
      if (shown !== undefined && shown.value !== read.value) {
        const text =
          `${named(shown.operation)} returned ${valueName(shown.value)} and ` +
          `${named(read.operation)} ${valueName(read.value)}: both from before the power cut`;
        return this.#guilty('two-values', text, [shown, read]);
      }
      shown = read;
      if (!beginning.allowed.has(read.value)) return this.#notDurable(read, beginning);
      this.#joinInitial(view, read);
    }
    return this.#placeZeroes(view, beginning);
  }

  #joinInitial(view: EraView, read: CellRead): void {
    view.initial = read.value;
    view.clusters.set(read.value, initialCluster(view.era, read.value));
    join(view.clusters.get(read.value), read);
  }

  /** Zeroes read from one possible source belong to it. From several: left to the search. */
  #placeZeroes(view: EraView, beginning: Beginning): Violation | undefined {
    const reads = view.era.reads.filter(({ value }) => value === ZERO);
    const [first] = reads;
    if (first === undefined) return undefined;
    const fromBefore = view.initial === undefined && beginning.allowed.has(ZERO);
    const [only, ...others] = view.zeroWrites;
    if (only === undefined && !fromBefore) {
      if (!beginning.allowed.has(ZERO)) return this.#notDurable(first, beginning);
      const text =
        `${named(first.operation)} returned zeroes, and another read ` +
        `${valueName(view.initial ?? ZERO)}: both from before the power cut`;
      return this.#guilty('two-values', text, [first]);
    }
    if (only === undefined) {
      view.initial = ZERO;
      const cluster = initialCluster(view.era, ZERO);
      view.clusters.set(ZERO, cluster);
      for (const read of reads) join(cluster, read);
    } else if (!fromBefore && first.end < only.s) {
      return this.#notDurable(first, beginning);
    } else if (others.length === 0 && !fromBefore) {
      view.clusters.set(ZERO, only);
      for (const read of reads) join(only, read);
    }
    return undefined;
  }

  #order(view: EraView, beginning: Beginning): Violation | undefined {
    const { era } = view;
    const zeroesRead = era.reads.some(({ value }) => value === ZERO);
    if (zeroesRead && !view.clusters.has(ZERO)) return this.#search(view, beginning);
    const clusters = [...view.clusters.values()];
    if (!zeroesRead) clusters.push(...view.zeroWrites);
    const conflict = findConflict(clusters.filter(isCertain));
    return conflict === undefined ? undefined : this.#conflict(conflict);
  }

  #search(view: EraView, beginning: Beginning): Violation | undefined {
    const { era, initial } = view;
    const steps = [
      ...era.writes
        .filter((write) => !(write.maybe && write.value !== ZERO && !isRead(view, write.value)))
        .map((write) => ({ ...write, isRead: false })),
      ...era.reads.map((read) => ({ ...read, isRead: true, maybe: false })),
    ];
    const starts = initial === undefined ? beginning.allowed : new Set([initial]);
    let answer = searchOrder(steps, starts.has(ZERO) ? ZERO : initial);
    const other = initial === undefined && [...starts].some((value) => value !== ZERO);
    if (answer !== 'possible' && starts.has(ZERO) && other) answer = searchOrder(steps, undefined);
    if (answer === 'undecided') this.#undecided += 1;
    if (answer !== 'impossible') return undefined;
    const zeroes = era.reads.filter(({ value }) => value === ZERO);
    const text = `no order of ${steps.length} operations explains the zeroes that were read`;
    return this.#guilty('stale', text, [...zeroes]);
  }

  #conflict({ around, other }: Conflict): Violation {
    const { firstEnded, lastStarted } = around;
    const crashed = this.index.crashedBetween(other.born, around.s);
    const was = firstEnded === undefined ? 'from the start' : `after ${named(firstEnded)}`;
    const again = lastStarted === undefined ? '' : ` and again in ${named(lastStarted)}`;
    const between = [other.firstEnded, other.lastStarted]
      .flatMap((operation) => (operation === undefined ? [] : [named(operation)]))
      .join(', ');
    const text =
      `${valueName(around.value)} was there ${was}${again}, ` +
      `but ${valueName(other.value)} came between: ${between}`;
    const operations = [firstEnded, lastStarted, other.firstEnded, other.lastStarted].flatMap(
      (operation) => (operation === undefined ? [] : [{ operation }]),
    );
    return this.#guilty(crashed ? 'lost' : 'stale', text, operations);
  }

  #notDurable(read: CellRead, beginning: Beginning): Violation {
    const by = beginning.excludedBy.get(read.value);
    const durable = by?.lastStarted ?? by?.firstEnded;
    const newer = durable === undefined ? 'a durable write' : named(durable);
    const text =
      `${named(read.operation)} returned ${valueName(read.value)}, ` +
      `which is older than ${by === undefined ? newer : `${valueName(by.value)} (${newer})`}`;
    const more = durable === undefined ? [] : [{ operation: durable }];
    return this.#guilty('not-durable', text, [read, ...more]);
  }

  #guilty(
    kind: ViolationKind,
    text: string,
    of: ReadonlyArray<{ readonly operation: { readonly op: number } }>,
  ): Violation {
    const operations = [...new Set(of.map(({ operation }) => operation.op))];
    return { kind, cell: this.cell, text: `cell ${this.cell}: ${text}`, operations };
  }
}

function clusterOf({ value, start, end, operation, maybe }: CellWrite): Cluster {
  const times = { f: end, s: start, firstEnded: operation, lastStarted: operation };
  return { value, born: start, certain: !maybe, ...times };
}

function initialCluster(era: CellEra, value: number): Cluster {
  const times = { f: era.from, s: -1, firstEnded: undefined, lastStarted: undefined };
  return { value, born: era.from, certain: false, ...times };
}

function join(cluster: Cluster | undefined, { operation, start, end }: CellRead): void {
  assert(cluster !== undefined);
  cluster.certain = true;
  if (end < cluster.f) {
    cluster.f = end;
    cluster.firstEnded = operation;
  }
  if (start > cluster.s) {
    cluster.s = start;
    cluster.lastStarted = operation;
  }
}

/** Not a write that nobody was promised and nobody saw, nor a beginning that nobody saw. */
function isCertain(cluster: Cluster): boolean {
  return cluster.certain;
}

function isRead({ era }: EraView, value: number): boolean {
  return era.reads.some((read) => read.value === value);
}

/** What the next era may begin with: every value but those ordered before a durable one. */
function candidates(view: EraView, beginning: Beginning): Beginning {
  const { era, clusters, zeroWrites } = view;
  const initials = view.initial === undefined ? [...beginning.allowed] : [view.initial];
  const all: Array<{ cluster: Cluster; durable: boolean }> = initials.map((value) => ({
    cluster: clusters.get(value) ?? initialCluster(era, value),
    durable: true,
  }));
  for (const write of era.writes) {
    if (write.fenced) continue;
    const cluster = write.value === ZERO ? undefined : clusters.get(write.value);
    const own = zeroWrites.find(({ firstEnded }) => firstEnded === write.operation);
    all.push({ cluster: cluster ?? own ?? clusterOf(write), durable: write.durable });
  }
  const durable = all.filter((one) => one.durable).map(({ cluster }) => cluster);
  const [newest, second] = durable.sort((a, b) => b.s - a.s);
  const allowed = new Set<number>();
  const excludedBy = new Map<number, Cluster>();
  for (const { cluster } of all) {
    const newer = cluster === newest ? second : newest;
    if (newer === undefined || cluster.f >= newer.s) allowed.add(cluster.value);
    else excludedBy.set(cluster.value, newer);
  }
  return { allowed, excludedBy };
}
