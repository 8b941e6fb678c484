/** Command line of the simulator, and what it prints. */
import { describe, expect, it } from 'vitest';
import { MIXES } from '../faults/mixes.js';
import { parseSimulateOptions } from './options.js';
import { makePlan } from './plan.js';
import { mixLines, replayLine, totalsLine } from './report.js';

describe('options of the simulator', () => {
  it('are a hundred seeds of all mixes by default', () => {
    expect(parseSimulateOptions([])).toEqual({
      ...{ seeds: 100, start: 1, operations: 2_000, mix: undefined, plan: undefined },
      ...{ story: false, shrink: false, mixes: false, help: false },
    });
  });

  it('say which seeds of which mix', () => {
    const args = ['--start', '7', '--seeds', '3', '--mix', 'power', '--ops', '50', '--shrink'];
    expect(parseSimulateOptions(args)).toMatchObject({
      ...{ start: 7, seeds: 3, mix: 'power', operations: 50, shrink: true },
    });
  });

  it.each([
    { args: ['--seeds', '0'], says: '--seeds 0 is not a whole number from 1 on' },
    { args: ['--start', '-1'], says: "Option '--start' argument is ambiguous" },
    { args: ['--ops', '1e3'], says: '--ops 1e3 is not a whole number from 1 on' },
    { args: ['--mix', 'storm'], says: '--mix storm is none of calm, engine,' },
    { args: ['--sedes', '1'], says: "Unknown option '--sedes'" },
    { args: ['12'], says: "Unexpected argument '12'" },
  ])('$args is refused by name', ({ args, says }) => {
    expect(() => parseSimulateOptions(args)).toThrow(says);
    expect(() => parseSimulateOptions(args)).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT' }),
    );
  });
});

describe('a report of the simulator', () => {
  it('says how to run a seed again', () => {
    const [mix] = MIXES;
    if (mix === undefined) expect.fail('no mix');
    const line = replayLine(makePlan(12, mix, { operations: 40 }), 40);
    expect(line).toContain('npm run simulate -- --start 12 --seeds 1 --mix calm --ops 40 --story');
  });

  it('names the scenarios of every mix', () => {
    expect(mixLines().length).toBe(MIXES.length);
    expect(mixLines()[0]).toMatch(/^calm +nothing goes wrong.*\(scenarios 32, 74\)$/);
  });

  it('gives the rate, and what could not be decided', () => {
    const totals = {
      ...{ seeds: 30, failed: 1, operations: 60_000, faults: 90, tenures: 100 },
      ...{ events: 900_000, simulatedMs: 7_200_000, undecided: 2, elapsedMs: 15_000 },
    };
    expect(totalsLine(totals)).toBe(
      '30 seeds, 1 failed: 60000 operations, 90 faults, 100 tenures, 2 h of simulated time ' +
        'in 15 s (4000 operations/s, 120 seeds/min, 60000 events/s; 2 cells not decided)',
    );
  });
});
