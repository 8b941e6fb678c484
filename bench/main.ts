/** `npm run bench`: Aurochs beside the raw disk, the floor and its peers, in one run. */
import { existsSync, rmSync } from 'node:fs';
import { access, mkdir, mkdtemp, rm, statfs, writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { SystemClock } from '../common/clock.js';
import { ERROR_CODES, StorageError, toStorageError } from '../common/errors.js';
import { formatSize, GIB } from '../common/units.js';
import { BENCH_CASES, type BenchCase } from './cases.js';
import { ChildRegistry } from './child-registry.js';
import { ForeignLoad } from './foreign-load.js';
import { type MachineFacts, machineFacts } from './machine.js';
import { BENCH_USAGE, type BenchOptions, parseBenchOptions } from './options.js';
import { packageRoot } from './package-root.js';
import { recoveryBench } from './recovery/main.js';
import { caseText, machineText, processText, ratioText, verdictText } from './report.js';
import { Session } from './session.js';
import { type CaseSummary, summarize } from './summary.js';
import { TARGETS } from './targets/all.js';
import type { Target } from './targets/target.js';
import { type Measured, verdicts } from './verdict.js';

const INTERRUPTED_EXIT = 130;
/** Of all processors: above this the outcomes say little. */
const FOREIGN_SHARE_MAX = 0.1;

interface Plan {
  readonly cases: readonly BenchCase[];
  readonly targets: readonly Target[];
  wants(benchCase: BenchCase, target: Target): boolean;
}

const print = (text: string): void => {
  process.stdout.write(`${text}\n`);
};

/** A line that is overwritten on a terminal, and left out elsewhere. */
function progress(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`);
}

export async function main(args: readonly string[]): Promise<number> {
  const options = parseBenchOptions(args);
  if (options.help) {
    process.stdout.write(BENCH_USAGE);
    return 0;
  }
  if (options.recovery) return recoveryBench(options);
  const plan = planOf(options);
  await checkDisk(options, plan);
  const directory = await mkdtemp(join(options.directory, 'aurochs-bench-'));
  const children = new ChildRegistry(directory, new SystemClock());
  let interrupted = false;
  const interrupt = (): void => {
    interrupted = true;
    progress('');
    void children.stopAll();
  };
  process.on('SIGINT', interrupt);
  process.on('SIGTERM', interrupt);
  process.stdout.on('error', interrupt); // EPIPE: whoever read the tables has gone
  process.once('exit', () => {
    children.killAll();
    rmSync(directory, { recursive: true, force: true });
  });
  try {
    await run({ options, plan, directory, children });
    return 0;
  } catch (error) {
    if (!interrupted) throw error;
    process.stderr.write('interrupted; nothing was kept\n');
    return INTERRUPTED_EXIT;
  } finally {
    await children.stopAll();
    await rm(directory, { recursive: true, force: true });
  }
}

async function run(of: {
  options: BenchOptions;
  plan: Plan;
  directory: string;
  children: ChildRegistry;
}): Promise<void> {
  const { options, plan, directory, children } = of;
  const root = packageRoot();
  const facts = await machineFacts(children, { root, directory });
  print(`Aurochs benchmarks: ${options.runs} x ${options.runMs} ms per case and target, in turns,`);
  print(`volumes of ${formatSize(options.sizeBytes)} in ${options.directory}`);
  print(machineText(facts));
  const clock = new SystemClock();
  const foreign = new ForeignLoad(clock, () => children.livePids);
  const session = new Session({ options, children, directory, root, progress, clock });
  await startTargets(plan, session);
  children.throwIfStopping();
  await foreign.begin();
  const summaries: CaseSummary[] = [];
  for (const benchCase of plan.cases) {
    await session.measure(benchCase, (target) => plan.wants(benchCase, target));
    children.throwIfStopping();
    for (const target of session.targetNames) {
      const summary = summarize(session.samples, { benchCase, target });
      if (summary !== undefined) summaries.push(summary);
    }
    progress('');
    if (summaries.some((summary) => summary.caseName === benchCase.name)) {
      print(`\n${caseText(benchCase, summaries)}`);
    }
  }
  const idle = await session.measureIdle();
  children.throwIfStopping();
  const measured = { summaries, idle, memory: await session.memoryPeaks() };
  const foreignShare = await foreign.end();
  progress('');
  printEnd(plan, session, measured);
  print(foreignText(foreignShare));
  await store({ options, facts, foreignShare, session, measured }, root);
}

/** @throws StorageError UNAVAILABLE when not a single one could be started */
async function startTargets(plan: Plan, session: Session): Promise<void> {
  for (const target of plan.targets) {
    const missing = target.commands.filter((command) => !onPath(command));
    if (missing.length > 0) print(`without ${target.name}: ${missing.join(', ')} is not installed`);
    else await session.start(target);
  }
  progress('');
  for (const { target, reason } of session.failures) print(`without ${target}: ${reason}`);
  if (session.targetNames.length === 0) {
    throw new StorageError('UNAVAILABLE', 'no target could be started', {
      hint: 'the reasons are above',
    });
  }
}

function foreignText(share: number): string {
  const text = `others used ${(share * 100).toFixed(0)} % of the processors during the run`;
  if (share <= FOREIGN_SHARE_MAX) return `\n${text}`;
  return `\n${text}: too much, even ratios and outcomes are rough; repeat on a quiet machine`;
}

function printEnd(plan: Plan, session: Session, measured: Measured): void {
  const ratios = ratioText(plan.cases, measured.summaries);
  if (ratios !== '') print(`\n${ratios}`);
  print(`\n${processText(measured)}`);
  print('\nwhat the targets are');
  for (const target of plan.targets) print(`  ${target.name.padEnd(14)}${target.note}`);
  if (session.failures.length > 0) print('\nwhat failed');
  for (const { target, during, reason } of session.failures) {
    print(`  ${target}, ${during}: ${reason}`);
  }
  print(`\n${verdictText(verdicts(measured))}`);
}

async function store(
  of: {
    options: BenchOptions;
    facts: MachineFacts;
    foreignShare: number;
    session: Session;
    measured: Measured;
  },
  root: string,
): Promise<void> {
  const time = new Date().toISOString();
  const folder = join(root, 'bench', 'results');
  await mkdir(folder, { recursive: true });
  const path = join(folder, `${time.replace(/[:.]/g, '-')}.json`);
  const { options, facts, foreignShare, session, measured } = of;
  const results = {
    time,
    options: { ...options, only: options.only?.source },
    machine: facts,
    foreignShare,
    targets: TARGETS.map(({ name, note }) => ({ name, note })),
    ...measured,
    verdicts: verdicts(measured),
    failures: session.failures,
    samples: session.samples,
  };
  await writeFile(path, `${JSON.stringify(results, undefined, 1)}\n`);
  print(`\nresults in ${path}`);
}

function planOf(options: BenchOptions): Plan {
  const wants = (benchCase: BenchCase, target: Target): boolean =>
    target.measures(benchCase) &&
    (!options.quick || target.name !== 'raw-x3') &&
    (options.only === undefined || options.only.test(`${benchCase.name}/${target.name}`));
  const cases = BENCH_CASES.filter(
    (benchCase) =>
      (!options.quick || options.only !== undefined || benchCase.quick) &&
      TARGETS.some((target) => wants(benchCase, target)),
  );
  const targets = TARGETS.filter((target) => cases.some((benchCase) => wants(benchCase, target)));
  if (targets.length === 0) {
    throw new StorageError('INVALID_ARGUMENT', '--only matches no case/target', {
      hint: `cases: ${names(BENCH_CASES)}; targets: ${names(TARGETS)}`,
    });
  }
  return { cases, targets, wants };
}

/** @throws StorageError UNAVAILABLE without fio | NO_SPACE | NOT_FOUND */
async function checkDisk(options: BenchOptions, plan: Plan): Promise<void> {
  if (!onPath('fio')) {
    throw new StorageError('UNAVAILABLE', 'fio is not installed: it is the client of every test', {
      hint: 'apt-get install fio; qemu-utils and nbdkit add the peers',
    });
  }
  await access(options.directory).catch((cause: unknown) => {
    const message = `directory ${options.directory} cannot be used`;
    throw new StorageError('NOT_FOUND', message, {}, { cause });
  });
  const copies = plan.targets.reduce((sum, target) => sum + target.copies, 0);
  const wanted = copies * options.sizeBytes + GIB;
  const { bavail, bsize } = await statfs(options.directory);
  if (bavail * bsize < wanted) {
    const free = formatSize(bavail * bsize);
    const message = `${options.directory} has ${free} free, ${formatSize(wanted)} are needed`;
    throw new StorageError('NO_SPACE', message, { hint: 'use --size or --directory' });
  }
}

function names(list: ReadonlyArray<{ readonly name: string }>): string {
  return list.map(({ name }) => name).join(' ');
}

function onPath(command: string): boolean {
  const folders = (process.env['PATH'] ?? '').split(delimiter);
  return folders.some((folder) => existsSync(join(folder, command)));
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  const failure = toStorageError(error, 'benchmark');
  process.stderr.write(`error ${failure.code}: ${failure.message}\n`);
  if (failure.details.hint !== undefined) process.stderr.write(`hint: ${failure.details.hint}\n`);
  process.exitCode = ERROR_CODES[failure.code].exit;
}
