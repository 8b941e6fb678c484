/** The operations of one cell, sorted into eras, each with the span in which it took effect. */
import { NEVER, type Operation, type Position, ZERO } from '../../support/history.js';
import type { HistoryIndex } from './history-index.js';

export interface CellWrite {
  readonly operation: Operation;
  /** its number, or ZERO of a trim or write of zeroes */
  readonly value: number;
  readonly start: Position;
  /** it took effect before this, or never */
  readonly end: Position;
  /** not acknowledged: it may have had no effect */
  readonly maybe: boolean;
  /** D1, D2: an era that ends after it cannot lose it */
  readonly durable: boolean;
  /** R5: it must have no effect */
  readonly fenced: boolean;
}

export interface CellRead {
  readonly operation: Operation;
  readonly value: number;
  readonly start: Position;
  readonly end: Position;
}

export interface CellEra {
  readonly number: number;
  readonly from: Position;
  /** the hard crash that ends it; NEVER of the last one */
  readonly to: Position;
  readonly writes: CellWrite[];
  readonly reads: CellRead[];
}

/** Every era of the history, also empty ones: durability passes through them. */
export function cellEras(index: HistoryIndex, cell: number): CellEra[] {
  const eras: CellEra[] = [];
  for (let number = 0; number <= index.cuts.length; number += 1) {
    eras.push({ number, ...index.spanOf(number), writes: [], reads: [] });
  }
  const reads: CellRead[] = [];
  const writes: Operation[] = [];
  for (const operation of index.operationsOf(cell)) {
    if (operation.kind !== 'R') writes.push(operation);
    else if (operation.outcome === 'ok') reads.push(readOf(operation, cell));
  }
  for (const read of reads) {
    // A read that spans a hard crash may have seen either side of it.
    const era = index.eraOf(read.start);
    if (era === index.eraOf(read.end)) eras[era]?.reads.push(read);
  }
  const decided = writes.some(({ outcome }) => outcome === 'error') ? firstEnds(reads) : undefined;
  for (const operation of writes) addWrite(index, eras, operation, decided);
  return eras;
}

function readOf(operation: Operation, cell: number): CellRead {
  const value = operation.values?.[cell - operation.first] ?? ZERO;
  return { operation, value, start: operation.startAt, end: operation.endAt };
}

/** A write lies in the era in which it was acknowledged. In earlier ones that it spans it may have
 *  had its effect already. */
function addWrite(
  index: HistoryIndex,
  eras: readonly CellEra[],
  operation: Operation,
  decided: ((after: Position) => Position) | undefined,
): void {
  const { startAt, endAt, outcome, fua, connection } = operation;
  const first = index.eraOf(startAt);
  const last = index.eraOf(endAt);
  const value = operation.kind === 'W' ? operation.op : ZERO;
  const acked = outcome === 'ok';
  const fenced = !acked && index.isFenced(operation);
  for (const era of eras.slice(first, last + 1)) {
    const here = acked && era.number === last;
    const flushed = endAt < index.flushedBefore(era.number, connection);
    era.writes.push({
      ...{ operation, value, fenced },
      // Just after what the era began with.
      start: Math.max(startAt, era.from + 0.5),
      end: Math.min(here ? endAt : effectEnd(index, operation, decided), era.to),
      maybe: !here,
      durable: here && (fua || flushed),
    });
  }
}

/** When a write that was not acknowledged is decided: as soon as a later tenure serves; after an
 *  error, also as soon as somebody who asked later was answered (N5). */
function effectEnd(
  index: HistoryIndex,
  operation: Operation,
  decided: ((after: Position) => Position) | undefined,
): Position {
  if (operation.outcome === 'ok') return operation.endAt;
  const served = index.servedAfter(operation.startAt);
  if (operation.outcome !== 'error' || decided === undefined) return served;
  return Math.min(served, decided(operation.endAt));
}

/** For a position, the first end of a read that started after it. */
function firstEnds(reads: readonly CellRead[]): (after: Position) => Position {
  const ends: Position[] = new Array<Position>(reads.length);
  let first = NEVER;
  for (let at = reads.length - 1; at >= 0; at -= 1) {
    first = Math.min(first, reads[at]?.end ?? NEVER);
    ends[at] = first;
  }
  return (after) => {
    const at = reads.findIndex((read) => read.start > after);
    return at === -1 ? NEVER : (ends[at] ?? NEVER);
  };
}
