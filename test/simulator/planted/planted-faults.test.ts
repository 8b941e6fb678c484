/** Planted faults are found, each within the seeds allowed; without them the same seeds pass. */
import { describe, expect, it } from 'vitest';
import { mixNamed } from '../faults/mixes.js';
import { makePlan } from '../run/plan.js';
import { runPlan } from '../run/run-plan.js';
import { PLANTED_FAULTS } from './planted-faults.js';

const SEEDS_MAX = 200;
const OPERATIONS = 600;

describe('the simulator finds', () => {
  it.each(PLANTED_FAULTS)('$name ($breaks)', async ({ mix, plant }) => {
    for (let seed = 1; seed <= SEEDS_MAX; seed += 1) {
      const plan = makePlan(seed, mixNamed(mix), { operations: OPERATIONS });
      const { findings } = await runPlan(plan, { plant });
      if (findings.length === 0) continue;
      const healthy = await runPlan(plan);
      expect([seed, healthy.findings]).toEqual([seed, []]);
      return;
    }
    expect.fail(`not found in ${SEEDS_MAX} seeds`);
  });
});
