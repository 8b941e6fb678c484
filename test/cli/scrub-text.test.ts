import { describe, expect, it } from 'vitest';
import { openBlocks, scrubLine, scrubText } from '../../cli/scrub-text.js';
import type { ScrubReport } from '../../proto/control.js';
import { NO_SCRUB, NOW } from './volume-facts.js';

const MIB = 1024 ** 2;
const OPTIONS = { volume: 'demo', nowMs: NOW, zoneMinutes: 0 };
const DONE: ScrubReport = {
  ...NO_SCRUB,
  ...{ state: 'done', startedMs: NOW - 7_200_000, finishedMs: NOW - 3_600_000 },
  ...{ provedMs: NOW - 7_200_000, doneBytes: 64 * MIB, totalBytes: 64 * MIB },
  hashedBytes: 192 * MIB,
};

describe('the report of a scrub in words', () => {
  it.each<[string, ScrubReport, string[]]>([
    [
      'never',
      NO_SCRUB,
      [
        'The copies of demo were never compared by a scrub.',
        'No whole pass has proved the copies equal yet.',
      ],
    ],
    [
      'done, all well',
      DONE,
      [
        'The newest scrub of demo ended 1 h ago after 1 h: 192MiB read on all copies together.',
        'Nothing was found.',
        'Proved: all that was written before 2026-11-24 01:20:00 (2 h ago) was as written, and ' +
          'equal on all copies that were in sync.',
      ],
    ],
    [
      'running, nothing proved before',
      { ...DONE, state: 'running', doneBytes: 16 * MIB, finishedMs: 0, provedMs: 0 },
      [
        'A scrub of demo runs, begun 2 h ago: [######..................]  25% 16MiB of 64MiB, ' +
          '192MiB read on all copies together.',
        'Nothing was found so far.',
        'No whole pass has proved the copies equal yet.',
      ],
    ],
  ])('%s', (_name, report, want) => {
    expect(scrubText(report, OPTIONS).split('\n')).toEqual(want);
  });

  it('tells what was mended from what is open, and claims no proof for the latter', () => {
    const found = { badBlocks: 2, divergentBlocks: 1, repairedBlocks: 3, undecidedBlocks: 1 };
    const report = { ...DONE, ...found, lostBlocks: 4, provedMs: 0 };
    const text = scrubText(report, OPTIONS);
    expect(text).toMatch(/- 2 blocks did not match the stored checksum/);
    expect(text).toMatch(/- 1 block differed on a copy although its checksum was right/);
    expect(text).toMatch(/- 3 blocks rewritten from a good copy/);
    expect(text).toMatch(/- 1 block OPEN: the copies differ/);
    expect(text).toMatch(/- 4 blocks OPEN: bad on every copy/);
    expect(text).toMatch(/No whole pass has proved/);
    expect(openBlocks(report)).toBe(5);
    expect(scrubLine(report)).toMatch(/100% 64MiB of 64MiB, 192MiB read, 8 blocks found$/);
  });

  it('a stopped pass says where it goes on', () => {
    const report: ScrubReport = { ...DONE, state: 'stopped', doneBytes: MIB };
    expect(scrubText(report, OPTIONS)).toMatch(/is stopped at 1MiB of 64MiB; scrub start goes on/);
  });
});
