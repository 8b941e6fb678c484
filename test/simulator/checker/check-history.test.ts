/** The checker against histories made by hand: each rule with what keeps it and what breaks it. */
import { describe, expect, it } from 'vitest';
import { History } from '../../support/history.js';
import { historyLines, parseHistory } from '../../support/history-text.js';
import { cellStory, checkHistory } from './check-history.js';
import { parseNotation } from './notation.js';
import type { ViolationKind } from './violation.js';

type Verdict = ViolationKind | 'legal';

function verdict(text: string, multiConn = true): Verdict {
  const report = checkHistory(parseNotation(text, multiConn));
  expect(report.undecided).toBe(0);
  return report.violations[0]?.kind ?? 'legal';
}

describe('N1: one order per cell, and it agrees with time', () => {
  it.each<[string, string, Verdict]>([
    ['nothing written reads as zeroes', 'r1( r1=0', 'legal'],
    ['what was acknowledged is read', 'w1( w1) r1( r1=w1', 'legal'],
    ['a read beside the write may return old', 'w1( r1( r1=0 w1)', 'legal'],
    ['or new', 'w1( r1( r1=w1 w1)', 'legal'],
    ['once new was read, old is gone', 'w1( r1( r1=w1 r2( r2=0 w1)', 'stale'],
    ['an acknowledged write is not forgotten', 'w1( w1) r1( r1=0', 'stale'],
    ['nor is the newer of two', 'w1( w1) w2( w2) r1( r1=w1', 'stale'],
    ['of two at once either may win', 'w1( w2( w1) w2) r1( r1=w1', 'legal'],
    ['but only one of them', 'w1( w2( w1) w2) r1( r1=w1 r2( r2=w2', 'stale'],
    ['N3: and not by turns', 'w1( w2( w1) w2) r1( r1=w2 r2( r2=w1', 'stale'],
    ['reads beside both writes may see both', 'w1( w2( r1( r1=w1 r2( r2=w2 w1) w2)', 'legal'],
    ['in one order', 'w1( w2( r1( r1=w1 r2( r2=w2 r3( r3=w1 w1) w2)', 'stale'],
    ['a read knows no future', 'r1( r1=0 w1( w1) r2( r2=w1', 'legal'],
    ['two connections see one order', 'w1:1( r1:2( w1) r1=w1 r2:1( r2=w1', 'legal'],
    ['across connections', 'w1:1( w1) w2:2( w2) r1:1( r1=w1', 'stale'],
  ])('%s', (_name, text, want) => {
    expect(verdict(text)).toBe(want);
  });

  it('a value from the future is invented', () => {
    const history = new History({ run: 1, cells: 1, multiConn: true });
    const read = history.start(1, { kind: 'R', connection: 0, first: 0, count: 1 });
    history.end(2, read, { outcome: 'ok', values: [2] });
    history.start(3, { kind: 'W', connection: 0, first: 0, count: 1 });
    expect(checkHistory(history).violations[0]?.kind).toBe('invented');
  });

  it('so is the value of a write to other cells', () => {
    const history = new History({ run: 1, cells: 2, multiConn: true });
    const write = history.start(1, { kind: 'W', connection: 0, first: 1, count: 1 });
    history.end(2, write, { outcome: 'ok' });
    const read = history.start(3, { kind: 'R', connection: 0, first: 0, count: 2 });
    history.end(4, read, { outcome: 'ok', values: [write, write] });
    expect(checkHistory(history).violations.map(({ kind, cell }) => [kind, cell])).toEqual([
      ['invented', 0],
    ]);
  });
});

describe('N2, R7: bytes that no write made', () => {
  it.each<[string, string, Verdict]>([
    ['two writes in one cell', 'w1( w2( w1) w2) r1( r1=torn', 'torn'],
    ['a cell of another run', 'w1( w1) r1( r1=foreign', 'foreign'],
    ['a cell of another place', 'w1( w1) r1( r1=moved', 'foreign'],
  ])('%s', (_name, text, want) => {
    expect(verdict(text)).toBe(want);
  });
});

describe('N4: trims and zeroes', () => {
  it.each<[string, string, Verdict]>([
    ['read as zeroes', 'w1( w1) t1( t1) r1( r1=0', 'legal'],
    ['a trim does not come back', 'w1( w1) t1( t1) r1( r1=w1', 'stale'],
    ['a write stays although a trim came before it', 't1( t1) w1( w1) r1( r1=0', 'stale'],
    ['several trims: a write between two of them', 'z1( z1) w1( w1) t1( t1) r1( r1=0', 'legal'],
    ['several trims: old after new', 't1( w1( t1) w1) r1( r1=w1 r2( r2=0', 'stale'],
    [
      'several trims beside writes, any order that works',
      't1( w1( t2( r1( r1=0 r2( r2=w1 r3( r3=0 t1) w1) t2)',
      'legal',
    ],
    [
      'several trims beside writes, one change too many',
      't1( w1( t2( r1( r1=w1 r2( r2=0 r3( r3=w1 t1) w1) t2)',
      'stale',
    ],
    ['a trim of unknown outcome may have happened', 'w1( w1) t1( t1? r1( r1=0', 'legal'],
    ['or not', 'w1( w1) t1( t1? r1( r1=w1', 'legal'],
    ['a trim whose outcome is unknown happens once', 'w1( w1) t1( t1? r1( r1=0 r2( r2=w1', 'stale'],
  ])('%s', (_name, text, want) => {
    expect(verdict(text)).toBe(want);
  });
});

