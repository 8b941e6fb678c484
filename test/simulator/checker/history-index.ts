/**
 * What the check of a cell needs to know of the whole history: eras, flushes, tenures, and which
 * operations touch which cell.
 *
 * An era lies between two hard crashes. The cells of all operations are laid out by counting sort:
 * operations of cell c are `touching[starts[c]] .. touching[starts[c + 1] - 1]`, in the order of
 * their starts.
 */
import { type History, NEVER, type Operation, type Position } from '../../support/history.js';

export class HistoryIndex {
  readonly history: History;
  /** hard crashes, ascending */
  readonly cuts: readonly Position[];
  readonly #starts: Uint32Array;
  readonly #touching: Uint32Array;
  /** by era: start of the last flush that succeeded; by connection where flushes do not span */
  readonly #flushStart: Array<Map<number, Position>> = [];

  constructor(history: History) {
    this.history = history;
    this.cuts = history.crashes.filter((crash) => crash.hard).map((crash) => crash.at);
    const { cells } = history.header;
    this.#starts = new Uint32Array(cells + 2);
    for (const operation of history.operations) {
      const end = operation.first + operation.count;
      for (let cell = operation.first; cell < end; cell += 1) this.#count(cell);
    }
    for (let cell = 1; cell < this.#starts.length; cell += 1) {
      this.#starts[cell] = this.#startOf(cell) + this.#startOf(cell - 1);
    }
    this.#touching = new Uint32Array(this.#startOf(cells + 1));
    this.#fill(history.operations);
    this.#noteFlushes(history.operations);
  }

  /** Operations that touch the cell, by start. */
  *operationsOf(cell: number): Iterable<Operation> {
    for (let at = this.#startOf(cell); at < this.#startOf(cell + 1); at += 1) {
      yield this.history.operation(this.#touching[at] ?? 0);
    }
  }

  /** How many operations touch the cell. */
  countOf(cell: number): number {
    return this.#startOf(cell + 1) - this.#startOf(cell);
  }

  eraOf(position: Position): number {
    let era = 0;
    while (era < this.cuts.length && (this.cuts[era] ?? NEVER) < position) era += 1;
    return era;
  }

  /** Where an era begins and ends. */
  spanOf(era: number): { from: Position; to: Position } {
    return { from: this.cuts[era - 1] ?? 0, to: this.cuts[era] ?? NEVER };
  }

  /** D1: what the connection was answered before this position is durable at the end of the era. */
  flushedBefore(era: number, connection: number): Position {
    return this.#flushStart[era]?.get(this.#flushKey(connection)) ?? 0;
  }

  /** When a tenure began to serve first after the position; NEVER if none did. */
  servedAfter(position: Position): Position {
    return this.history.serves.find((serve) => serve.at > position)?.at ?? NEVER;
  }

  /** R5: a newer tenure served already when the operation was sent to an older one. */
  isFenced(operation: Operation): boolean {
    return this.history.serves.some(
      ({ at, tenure }) => at < operation.startAt && tenure > operation.tenure,
    );
  }

  /** Whether something crashed, or a new tenure began, between two positions. */
  crashedBetween(from: Position, to: Position): boolean {
    const { crashes, serves } = this.history;
    return [...crashes, ...serves].some(({ at }) => at > from && at < to);
  }

  #startOf(cell: number): number {
    return this.#starts[cell] ?? 0;
  }

  /** Counted one further, so that filling turns counts into starts. */
  #count(cell: number): void {
    this.#starts[cell + 2] = (this.#starts[cell + 2] ?? 0) + 1;
  }

  #fill(operations: readonly Operation[]): void {
    for (const { op, first, count } of operations) {
      for (let cell = first; cell < first + count; cell += 1) {
        const at = this.#starts[cell + 1] ?? 0;
        this.#touching[at] = op;
        this.#starts[cell + 1] = at + 1;
      }
    }
  }

  #noteFlushes(operations: readonly Operation[]): void {
    for (const { kind, outcome, startAt, connection } of operations) {
      if (kind !== 'F' || outcome !== 'ok') continue;
      const era = this.eraOf(startAt);
      let starts = this.#flushStart[era];
      if (starts === undefined) {
        starts = new Map();
        this.#flushStart[era] = starts;
      }
      starts.set(this.#flushKey(connection), startAt);
    }
  }

  #flushKey(connection: number): number {
    return this.history.header.multiConn ? 0 : connection;
  }
}
