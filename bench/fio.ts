/** Runs fio and reads its report: it is the client of every target, so one program measures all. */
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { StorageError } from '../common/errors.js';
import type { BenchCase } from './cases.js';
import type { ChildRegistry } from './child-registry.js';

/** Beyond its run time, a hung target holds fio up for ever. Preconditioning has only this. */
const FIO_GRACE_MS = 60_000;

/** Where fio sends the load. Several files are written side by side, each with full depth. */
export type FioEndpoint =
  | { readonly kind: 'nbd'; readonly uri: string }
  | { readonly kind: 'files'; readonly paths: readonly string[] };

export interface FioRun {
  readonly benchCase: BenchCase;
  readonly endpoint: FioEndpoint;
  readonly sizeBytes: number;
  /** undefined: once over the whole volume (to precondition it) */
  readonly runMs: number | undefined;
  readonly seed: number;
  /** further options; a later one replaces an earlier one */
  readonly more?: readonly string[];
}

export interface LatencyUs {
  readonly mean: number;
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
}

export interface FioResult {
  /** completed writes or reads per second, over all jobs; flushes are not counted */
  readonly iops: number;
  readonly bytesPerSecond: number;
  readonly ios: number;
  /** of the write or read alone */
  readonly latencyUs: LatencyUs;
  /** of the flush alone, where the case has flushes */
  readonly flushLatencyUs: LatencyUs | undefined;
  /** of fio itself, user and system, over all its jobs */
  readonly cpuSeconds: number;
}

/** The arguments for one run, without those that say where the report goes. */
export function fioArguments(run: FioRun): string[] {
  const { benchCase, endpoint } = run;
  const nbd = endpoint.kind === 'nbd';
  const args = [
    '--thread',
    '--group_reporting',
    '--norandommap',
    `--randseed=${run.seed}`,
    `--rw=${benchCase.pattern === 'random' ? 'rand' : ''}${benchCase.direction}`,
    `--bs=${benchCase.blockBytes}`,
    `--size=${run.sizeBytes}`,
    `--iodepth=${benchCase.flushEach ? 1 : benchCase.queueDepth}`,
    `--numjobs=${benchCase.flushEach ? benchCase.queueDepth : 1}`,
  ];
  args.push(...(run.more ?? []));
  if (run.runMs !== undefined) args.push('--time_based', `--runtime=${run.runMs}ms`);
  // fio's nbd engine knows the flush only by the name of fsync; on files fdatasync is the same
  // promise (D1).
  if (benchCase.flushEach) args.push(nbd ? '--fsync=1' : '--fdatasync=1');
  if (nbd) return [...args, '--name=volume', '--ioengine=nbd', `--uri=${endpoint.uri}`];
  args.push('--ioengine=io_uring', '--direct=1');
  for (const path of endpoint.paths) args.push(`--name=${path}`, `--filename=${path}`);
  return args;
}

/** One run of fio. @throws StorageError IO_ERROR with fio's own words | PROTOCOL_ERROR */
export async function runFio(
  run: FioRun,
  options: { children: ChildRegistry; directory: string },
): Promise<FioResult> {
  // The nbd engine prints to stdout, and sometimes into the report as well: read it from a file,
  // from the brace.
  const report = join(options.directory, 'fio-report.json');
  const args = [...fioArguments(run), `--output=${report}`, '--output-format=json', '--eta=never'];
  const timeoutMs = (run.runMs ?? 0) + FIO_GRACE_MS;
  const result = await options.children.run({ command: 'fio', args, timeoutMs });
  const text = await readFile(report, 'utf8').catch(() => '');
  await rm(report, { force: true });
  if (result.exitCode !== 0) {
    const tail = result.output.trim().split('\n').slice(-3).join(' | ');
    throw new StorageError('IO_ERROR', `fio ended with ${result.exitCode}: ${tail}`);
  }
  return parseFioReport(text, run.benchCase);
}

/** @throws StorageError PROTOCOL_ERROR when it is not a report of one group without errors */
export function parseFioReport(text: string, benchCase: BenchCase): FioResult {
  const job = firstJob(text);
  if (number(job, 'error') !== 0) throw bad(`fio reports error ${number(job, 'error')}`);
  const side = object(job, benchCase.direction);
  const ios = number(side, 'total_ios');
  if (ios === 0) throw bad('fio completed no request');
  const cpuShare = (number(job, 'usr_cpu') + number(job, 'sys_cpu')) / 100;
  return {
    iops: number(side, 'iops'),
    bytesPerSecond: number(side, 'bw_bytes'),
    ios,
    latencyUs: latency(object(side, 'clat_ns')),
    flushLatencyUs: benchCase.flushEach
      ? latency(object(object(job, 'sync'), 'lat_ns'))
      : undefined,
    cpuSeconds: (cpuShare * number(job, 'job_runtime')) / 1000,
  };
}

type Json = Record<string, unknown>;

function firstJob(text: string): Json {
  const start = text.indexOf('{');
  if (start < 0) throw bad('no JSON in the report of fio');
  let report: unknown;
  try {
    report = JSON.parse(text.slice(start));
  } catch (error) {
    throw bad(`report of fio: ${error instanceof Error ? error.message : String(error)}`);
  }
  const jobs = isObject(report) ? report['jobs'] : undefined;
  if (!Array.isArray(jobs) || jobs.length !== 1 || !isObject(jobs[0])) {
    throw bad('the report of fio has not exactly one group');
  }
  return jobs[0];
}

function latency(from: Json): LatencyUs {
  const percentiles = object(from, 'percentile');
  return {
    mean: number(from, 'mean') / 1000,
    p50: number(percentiles, '50.000000') / 1000,
    p99: number(percentiles, '99.000000') / 1000,
    p999: number(percentiles, '99.900000') / 1000,
  };
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function object(from: Json, key: string): Json {
  const value = from[key];
  if (!isObject(value)) throw bad(`the report of fio has no "${key}"`);
  return value;
}

function number(from: Json, key: string): number {
  const value = from[key];
  if (typeof value !== 'number' || !Number.isFinite(value)) {
    throw bad(`the report of fio has no number "${key}"`);
  }
  return value;
}

function bad(message: string): StorageError {
  return new StorageError('PROTOCOL_ERROR', message);
}
