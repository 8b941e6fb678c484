/**
 * Histories of one cell in a small notation, for tables of tests.
 *
 *   w1(  w1)    write 1 starts, is acknowledged     w1!  with an error    w1?  outcome unknown
 *   W1(  W1)    the same, FUA
 *   t1( z1(     trim, write zeroes (T1, Z1: FUA)
 *   f1(  f1)    flush
 *   r1(  r1=w1  read starts, returned write 1       r1=0 zeroes   r1=torn r1=foreign r1=moved
 *   HARD SOFT SERVE                                  w1@2( SERVE@3  of a tenure
 *   w1:2(       of connection 2
 */
import {
  BAD_FOREIGN,
  BAD_MISPLACED,
  BAD_TORN,
  History,
  type OperationKind,
  ZERO,
} from '../../support/history.js';

const BAD: Readonly<Record<string, number>> = {
  '0': ZERO,
  torn: BAD_TORN,
  foreign: BAD_FOREIGN,
  moved: BAD_MISPLACED,
};

const START = /^([wtzfrWTZ])([0-9]+)(?::([0-9]+))?(?:@([0-9]+))?\($/;
const END = /^([wtzfrWTZ][0-9]+)(\)|!|\?|=([a-z0-9]+))$/;

export function parseNotation(text: string, multiConn = true): History {
  const history = new History({ run: 1, cells: 1, multiConn });
  const numbers = new Map<string, number>();
  let ms = 0;
  for (const token of text.trim().split(/\s+/)) {
    ms += 1;
    const start = START.exec(token);
    const end = END.exec(token);
    if (token === 'HARD' || token === 'SOFT') history.crash(ms, token === 'HARD');
    else if (token.startsWith('SERVE')) history.serve(ms, Number(token.slice(6) || '0'));
    else if (start !== null) numbers.set(`${start[1]}${start[2]}`, begin(history, ms, start));
    else if (end !== null) finish(history, ms, end, numbers);
    else throw new Error(`token ${token} is not known`);
  }
  return history;
}

function begin(history: History, ms: number, match: RegExpExecArray): number {
  const [, letter = '', , connection = '0', tenure = '0'] = match;
  const kind = letter.toUpperCase() as OperationKind;
  return history.start(ms, {
    kind,
    ...(kind === 'F' ? {} : { first: 0, count: 1 }),
    connection: Number(connection),
    tenure: Number(tenure),
    fua: letter === kind,
  });
}

function finish(
  history: History,
  ms: number,
  match: RegExpExecArray,
  numbers: ReadonlyMap<string, number>,
): void {
  const [, name = '', sign = '', value = ''] = match;
  const op = numbers.get(name);
  if (op === undefined) throw new Error(`${name} ends and has not started`);
  if (sign === '!') history.end(ms, op, { outcome: 'error', code: 'IO_ERROR' });
  else if (sign === '?') history.end(ms, op, { outcome: 'unknown' });
  else if (sign === ')') history.end(ms, op, { outcome: 'ok' });
  else {
    const seen = BAD[value] ?? numbers.get(value) ?? numbers.get(value.toUpperCase());
    if (seen === undefined) throw new Error(`${value} was not written`);
    history.end(ms, op, { outcome: 'ok', values: [seen] });
  }
}
