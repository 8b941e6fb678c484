/** A short set of seeds of every mix; a run is the same again; a failing one is made small. */
import { describe, expect, it } from 'vitest';
import { historyLines } from '../../support/history-text.js';
import { MIXES, mixNamed } from '../faults/mixes.js';
import { PLANTED_FAULTS } from '../planted/planted-faults.js';
import { makePlan } from './plan.js';
import { type RunOptions, runPlan } from './run-plan.js';
import { shrinkPlan } from './shrink.js';

const SEEDS = [1, 2, 3];
const OPERATIONS = 700;

/** Titles name the scenarios, for docs/testing.md; they are those of the mixes. */
const SCENARIOS = /scenarios? (.*)$/;

describe('no rule is broken by', () => {
  const tried: string[] = [];

  it.each([
    ['calm', 'scenarios 32, 74'],
    ['engine', 'scenarios 1, 2, 3, 4, 11, 74'],
    ['replica', 'scenarios 5, 6, 7, 8, 15, 16, 19'],
    ['network', 'scenarios 22, 23, 24, 25, 27, 28, 29, 30, 31, 34'],
    ['power', 'scenarios 9, 57, 58, 59, 60, 61, 62'],
    ['disk', 'scenarios 20, 21, 37, 38, 39, 40, 41, 42, 44, 45'],
    ['rot', 'scenarios 33, 47, 48, 49, 50, 63'],
    ['zombie', 'scenarios 17, 35, 36, 72, 75'],
    ['rebuild', 'scenarios 43, 64, 65'],
    ['return', 'scenarios 57, 74'],
    ['all', 'scenario 82'],
  ])('mix %s (%s)', async (name, scenarios) => {
    const mix = mixNamed(name);
    tried.push(name);
    expect(mix.scenarios.join(', ')).toBe(SCENARIOS.exec(scenarios)?.[1]);
    for (const seed of SEEDS) {
      const { findings } = await runPlan(makePlan(seed, mix, { operations: OPERATIONS }));
      expect([seed, findings]).toEqual([seed, []]);
    }
  });

  it('any mix: none is left out here', () => {
    expect(tried).toEqual(MIXES.map(({ name }) => name));
  });
});

describe('a run', () => {
  it.each(['engine', 'power', 'rebuild', 'all'])(
    'of mix %s is the same again, event by event, whether somebody listens or not',
    async (name) => {
      const plan = makePlan(11, mixNamed(name), { operations: 300 });
      const first = await runPlan(plan);
      const again = await runPlan(plan, { story: true });
      expect([again.events, again.digest]).toEqual([first.events, first.digest]);
      expect(historyLines(again.history)).toEqual(historyLines(first.history));
    },
  );

  it('is another one with another seed', async () => {
    const [mix, options] = [mixNamed('calm'), { operations: 50 }];
    const one = await runPlan(makePlan(1, mix, options));
    const other = await runPlan(makePlan(2, mix, options));
    expect(one.digest).not.toBe(other.digest);
  });
});

const SEEDS_MAX = 30;

async function firstFailing(run: RunOptions) {
  for (let seed = 1; seed <= SEEDS_MAX; seed += 1) {
    const plan = makePlan(seed, mixNamed('calm'), { operations: 200 });
    const { findings } = await runPlan(plan, run);
    if (findings.length > 0) return { plan, kinds: new Set(findings.map(({ kind }) => kind)) };
  }
  return expect.fail(`no run fails in ${SEEDS_MAX} seeds`);
}

describe('a failing plan', () => {
  it('is made small, fails still, and passes without what was planted', async () => {
    const planted = PLANTED_FAULTS.find(({ name }) => name === 'lost write');
    if (planted === undefined) expect.fail('nothing is planted');
    const run: RunOptions = { plant: planted.plant };
    const { plan, kinds } = await firstFailing(run);
    const small = await shrinkPlan(plan, kinds, { runsMax: 60, run });
    expect(small.runs).toBeLessThanOrEqual(60);
    expect(small.plan.operations.length).toBeLessThan(50);
    expect((await runPlan(small.plan, run)).findings).not.toEqual([]);
    expect((await runPlan(small.plan)).findings).toEqual([]);
  });
});
