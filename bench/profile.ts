/**
 * Where the time goes: runs one case on one target under the profiler, prints the top functions.
 *
 *   node dist/bench/profile.js --target aurochs-3 --case randwrite-4k-qd64 [--seconds 4] [--top 20]
 *     [--size 512MiB] [--directory /var/tmp] [--keep DIR]
 */
import { copyFile, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { SystemClock, sleep } from '../common/clock.js';
import { StorageError } from '../common/errors.js';
import { parseSize } from '../common/units.js';
import { BENCH_CASES, type BenchCase } from './cases.js';
import { ChildRegistry } from './child-registry.js';
import { summarizeProfile } from './cpu-profile.js';
import { type FioResult, runFio } from './fio.js';
import { cpuSecondsOf } from './process-usage.js';
import { TARGETS } from './targets/all.js';
import type { MeasuredProcess, Target } from './targets/target.js';

const clock = new SystemClock();
const WARM_UP_MS = 1500;
const PROFILE_WAIT_MS = 15_000;

interface ProfileOptions {
  readonly target: Target;
  readonly benchCase: BenchCase;
  readonly runMs: number;
  readonly top: number;
  readonly sizeBytes: number;
  readonly directory: string;
  /** where the .cpuprofile files are left, for a viewer */
  readonly keep: string | undefined;
}

function options(): ProfileOptions {
  const { values } = parseArgs({
    options: {
      target: { type: 'string', default: 'aurochs-3' },
      case: { type: 'string', default: 'randwrite-4k-qd64' },
      seconds: { type: 'string', default: '4' },
      top: { type: 'string', default: '20' },
      size: { type: 'string', default: '512MiB' },
      directory: { type: 'string', default: '/var/tmp' },
      keep: { type: 'string' },
    },
  });
  const target = TARGETS.find(({ name }) => name === values.target);
  const benchCase = BENCH_CASES.find(({ name }) => name === values.case);
  if (target === undefined || !/^(aurochs|floor)-/.test(target.name)) {
    throw new StorageError('INVALID_ARGUMENT', '--target is aurochs-1, -3, floor-1 or floor-3');
  }
  if (benchCase === undefined) {
    const names = BENCH_CASES.map(({ name }) => name).join(' ');
    throw new StorageError('INVALID_ARGUMENT', `--case is one of ${names}`);
  }
  return {
    target,
    benchCase,
    runMs: Number(values.seconds) * 1000,
    top: Number(values.top),
    sizeBytes: parseSize(values.size),
    directory: values.directory,
    keep: values.keep,
  };
}

async function profile(wanted: ProfileOptions, children: ChildRegistry, directory: string) {
  const here = dirname(fileURLToPath(import.meta.url));
  const hook = pathToFileURL(join(here, 'profile-hook.js')).href;
  const { target, benchCase, sizeBytes } = wanted;
  const running = await target.start({
    ...{ children, directory, sizeBytes, root: join(here, '..', '..') },
    env: { NODE_OPTIONS: `--import ${hook}`, AUROCHS_PROFILE_DIR: directory },
  });
  const { endpoint, processes } = running;
  const fio = (which: BenchCase, runMs: number | undefined): Promise<FioResult> =>
    runFio(
      { benchCase: which, endpoint, sizeBytes, runMs, seed: 1 },
      { children, directory: directory },
    );
  await fio(
    { ...benchCase, direction: 'write', pattern: 'sequential', blockBytes: 1024 * 1024 },
    undefined,
  );
  await fio(benchCase, WARM_UP_MS);
  for (const { pid } of processes) process.kill(pid, 'SIGUSR2');
  const before = await Promise.all(processes.map(({ pid }) => cpuSecondsOf([pid])));
  const result = await fio(benchCase, wanted.runMs);
  const after = await Promise.all(processes.map(({ pid }) => cpuSecondsOf([pid])));
  for (const { pid } of processes) process.kill(pid, 'SIGUSR2');
  const { iops, latencyUs } = result;
  process.stdout.write(
    `${target.name} ${benchCase.name}: ${iops.toFixed(0)} IOPS, ` +
      `p50 ${latencyUs.p50.toFixed(0)} us, ` +
      `p99 ${latencyUs.p99.toFixed(0)} us (the profiler costs some)\n`,
  );
  for (const [index, measured] of processes.entries()) {
    const cpu = (after[index] ?? 0) - (before[index] ?? 0);
    await printProcess({ wanted, measured, directory, cpu, ios: result.ios });
  }
}

async function printProcess(of: {
  wanted: ProfileOptions;
  measured: MeasuredProcess;
  directory: string;
  cpu: number;
  ios: number;
}): Promise<void> {
  const { role, pid } = of.measured;
  const path = join(of.directory, `${pid}.cpuprofile`);
  const summary = summarizeProfile(await waitForFile(path));
  if (of.wanted.keep !== undefined) {
    await mkdir(of.wanted.keep, { recursive: true });
    await copyFile(path, join(of.wanted.keep, `${of.wanted.target.name}-${role}.cpuprofile`));
  }
  const perIo = ((of.cpu / of.ios) * 1e6).toFixed(1);
  process.stdout.write(
    `\n${role}: main thread busy ${summary.busySeconds.toFixed(2)} of ` +
      `${summary.seconds.toFixed(2)} s; ${of.cpu.toFixed(2)} s CPU, ${perIo} us per I/O\n`,
  );
  for (const { function: name, seconds } of summary.selfTimes.slice(0, of.wanted.top)) {
    const share = ((seconds / summary.busySeconds) * 100).toFixed(1).padStart(5);
    process.stdout.write(`  ${share} %  ${seconds.toFixed(3)} s  ${name}\n`);
  }
}

async function waitForFile(path: string): Promise<string> {
  const endMs = clock.nowMs() + PROFILE_WAIT_MS;
  for (;;) {
    const text = await readFile(path, 'utf8').catch(() => undefined);
    if (text !== undefined) return text;
    if (clock.nowMs() > endMs) throw new StorageError('DEADLINE', `no profile at ${path}`);
    await sleep(clock, 50);
  }
}

const wanted = options();
const directory = await mkdtemp(join(wanted.directory, 'aurochs-profile-'));
const children = new ChildRegistry(directory, clock);
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void children.stopAll());
}
process.once('exit', () => children.killAll());
try {
  await profile(wanted, children, directory);
} finally {
  await children.stopAll();
  await rm(directory, { recursive: true, force: true });
}
