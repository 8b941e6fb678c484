/** Planted faults are found, each within the seeds allowed; without them the same seeds pass. */
import { describe, expect, it } from 'vitest';
import { mixNamed } from '../faults/mixes.js';
import { makePlan } from '../run/plan.js';
import { runPlan } from '../run/run-plan.js';
import { PLANTED_FAULTS } from './planted-faults.js';

const SEEDS_MAX = 60;
const OPERATIONS = 600;
const TIMEOUT_MS = 120_000;

describe('the simulator finds', () => {
  const tried: string[] = [];

  it.each([
    ['stale read', 'N1'],
    ['torn block', 'N2'],
    ['lost write', 'N1, F2'],
    ['zombie write', 'N5, R5'],
    ['ignored flush', 'D1, D2'],
    ['missing exclusion', 'P3, R3'],
    ['skipped dirty region', 'P5, R1'],
    ['early promotion', 'P6, R6'],
    ['tag reuse', 'P2'],
    ['skipped in-flight window', 'P5, R1'],
  ])(
    '%s (%s)',
    async (name, breaks) => {
      tried.push(name);
      const planted = PLANTED_FAULTS.find((one) => one.name === name && one.breaks === breaks);
      if (planted === undefined) expect.fail('not planted');
      const { plant, mix } = planted;
      for (let seed = 1; seed <= SEEDS_MAX; seed += 1) {
        const plan = makePlan(seed, mixNamed(mix), { operations: OPERATIONS });
        const { findings } = await runPlan(plan, { plant });
        if (findings.length === 0) continue;
        const healthy = await runPlan(plan);
        expect([seed, healthy.findings]).toEqual([seed, []]);
        return;
      }
      expect.fail(`not found in ${SEEDS_MAX} seeds`);
    },
    TIMEOUT_MS,
  );

  it('every planted fault: none is left out here', () => {
    expect(tried).toEqual(PLANTED_FAULTS.map(({ name }) => name));
  });
});