describe('N5: writes that were not acknowledged', () => {
  it.each<[string, string, Verdict]>([
    ['may have happened', 'w1( w1! r1( r1=w1', 'legal'],
    ['or not', 'w1( w1! r1( r1=0', 'legal'],
    [
      'and do not happen after a later question was answered without them',
      'w1( w1! r1( r1=0 r2( r2=0 r3( r3=w1',
      'stale',
    ],
    ['while it is unknown they may still happen', 'w1( w1? r1( r1=0 r2( r2=w1', 'legal'],
    ['until the next tenure serves', 'w1( w1? SOFT SERVE r1( r1=w1', 'legal'],
    ['then it is decided: no zombie', 'w1( w1? SOFT SERVE r1( r1=0 r2( r2=w1', 'lost'],
    ['decided is decided', 'w1( w1? SOFT SERVE r1( r1=w1 r2( r2=0', 'lost'],
    ['the same without any reply', 'w1( SOFT SERVE r1( r1=0 r2( r2=w1', 'lost'],
    [
      'R2: a second crash changes nothing that was read',
      'w1( SOFT SERVE r1( r1=0 SOFT SERVE r2( r2=w1',
      'lost',
    ],
    ['R5: what a fenced engine was sent has no effect', 'SERVE@2 w1@1( w1! r1@2( r1=w1', 'fenced'],
    ['R5: not even a trim', 'SERVE@1 w1@1( w1) SERVE@2 t1@1( t1! r1@2( r1=0', 'lost'],
    [
      'a write sent before the other tenure may have',
      'SERVE@1 w1@1( SERVE@2 w1! r1@2( r1=w1',
      'legal',
    ],
  ])('%s', (_name, text, want) => {
    expect(verdict(text)).toBe(want);
  });
});

describe('F1, F2: soft crashes lose nothing acknowledged', () => {
  it.each<[string, string, Verdict]>([
    ['flushed or not', 'w1( w1) SOFT SERVE r1( r1=w1', 'legal'],
    ['an acknowledged write is gone', 'w1( w1) SOFT SERVE r1( r1=0', 'lost'],
    ['an older value is back', 'w1( w1) w2( w2) SOFT SERVE r1( r1=w1', 'lost'],
  ])('%s', (_name, text, want) => {
    expect(verdict(text)).toBe(want);
  });
});

