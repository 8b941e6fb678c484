import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BLOCK_SIZE } from '../../../common/units.js';
import { forEachGap, piecesOf, type Run, spansOf } from '../../../replica/store/extent-pieces.js';

/** Runs of a text: one character per block, `#` is present; `|` moves the device by 1 MiB. */
function runsOf(text: string): Run[] {
  const runs: Array<{ at: number; count: number; place: number }> = [];
  let at = 0;
  let moved = 0;
  for (const letter of text) {
    if (letter === '|') moved += 1 << 20;
    else {
      const place = moved + at * BLOCK_SIZE;
      const last = runs.at(-1);
      const follows = last !== undefined && last.at + last.count === at;
      if (letter === '#' && follows && last.place + last.count * BLOCK_SIZE === place) {
        last.count += 1;
      } else if (letter === '#') runs.push({ at, count: 1, place });
      at += 1;
    }
  }
  return runs;
}

const shown = (text: string): string[] =>
  spansOf(runsOf(text)).map(({ at, count }) => text.replaceAll('|', '').slice(at, at + count));

describe('spans of present blocks', () => {
  const table: Array<[string, string, string[]]> = [
    ['nothing', '......', []],
    ['one run', '..###.', ['###']],
    ['half of it, in turn', '#.#.#.#.', ['#.#.#.#']],
    ['a quarter, in turn', '#...#...#...', ['#...#...#']],
    ['less than a quarter', '#....#....#', ['#', '#', '#']],
    ['a gap that the longer side alone would bear', '####.......#', ['####', '#']],
    ['short gaps after long runs', '########.#', ['########.#']],
    ['sides that grow together', '#...#......##', ['#...#......##']],
    ['not next to each other on the device', '##.|##', ['##', '##']],
    ['next to each other only in the request', '##|##', ['##', '##']],
  ];
  it.each(table)('%s: %s', (_name, text, want) => {
    expect(shown(text)).toEqual(want);
  });

  it('hold every run once, are a quarter present, and their gaps are the rest', () => {
    fc.assert(
      fc.property(fc.array(fc.boolean(), { maxLength: 256 }), (present) => {
        const text = present.map((block) => (block ? '#' : '.')).join('');
        const seen = Array.from(text, () => '.');
        for (const span of spansOf(runsOf(text))) {
          const inside = text.slice(span.at, span.at + span.count);
          const held = span.runs.reduce((sum, run) => sum + run.count, 0);
          expect(held * 4).toBeGreaterThanOrEqual(span.count);
          seen.fill('#', span.at, span.at + span.count);
          forEachGap(span, (at, count) => {
            expect(text.slice(at, at + count)).toBe('.'.repeat(count));
            seen.fill('.', at, at + count);
          });
          expect(inside.startsWith('#') && inside.endsWith('#')).toBe(true);
        }
        expect(seen.join('')).toBe(text);
      }),
      { numRuns: 500 },
    );
  });
});

describe('pieces of a request', () => {
  it('are its parts in each extent', () => {
    expect(piecesOf(250 * BLOCK_SIZE, 20)).toEqual([
      { extent: 0, first: 250, at: 0, count: 6, slot: undefined },
      { extent: 1, first: 0, at: 6, count: 14, slot: undefined },
    ]);
  });
});
