/** What recovery costs: each step leaves the volume healthy. */
import { join } from 'node:path';
import { type Clock, sleep } from '../../common/clock.js';
import { StorageError } from '../../common/errors.js';
import { BLOCK_SIZE, MIB } from '../../common/units.js';
import type { BenchCase } from '../cases.js';
import type { ChildRegistry } from '../child-registry.js';
import { type FioResult, runFio } from '../fio.js';
import type { RecoveryBed } from './bed.js';

export interface StepContext {
  readonly bed: RecoveryBed;
  readonly children: ChildRegistry;
  readonly clock: Clock;
  readonly directory: string;
  readonly sizeBytes: number;
}

/** The replica that comes and goes. */
const VICTIM = 2;
const CHANGED_SHARE = 0.01;
const FOREGROUND: BenchCase = {
  name: 'foreground',
  direction: 'write',
  pattern: 'random',
  blockBytes: 4096,
  queueDepth: 16,
  flushEach: false,
  quick: true,
};
const COPY_MS = 600_000;

export async function fill(context: StepContext): Promise<void> {
  const benchCase: BenchCase = {
    ...{ ...FOREGROUND, name: 'fill', pattern: 'sequential' as const },
    ...{ blockBytes: MIB, queueDepth: 4 },
  };
  await fio(context, benchCase, undefined);
  await context.bed.whenClean();
}

/** MiB/s of one copy of as many bytes from a replica's disk to a new file, both direct. */
export async function diskCopyRate(context: StepContext): Promise<number> {
  const { bed, children, clock, directory, sizeBytes } = context;
  const to = join(directory, 'copy');
  const startMs = clock.nowMs();
  const { exitCode, output } = await children.run({
    command: 'dd',
    args: [
      ...[`if=${bed.diskOf(0)}`, `of=${to}`, 'bs=1M', `count=${sizeBytes / MIB}`],
      ...['iflag=direct', 'oflag=direct', 'conv=fsync', 'status=none'],
    ],
    timeoutMs: COPY_MS,
  });
  if (exitCode !== 0) throw new StorageError('IO_ERROR', `dd ended with ${exitCode}: ${output}`);
  const seconds = (clock.nowMs() - startMs) / 1000;
  await children.run({ command: 'rm', args: [to], timeoutMs: COPY_MS });
  return sizeBytes / MIB / seconds;
}

/** An empty disk is filled; nobody else uses the volume. @returns milliseconds */
export async function fullRebuild({ bed }: StepContext): Promise<number> {
  await bed.killDaemon(VICTIM);
  await bed.replaceDisk(VICTIM);
  await bed.addReplica(VICTIM);
  await bed.whenHealthy();
  const tookMs = await bed.lastCatchUpMs();
  await bed.whenClean();
  return tookMs;
}

/** A replica is away while 1 % of the volume changes. @returns milliseconds from when it is
 *  attached until it is in-sync */
export async function catchUp(
  context: StepContext,
  pattern: 'sequential' | 'random',
): Promise<number> {
  const { bed, sizeBytes } = context;
  await bed.killDaemon(VICTIM);
  await bed.until('the volume is degraded', async () => {
    return (await bed.control.status()).state === 'degraded';
  });
  const bytes = Math.ceil((sizeBytes * CHANGED_SHARE) / MIB) * MIB;
  const blockBytes = pattern === 'random' ? BLOCK_SIZE : MIB;
  const benchCase = { ...FOREGROUND, name: 'change', pattern, blockBytes };
  await fio(context, benchCase, undefined, [`--io_size=${bytes}`]);
  await bed.startDaemon(VICTIM);
  await bed.whenHealthy();
  return bed.lastCatchUpMs();
}

export interface Foreground {
  readonly quiet: FioResult;
  readonly rebuilding: FioResult;
  /** MiB/s while the clients are busy */
  readonly rebuildRate: number;
}

/** The same load beside nothing, and beside a rebuild with the default throttle. */
export async function foreground(context: StepContext, runMs: number): Promise<Foreground> {
  const { bed, clock, children } = context;
  await fio(context, FOREGROUND, runMs / 2);
  const quiet = await fio(context, FOREGROUND, runMs);
  await bed.killDaemon(VICTIM);
  await bed.replaceDisk(VICTIM);
  await bed.addReplica(VICTIM);
  await bed.until('it is copied', async () => (await progress(bed)) !== undefined);
  const before = (await progress(bed)) ?? 0;
  const startMs = clock.nowMs();
  const rebuilding = await fio(context, FOREGROUND, runMs);
  const seconds = (clock.nowMs() - startMs) / 1000;
  const after = await progress(bed);
  if (after === undefined) {
    throw new StorageError('CONFLICT', 'the rebuild ended before the load: use a larger --size');
  }
  await sleep(clock, 1, children.stopSignal);
  await bed.whenHealthy();
  await bed.whenClean();
  return { quiet, rebuilding, rebuildRate: (after - before) / MIB / seconds };
}

/** 4 KiB of data, 4 KiB of hole, over the whole volume. */
export async function fillHalf(context: StepContext): Promise<void> {
  const benchCase: BenchCase = { ...FOREGROUND, name: 'half', pattern: 'sequential' };
  const half = context.sizeBytes / 2;
  await fio(context, benchCase, undefined, ['--rw=write:4k', `--io_size=${half}`]);
  await context.bed.whenClean();
}

/** The engine is killed under load and started again. @returns milliseconds until it serves */
export async function engineRestart(context: StepContext, daemonsToo: boolean): Promise<number> {
  const { bed, clock, children } = context;
  const load = fio(context, FOREGROUND, 4000).catch(() => undefined);
  await sleep(clock, 2000, children.stopSignal);
  if (daemonsToo) for (const index of [0, 1, 2]) await bed.killDaemon(index);
  await bed.killEngine();
  if (daemonsToo) for (const index of [0, 1, 2]) await bed.startDaemon(index);
  const tookMs = await bed.startEngine();
  await load;
  await bed.whenHealthy();
  return tookMs;
}

async function progress(bed: RecoveryBed): Promise<number | undefined> {
  const { replicas } = await bed.control.status();
  return replicas.find((replica) => replica.progress?.phase === 'copying')?.progress?.doneBytes;
}

async function fio(
  { bed, children, directory, sizeBytes }: StepContext,
  benchCase: BenchCase,
  runMs: number | undefined,
  more: readonly string[] = [],
): Promise<FioResult> {
  const endpoint = { kind: 'nbd' as const, uri: bed.uri };
  const run = { benchCase, endpoint, sizeBytes, runMs, seed: 7, more };
  return runFio(run, { children, directory });
}
