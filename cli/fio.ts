/** Runs fio's nbd engine against a volume and reads its JSON. fio is the measure everybody can
 *  repeat. */
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { StorageError } from '../common/errors.js';
import { isErrno } from './pid-file.js';

const run = promisify(execFile);

export interface FioJob {
  readonly name: string;
  readonly kind: 'randread' | 'randwrite' | 'read' | 'write';
  readonly blockBytes: number;
  readonly depth: number;
  /** a flush after every write */
  readonly flush?: boolean;
}

export interface FioResult {
  readonly name: string;
  readonly iops: number;
  readonly bytesPerSecond: number;
  /** completion latency, microseconds */
  readonly p50Us: number;
  readonly p99Us: number;
  readonly p999Us: number;
}

/** @throws StorageError UNSUPPORTED (no fio) | UNAVAILABLE (fio failed: its last words) |
 *   PROTOCOL_ERROR (its output) */
export async function runFio(
  job: FioJob,
  options: { uri: string; seconds: number; program?: string },
): Promise<FioResult> {
  const folder = await mkdtemp(path.join(tmpdir(), 'aurochs-fio-'));
  const report = path.join(folder, 'report.json');
  try {
    await run(options.program ?? 'fio', fioArguments(job, { ...options, report }), {
      timeout: options.seconds * 1000 + 60_000,
      maxBuffer: 1024 * 1024,
    });
    return parseFioReport(job, await readFile(report, 'utf8'));
  } catch (error) {
    throw fioError(job, error);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

export function fioArguments(
  job: FioJob,
  options: { uri: string; seconds: number; report: string },
): string[] {
  return [
    `--name=${job.name}`,
    '--ioengine=nbd',
    `--uri=${options.uri}`,
    `--rw=${job.kind}`,
    `--bs=${job.blockBytes}`,
    `--iodepth=${job.depth}`,
    ...(job.flush === true ? ['--fsync=1'] : []),
    '--time_based',
    `--runtime=${options.seconds}`,
    '--randrepeat=0',
    '--norandommap',
    '--output-format=json',
    `--output=${options.report}`,
  ];
}

/** @throws StorageError PROTOCOL_ERROR when a number that we need is not there */
export function parseFioReport(job: FioJob, text: string): FioResult {
  // The nbd engine prints a remark before the JSON.
  const report: unknown = JSON.parse(text.slice(Math.max(0, text.indexOf('{'))));
  const side = job.kind.endsWith('read') ? 'read' : 'write';
  const at = (...keys: ReadonlyArray<string | number>): number => {
    let value: unknown = report;
    for (const key of ['jobs', 0, side, ...keys]) {
      value = typeof value === 'object' && value !== null ? Reflect.get(value, key) : undefined;
    }
    if (typeof value === 'number') return value;
    throw new StorageError('PROTOCOL_ERROR', `fio's report has no ${side}.${keys.join('.')}`);
  };
  const latencyUs = (percentile: string): number => at('clat_ns', 'percentile', percentile) / 1000;
  return {
    name: job.name,
    iops: at('iops'),
    bytesPerSecond: at('bw_bytes'),
    p50Us: latencyUs('50.000000'),
    p99Us: latencyUs('99.000000'),
    p999Us: latencyUs('99.900000'),
  };
}

function fioError(job: FioJob, error: unknown): StorageError {
  if (error instanceof StorageError) return error;
  if (isErrno(error, 'ENOENT')) {
    return new StorageError('UNSUPPORTED', 'fio is not installed', {
      hint: 'apt-get install fio',
    });
  }
  if (error instanceof SyntaxError) {
    return new StorageError('PROTOCOL_ERROR', `fio's report is not JSON: ${error.message}`);
  }
  const stderr = error instanceof Error && 'stderr' in error ? String(error.stderr).trim() : '';
  const text = stderr.split('\n').at(-1) || (error instanceof Error ? error.message : '');
  return new StorageError('UNAVAILABLE', `fio ${job.name}: ${text}`, {
    hint: 'is the URI right? nbdinfo URI tells',
  });
}
