/** What a history can be guilty of. */
import type { Operation, Position } from '../../support/history.js';

export type ViolationKind =
  /** N2: a cell with bytes of two writes, or of none */
  | 'torn'
  /** R7: a cell of another run or of another place */
  | 'foreign'
  /** a value that no write gave to this cell, or that a later one gave */
  | 'invented'
  /** N1: old after new, without a crash between */
  | 'stale'
  /** F1, F2, R1: after a crash an acknowledged write is gone, or a value changed by itself */
  | 'lost'
  /** D1, D2, F3: older than the last durable write after every copy lost power */
  | 'not-durable'
  /** R1, R2: one recovery, two values */
  | 'two-values'
  /** R5: a write that an engine began after it was fenced took effect */
  | 'fenced';

export interface Violation {
  readonly kind: ViolationKind;
  readonly cell: number;
  /** one sentence with the numbers of the operations */
  readonly text: string;
  readonly operations: readonly number[];
}

/** One operation on one cell, as the sentence of a violation names it. */
export function named(operation: Operation): string {
  const { op, kind, startAt, endAt, outcome } = operation;
  const end = outcome === undefined ? 'in flight' : `${outcome} at ${endAt}`;
  return `${kind}${op} [${startAt}, ${end}]`;
}

/** A write, or what made a value that is no write of this history. */
export function valueName(value: number): string {
  return value === 0 ? 'zeroes' : `write ${value}`;
}

export interface Span {
  readonly start: Position;
  readonly end: Position;
}
