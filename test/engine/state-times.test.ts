import { describe, expect, it } from 'vitest';
import { StateTimes } from '../../engine/state-times.js';

const states = (words: string): Map<string, string> =>
  new Map(words.split(' ').map((word): [string, string] => word.split('=') as [string, string]));

const totals = (times: StateTimes): string[] =>
  [...times.totals()].map(({ subject, state, ms }) => `${subject} ${state} ${ms}`);

describe('times in each state', () => {
  it('add up to the time that passed, per subject', () => {
    const times = new StateTimes();
    times.note(1_000, states('v=healthy r=in-sync'));
    times.note(3_000, states('v=degraded r=failed'));
    times.note(3_500, states('v=degraded r=rebuilding'));
    times.note(6_000, states('v=healthy r=in-sync'));
    times.note(7_000, states('v=healthy r=in-sync'));
    expect(totals(times)).toEqual([
      'v healthy 3000',
      'v degraded 3000',
      'r in-sync 3000',
      'r failed 500',
      'r rebuilding 2500',
    ]);
  });

  it('a state that goes on is as old as its beginning, however often it was noted', () => {
    const times = new StateTimes();
    times.note(0, states('r=failed'));
    times.note(400, states('r=failed'));
    expect(times.presentMs('r', 900)).toBe(900);
    times.note(1_000, states('r=in-sync'));
    expect(times.presentMs('r', 1_250)).toBe(250);
    expect(times.presentMs('nobody', 1_250)).toBe(0);
  });

  it('forget who is gone, and count a newcomer from when it came', () => {
    const times = new StateTimes();
    times.note(0, states('a=in-sync'));
    times.note(1_000, states('b=failed'));
    times.note(1_500, states('b=failed'));
    expect(totals(times)).toEqual(['b failed 500']);
  });

  it('do not go back', () => {
    const times = new StateTimes();
    times.note(5, states('a=in-sync'));
    expect(() => times.note(4, states('a=in-sync'))).toThrow(/time does not go back/);
  });
});
