/**
 * What the clients of one volume asked for and were answered, and what broke meanwhile: the input
 * of the history checker.
 *
 * One history is one totally ordered log; its order, not its times, is what counts. The address
 * space is cells 0 .. cells - 1: a cell is the unit that reads map to the write that made it, a
 * block or a part of one, never more. Values: the number of the write; ZERO; a BAD_* value. As text
 * a history is JSON lines, the header first:
 *
 *   {"format":1,"run":7,"cells":4096,"multiConn":true}
 *   {"e":"start","t":12.5,"op":1,"c":0,"k":"W","first":10,"count":4,"fua":true,"n":3}
 *   {"e":"end","t":13.1,"op":1,"r":"ok"}              r: ok | error | unknown; "code" with error
 *   {"e":"end","t":15.0,"op":2,"r":"ok","v":[1,1,0,0]} v: a value per cell, of a read
 *   {"e":"crash","t":21,"hard":true}                  every in-sync copy has lost power
 *   {"e":"serve","t":25,"n":4}                        a tenure n begins to serve
 *   {"e":"note","t":25,"text":"..."}                  for people
 *
 * `t` is monotonic milliseconds of one clock; `c` the connection; `k` one of R W F T Z; `n` the
 * tenure that the operation was sent to. An operation without an end is in flight for ever.
 */
import assert from 'node:assert';

export const ZERO = 0;
/** bytes of two writes in one cell, or bytes that no write made */
export const BAD_TORN = -1;
/** a whole cell of another run */
export const BAD_FOREIGN = -2;
/** a whole cell that belongs to another place */
export const BAD_MISPLACED = -3;

export type OperationKind = 'R' | 'W' | 'F' | 'T' | 'Z';
export type Outcome = 'ok' | 'error' | 'unknown';

/** A place in the order of the log. */
export type Position = number;
/** After everything: the end of an operation that never ended. */
export const NEVER: Position = Number.MAX_SAFE_INTEGER;

export interface Operation {
  /** from 1, in the order of the starts */
  readonly op: number;
  readonly kind: OperationKind;
  readonly connection: number;
  /** first cell and number of cells; 0 and 0 of a flush */
  readonly first: number;
  readonly count: number;
  readonly fua: boolean;
  readonly tenure: number;
  readonly startMs: number;
  readonly startAt: Position;
  endMs: number;
  endAt: Position;
  /** undefined: in flight */
  outcome: Outcome | undefined;
  code: string;
  /** of a read that succeeded: a value per cell */
  values: readonly number[] | undefined;
}

export interface Crash {
  readonly at: Position;
  readonly ms: number;
  /** true: every in-sync copy lost what was not flushed (F3) */
  readonly hard: boolean;
}

export interface Serve {
  readonly at: Position;
  readonly ms: number;
  readonly tenure: number;
}

export interface Note {
  readonly at: Position;
  readonly ms: number;
  readonly text: string;
}

export interface HistoryHeader {
  /** drawn anew for each run: tells its stamps from those of others */
  readonly run: number;
  readonly cells: number;
  /** a flush covers what any connection was answered before (D1) */
  readonly multiConn: boolean;
}

export interface OperationFields {
  readonly kind: OperationKind;
  readonly connection: number;
  readonly first?: number;
  readonly count?: number;
  readonly fua?: boolean;
  readonly tenure?: number;
}

export class History {
  readonly operations: Operation[] = [];
  readonly crashes: Crash[] = [];
  readonly serves: Serve[] = [];
  readonly notes: Note[] = [];
  #position = 0;

  constructor(readonly header: HistoryHeader) {
    assert(Number.isSafeInteger(header.cells) && header.cells > 0);
  }

  /** @returns the number of the operation: for a write, the value to stamp on its cells */
  start(ms: number, fields: OperationFields): number {
    const { kind, connection, first = 0, count = 0, fua = false, tenure = 0 } = fields;
    assert(kind === 'F' || (count > 0 && first >= 0 && first + count <= this.header.cells));
    const op = this.operations.length + 1;
    this.operations.push({
      ...{ op, kind, connection, first, count, fua, tenure, startMs: ms },
      startAt: this.#next(),
      endMs: Number.POSITIVE_INFINITY,
      endAt: NEVER,
      outcome: undefined,
      code: '',
      values: undefined,
    });
    return op;
  }

  /** @param result code of an error; values of a read */
  end(
    ms: number,
    op: number,
    result: { outcome: Outcome; code?: string; values?: readonly number[] },
  ): void {
    const operation = this.operation(op);
    assert(operation.outcome === undefined, `operation ${op} ends twice`);
    const isRead = operation.kind === 'R' && result.outcome === 'ok';
    assert(!isRead || result.values?.length === operation.count, `values of read ${op}`);
    operation.endMs = ms;
    operation.endAt = this.#next();
    operation.outcome = result.outcome;
    operation.code = result.code ?? '';
    operation.values = isRead ? result.values : undefined;
  }

  crash(ms: number, hard: boolean): void {
    this.crashes.push({ at: this.#next(), ms, hard });
  }

  /** A tenure begins to serve: what older ones left undecided is decided. */
  serve(ms: number, tenure: number): void {
    this.serves.push({ at: this.#next(), ms, tenure });
  }

  note(ms: number, text: string): void {
    this.notes.push({ at: this.#next(), ms, text });
  }

  operation(op: number): Operation {
    const operation = this.operations[op - 1];
    assert(operation !== undefined, `operation ${op} is not in the history`);
    return operation;
  }

  #next(): Position {
    this.#position += 1;
    return this.#position;
  }
}