describe('F3: a power cut of every copy', () => {
  it.each<[string, string, Verdict]>([
    ['may take what was not flushed', 'w1( w1) HARD SERVE r1( r1=0', 'legal'],
    ['or leave it', 'w1( w1) HARD SERVE r1( r1=w1', 'legal'],
    ['D1: not what a flush covered', 'w1( w1) f1( f1) HARD SERVE r1( r1=0', 'not-durable'],
    [
      'D1: a flush sent before the reply covers nothing',
      'w1( f1( w1) f1) HARD SERVE r1( r1=0',
      'legal',
    ],
    ['D1: a flush without an answer covers nothing', 'w1( w1) f1( HARD SERVE r1( r1=0', 'legal'],
    ['D1: a flush that failed covers nothing', 'w1( w1) f1( f1! HARD SERVE r1( r1=0', 'legal'],
    ['D2: nor what had FUA', 'W1( W1) HARD SERVE r1( r1=0', 'not-durable'],
    ['D2: FUA of a trim', 'W1( W1) T1( T1) HARD SERVE r1( r1=w1', 'not-durable'],
    ['later writes may be gone', 'W1( W1) w2( w2) HARD SERVE r1( r1=w1', 'legal'],
    ['later ones may be there', 'W1( W1) w2( HARD SERVE r1( r1=w2', 'legal'],
    ['nothing older than the durable one', 'w1( w1) W2( W2) HARD SERVE r1( r1=w1', 'not-durable'],
    [
      'beside the durable one either order is possible',
      'w1( W2( w1) W2) HARD SERVE r1( r1=w1',
      'legal',
    ],
    [
      'unless a read had shown it',
      'w1( W2( r1( r1=w1 r2( r2=w2 w1) W2) HARD SERVE r3( r3=w1',
      'not-durable',
    ],
    ['R2: one value for good', 'w1( w1) HARD SERVE r1( r1=w1 r2( r2=0', 'two-values'],
    ['R2: two copies, two values', 'w1( w1) w2( w2) HARD SERVE r1( r1=w1 r2( r2=w2', 'two-values'],
    [
      'R2: what was read is durable',
      'w1( w1) HARD SERVE r1( r1=w1 HARD SERVE r2( r2=0',
      'not-durable',
    ],
    ['R2: also zeroes', 'w1( w1) HARD SERVE r1( r1=0 HARD SERVE r2( r2=w1', 'not-durable'],
    ['two cuts without a read between', 'w1( w1) HARD SERVE HARD SERVE r1( r1=w1', 'legal'],
    [
      'what the first one excluded stays excluded',
      'w1( w1) W2( W2) HARD SERVE HARD SERVE r1( r1=w1',
      'not-durable',
    ],
    ['writes go on over what is left', 'w1( w1) HARD SERVE r1( r1=0 w2( w2) r2( r2=w2', 'legal'],
    [
      'and what is left does not come back',
      'w1( w1) HARD SERVE r1( r1=w1 w2( w2) r2( r2=w1',
      'stale',
    ],
    ['a write acknowledged after the cut is there', 'w1( HARD SERVE w1) r1( r1=0', 'lost'],
    ['a write that spans the cut may be seen at once', 'w1( HARD SERVE r1( r1=w1 w1)', 'legal'],
    [
      'D1: a flush that spans the cut is a promise',
      'w1( w1) f1( HARD SERVE f1) r1( r1=0',
      'not-durable',
    ],
    ['an unseen trim may be lost', 'W1( W1) t1( t1) HARD SERVE r1( r1=w1', 'legal'],
    ['an unknown trim is a candidate', 'W1( W1) t1( HARD SERVE r1( r1=0', 'legal'],
    ['zeroes that nobody could have left', 'W1( W1) HARD SERVE r1( r1=0', 'not-durable'],
    ['nor somebody later', 'W1( W1) HARD SERVE r1( r1=0 t1( t1)', 'not-durable'],
  ])('%s', (_name, text, want) => {
    expect(verdict(text)).toBe(want);
  });

  it('D1: without multi-connection a flush covers its own connection', () => {
    const other = 'w1:1( w1) f1:2( f1) HARD SERVE r1( r1=0';
    expect([verdict(other, true), verdict(other, false)]).toEqual(['not-durable', 'legal']);
  });
});

describe('reports', () => {
  it('names cell and operations, and tells the story of the cell', () => {
    const history = parseNotation('w1( w1) w2( w2) SOFT SERVE@2 r1( r1=w1');
    const [violation] = checkHistory(history).violations;
    expect(violation?.cell).toBe(0);
    expect(violation?.operations).toEqual(expect.arrayContaining([1, 2, 3]));
    const story = cellStory(history, 0).join('\n');
    expect(story).toMatch(/W1.*\n.*W2.*\n.*crash\n.*tenure 2 serves\n.*R3.*-> 1/);
  });

  it('counts cells and steps, and stops at the limit', () => {
    const history = new History({ run: 1, cells: 10, multiConn: true });
    const read = history.start(1, { kind: 'R', connection: 0, first: 2, count: 6 });
    history.end(2, read, { outcome: 'ok', values: [-1, -1, -1, -1, -1, -1] });
    const report = checkHistory(history, { violationsMax: 3 });
    expect(report).toMatchObject({ cells: 3, steps: 3, undecided: 0 });
    expect(report.violations).toHaveLength(3);
  });
});

describe('history as JSON lines', () => {
  const text = 'W1:1@3( w2( f1( r1( SOFT f1) W1) r1=w1 w2! HARD SERVE@4 t1( t1?';

  it('comes back as it was', () => {
    const history = parseNotation(text);
    history.note(99, 'the end');
    const lines = historyLines(history);
    expect(parseHistory(lines)).toEqual(history);
    expect(historyLines(parseHistory(lines))).toEqual(lines);
  });

  it.each([
    ['no header', '{"e":"start"}', /line 1: format undefined/],
    ['no JSON', '{"format":1,"run":1,"cells":1,"multiConn":true}\n{', /line 2/],
    ['an unknown entry', '{"format":1,"run":1,"cells":1}\n{"e":"x","t":1}', /line 2: entry "x"/],
    [
      'an unknown kind',
      '{"format":1,"run":1,"cells":1}\n{"e":"start","t":1,"op":1,"k":"Q"}',
      /kind Q/,
    ],
    ['a gap', '{"format":1,"run":1,"cells":1}\n{"e":"start","t":1,"op":2,"k":"F"}', /out of order/],
    ['nothing', '', /has a header/],
  ])('%s is refused with its line', (_name, lines, message) => {
    expect(() => parseHistory(lines.split('\n'))).toThrow(message);
  });
});
