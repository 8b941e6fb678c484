import { describe, expect, it } from 'vitest';
import { LiveLine } from '../../cli/live-line.js';
import { ManualClock } from '../common/manual-clock.js';

function bed(columns: number | undefined) {
  const clock = new ManualClock();
  const written: string[] = [];
  const live = new LiveLine({ clock, columns, write: (text) => void written.push(text) });
  return { clock, written, live };
}

describe('a live line', () => {
  it('is redrawn in place on a terminal, cut to its width, and cleared', () => {
    const { live, written } = bed(6);
    live.show('abcdefgh', 'x');
    live.show('abcdefgh', 'x');
    live.clear();
    live.clear();
    expect(written).toEqual(['\r\u001b[Kabcde', '\r\u001b[K']);
  });

  it('without a terminal is said again only when its topic changes, or after 10 s', () => {
    const { live, written, clock } = bed(undefined);
    live.show('1 %', 'copying');
    live.show('2 %', 'copying');
    live.show('flush', 'flushing');
    clock.advance(10_000);
    live.show('still', 'flushing');
    live.clear();
    expect(written).toEqual(['1 %\n', 'flush\n', 'still\n']);
  });
});
