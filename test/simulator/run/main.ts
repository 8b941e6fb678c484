/** `npm run simulate`: seeds one after the other; exit status 1 if any fails. */
import { readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { StorageError } from '../../../common/errors.js';
import { MIXES, type Mix, mixNamed } from '../faults/mixes.js';
import { parseSimulateOptions, SIMULATE_USAGE, type SimulateOptions } from './options.js';
import { makePlan, parsePlan, planText, type RunPlan } from './plan.js';
import {
  findingLines,
  mixLines,
  replayLine,
  storyLines,
  type Totals,
  totalsLine,
} from './report.js';
import { type RunResult, runPlan } from './run-plan.js';
import { shrinkPlan } from './shrink.js';

const PROGRESS_MS = 10_000;

const print = (line: string): void => {
  process.stdout.write(`${line}\n`);
};

async function main(args: readonly string[]): Promise<number> {
  const options = parseSimulateOptions(args);
  if (options.help) {
    print(SIMULATE_USAGE);
    return 0;
  }
  if (options.mixes) {
    for (const line of mixLines()) print(line);
    return 0;
  }
  if (options.plan !== undefined) return runFile(options.plan);
  return runSeeds(options);
}

async function runSeeds(options: SimulateOptions): Promise<number> {
  const startMs = performance.now();
  const totals: Totals = {
    ...{ seeds: 0, failed: 0, operations: 0, faults: 0, tenures: 0, events: 0 },
    ...{ simulatedMs: 0, undecided: 0, elapsedMs: 0 },
  };
  let saidMs = startMs;
  for (let seed = options.start; seed < options.start + options.seeds; seed += 1) {
    const plan = makePlan(seed, mixOf(options, seed), { operations: options.operations });
    const result = await runPlan(plan);
    count(totals, result);
    totals.elapsedMs = performance.now() - startMs;
    if (result.findings.length > 0) {
      totals.failed += 1;
      await tell(plan, result, options);
    }
    if (performance.now() - saidMs > PROGRESS_MS) {
      saidMs = performance.now();
      print(`... ${totalsLine(totals)}`);
    }
  }
  print(totalsLine(totals));
  return totals.failed === 0 ? 0 : 1;
}

/** By turns, so that any range of seeds has some of each. */
function mixOf(options: SimulateOptions, seed: number): Mix {
  return options.mix === undefined ? (MIXES[seed % MIXES.length] as Mix) : mixNamed(options.mix);
}

function count(totals: Totals, result: RunResult): void {
  totals.seeds += 1;
  totals.operations += result.history.operations.length;
  totals.faults += result.faults;
  totals.tenures += result.tenures;
  totals.events += result.events;
  totals.simulatedMs += result.simulatedMs;
  totals.undecided += result.undecided;
}

async function tell(plan: RunPlan, result: RunResult, options: SimulateOptions): Promise<void> {
  for (const line of findingLines(plan, result)) print(line);
  print(replayLine(plan, options.operations));
  if (options.shrink) {
    const kinds = new Set(result.findings.map(({ kind }) => kind));
    const shrunk = await shrinkPlan(plan, kinds);
    const file = path.join(tmpdir(), `aurochs-simulate-${plan.mix}-${plan.seed}.json`);
    writeFileSync(file, planText(shrunk.plan));
    print(`made small in ${shrunk.runs} runs: npm run simulate -- --plan ${file}`);
    await tellStory(shrunk.plan);
  } else if (options.story) await tellStory(plan);
}

async function tellStory(plan: RunPlan): Promise<RunResult> {
  const result = await runPlan(plan, { story: true });
  for (const line of storyLines(plan, result)) print(line);
  for (const line of findingLines(plan, result)) print(line);
  return result;
}

async function runFile(file: string): Promise<number> {
  const plan = parsePlan(readFileSync(file, 'utf8'));
  const { findings } = await tellStory(plan);
  return findings.length === 0 ? 0 : 1;
}

main(process.argv.slice(2)).then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    process.stderr.write(`simulate: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = error instanceof StorageError ? 2 : 1;
  },
);
