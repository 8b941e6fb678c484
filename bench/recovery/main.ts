/** `npm run bench -- --recovery`: what the loss of a replica, of an engine and of everything costs.
 */
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { SystemClock } from '../../common/clock.js';
import { formatSize, MIB } from '../../common/units.js';
import { ChildRegistry } from '../child-registry.js';
import { ForeignLoad } from '../foreign-load.js';
import type { BenchOptions } from '../options.js';
import { packageRoot } from '../package-root.js';
import { RecoveryBed } from './bed.js';
import * as step from './steps.js';

const REBUILD_SHARE_MIN = 0.6;
const CATCH_UP_SHARE_MAX = 0.05;
const P99_FACTOR_MAX = 2;
const HALF_RATE_MIN = 200;
const RESTART_MS_MAX = 2000;

const print = (text: string): void => {
  process.stdout.write(`${text}\n`);
};

/** @returns exit status: 0 also when something falls short */
export async function recoveryBench(options: BenchOptions): Promise<number> {
  const clock = new SystemClock();
  const directory = await mkdtemp(join(options.directory, 'aurochs-recovery-'));
  const children = new ChildRegistry(directory, clock);
  const interrupt = (): void => void children.stopAll();
  process.once('SIGINT', interrupt).once('SIGTERM', interrupt);
  process.once('exit', () => children.killAll());
  const foreign = new ForeignLoad(clock, () => children.livePids);
  try {
    print(`recovery of a volume of ${formatSize(options.sizeBytes)} in ${options.directory}`);
    await foreign.begin();
    const make = async (volume: string): Promise<step.StepContext> => {
      const own = join(directory, volume);
      await mkdir(own);
      const { sizeBytes } = options;
      const root = packageRoot();
      const base = { children, clock, directory: own, sizeBytes };
      return { ...base, bed: await RecoveryBed.start({ ...base, root, volume }) };
    };
    await measureFull(await make('full'), options);
    await measureHalf(await make('half'));
    print(`\nothers used ${((await foreign.end()) * 100).toFixed(0)} % of the processors`);
    return 0;
  } finally {
    await children.stopAll();
    await rm(directory, { recursive: true, force: true });
  }
}

async function measureFull(context: step.StepContext, options: BenchOptions): Promise<void> {
  const { sizeBytes } = context;
  await step.fill(context);
  const copyRates: number[] = [];
  const rebuildMs: number[] = [];
  for (let run = 0; run < options.runs; run += 1) {
    copyRates.push(await step.diskCopyRate(context));
    rebuildMs.push(await step.fullRebuild(context));
  }
  const copyRate = Math.max(...copyRates);
  const fullMs = Math.min(...rebuildMs);
  const rate = sizeBytes / MIB / (fullMs / 1000);
  const rates = `${rate.toFixed(0)} of ${copyRate.toFixed(0)} MiB/s`;
  verdict('full rebuild, idle: at least 0.6 of dd', rate / copyRate >= REBUILD_SHARE_MIN, [
    `${(rate / copyRate).toFixed(2)} (${rates})`,
  ]);
  for (const pattern of ['sequential', 'random'] as const) {
    const tookMs = await step.catchUp(context, pattern);
    const share = tookMs / fullMs;
    const name = `catch-up of 1 % ${pattern}: at most 5 % of the full rebuild`;
    verdict(name, share <= CATCH_UP_SHARE_MAX, [
      `${(share * 100).toFixed(1)} % (${tookMs} of ${fullMs} ms)`,
    ]);
  }
  await measureForeground(context, options);
  for (const daemonsToo of [false, true]) {
    const tookMs = await step.engineRestart(context, daemonsToo);
    const who = daemonsToo ? 'engine and daemons' : 'engine';
    const ok = tookMs <= RESTART_MS_MAX;
    verdict(`${who} killed under load: serves within 2 s`, ok, [`${tookMs.toFixed(0)} ms`]);
  }
  await context.bed.stop();
}

async function measureForeground(context: step.StepContext, options: BenchOptions): Promise<void> {
  const { quiet, rebuilding, rebuildRate } = await step.foreground(context, options.runMs);
  const factor = rebuilding.latencyUs.p99 / quiet.latencyUs.p99;
  verdict('4 KiB random writes beside a rebuild: p99 at most doubles', factor <= P99_FACTOR_MAX, [
    `x${factor.toFixed(2)} (${ms(quiet.latencyUs.p99)} -> ${ms(rebuilding.latencyUs.p99)})`,
    `IOPS x${(rebuilding.iops / quiet.iops).toFixed(2)}`,
    `rebuild ${rebuildRate.toFixed(1)} MiB/s meanwhile`,
  ]);
}

async function measureHalf(context: step.StepContext): Promise<void> {
  await step.fillHalf(context);
  const tookMs = await step.fullRebuild(context);
  const rate = context.sizeBytes / MIB / (tookMs / 1000);
  verdict('4 KiB data, 4 KiB hole: 200 MiB/s of range', rate >= HALF_RATE_MIN, [
    `${rate.toFixed(0)} MiB/s`,
  ]);
  await context.bed.stop();
}

function ms(us: number): string {
  return `${(us / 1000).toFixed(2)} ms`;
}

function verdict(target: string, ok: boolean, facts: readonly string[]): void {
  print(`${(ok ? 'PASS' : 'FALL SHORT').padEnd(11)}${target.padEnd(62)}${facts.join(', ')}`);
}
