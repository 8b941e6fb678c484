/**
 * Makes a failing plan small: leaves out faults and operations as long as the run still fails in
 * the same way (delta debugging, Zeller and Hildebrandt 2002).
 */

import type { RunPlan } from './plan.js';
import type { Finding, RunOptions } from './run-plan.js';
import { runPlan } from './run-plan.js';

export interface Shrunk {
  readonly plan: RunPlan;
  readonly runs: number;
}

export interface ShrinkOptions {
  /** runs that may be made; default 200 */
  readonly runsMax?: number;
  readonly run?: RunOptions;
  readonly onProgress?: (plan: RunPlan) => void;
}

const RUNS_MAX = 200;

/** @param kinds of the findings: one of them must be there still */
export async function shrinkPlan(
  failing: RunPlan,
  kinds: ReadonlySet<Finding['kind']>,
  options: ShrinkOptions = {},
): Promise<Shrunk> {
  const runsMax = options.runsMax ?? RUNS_MAX;
  let runs = 0;
  let plan = failing;
  const fails = async (candidate: RunPlan): Promise<boolean> => {
    if (runs >= runsMax) return false;
    runs += 1;
    const { findings } = await runPlan(candidate, options.run);
    if (!findings.some(({ kind }) => kinds.has(kind))) return false;
    plan = candidate;
    options.onProgress?.(plan);
    return true;
  };
  for (let before = Number.POSITIVE_INFINITY; size(plan) < before && runs < runsMax; ) {
    before = size(plan);
    await minimize(plan.faults, (faults) => fails({ ...plan, faults }));
    await minimize(plan.operations, (operations) => fails({ ...plan, operations }));
  }
  return { plan, runs };
}

function size(plan: RunPlan): number {
  return plan.faults.length * 1_000 + plan.operations.length;
}

/** Leaves out chunks, smaller and smaller ones. `fails` is told what is left and keeps it if it
 *  fails still. */
async function minimize<T>(
  all: readonly T[],
  fails: (left: readonly T[]) => Promise<boolean>,
): Promise<void> {
  let left = all;
  for (let chunk = Math.ceil(left.length / 2); chunk >= 1 && left.length > 0; ) {
    let removed = false;
    for (let from = 0; from < left.length; ) {
      const without = [...left.slice(0, from), ...left.slice(from + chunk)];
      if (await fails(without)) {
        left = without;
        removed = true;
      } else from += chunk;
    }
    if (chunk === 1 && !removed) return;
    chunk = removed ? Math.min(chunk, Math.ceil(left.length / 2)) : Math.floor(chunk / 2);
    if (removed && chunk < 1) return;
  }
}
