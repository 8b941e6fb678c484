/** What is printed of runs: findings, stories, the mixes, the rate. */
import { cellStory } from '../checker/check-history.js';
import { faultText } from '../faults/fault.js';
import { MIXES } from '../faults/mixes.js';
import type { RunPlan } from './plan.js';
import type { RunResult } from './run-plan.js';

const FINDINGS_MAX = 5;
const STORY_LINES_MAX = 150;
const CELL_LINES_MAX = 60;
/** Comings and goings of streams say little. */
const DULL = /data stream|progress/;

export function findingLines(plan: RunPlan, result: RunResult): string[] {
  const { findings } = result;
  const more = findings.length - FINDINGS_MAX;
  return [
    `seed ${plan.seed}, mix ${plan.mix}: ${findings.length} findings`,
    ...findings.slice(0, FINDINGS_MAX).map(({ kind, text }) => `  ${kind}: ${text}`),
    ...(more > 0 ? [`  and ${more} more`] : []),
  ];
}

/** The end of the story, and what happened to the cell of the first finding. */
export function storyLines(plan: RunPlan, result: RunResult): string[] {
  const { topology } = plan;
  const told = result.story.filter((line) => !DULL.test(line));
  const cell = result.findings.flatMap((finding) => ('cell' in finding ? [finding.cell] : []))[0];
  return [
    `${topology.replicas} replicas, ${topology.clients} clients with ${topology.depth} each, ` +
      `${plan.operations.length} operations, ${plan.faults.length} faults:`,
    ...plan.faults.map((fault) => `  ${faultText(fault)}`),
    ...(told.length > STORY_LINES_MAX ? ['  ...'] : []),
    ...told.slice(-STORY_LINES_MAX),
    ...(cell === undefined
      ? []
      : [`cell ${cell}:`, ...cellStory(result.history, cell, CELL_LINES_MAX)]),
  ];
}

export function replayLine(plan: RunPlan, operations: number): string {
  const seeds = `--start ${plan.seed} --seeds 1 --mix ${plan.mix} --ops ${operations}`;
  return `  npm run simulate -- ${seeds} --story`;
}

/** Which scenarios of docs/testing.md each mix covers. */
export function mixLines(): string[] {
  return MIXES.map(
    ({ name, says, scenarios }) => `${name.padEnd(8)} ${says} (scenarios ${scenarios.join(', ')})`,
  );
}

export interface Totals {
  seeds: number;
  failed: number;
  operations: number;
  faults: number;
  tenures: number;
  events: number;
  simulatedMs: number;
  undecided: number;
  elapsedMs: number;
}

export function totalsLine(totals: Totals): string {
  const seconds = totals.elapsedMs / 1_000;
  const perMinute = (totals.seeds / seconds) * 60;
  return (
    `${totals.seeds} seeds, ${totals.failed} failed: ${totals.operations} operations, ` +
    `${totals.faults} faults, ${totals.tenures} tenures, ` +
    `${Math.round(totals.simulatedMs / 3_600_000)} h of simulated time ` +
    `in ${Math.round(seconds)} s (${Math.round(totals.operations / seconds)} operations/s, ` +
    `${Math.round(perMinute)} seeds/min, ${Math.round(totals.events / seconds)} events/s` +
    `${totals.undecided > 0 ? `; ${totals.undecided} cells not decided` : ''})`
  );
}
