/** Command line of `npm run bench`. */
import { parseArgs } from 'node:util';
import { StorageError } from '../common/errors.js';
import { GIB, MIB, parseSize } from '../common/units.js';

export interface BenchOptions {
  readonly quick: boolean;
  /** matched against `case/target`, for example `randwrite-4k-qd64/floor-3` */
  readonly only: RegExp | undefined;
  readonly runs: number;
  readonly runMs: number;
  readonly sizeBytes: number;
  /** directory whose file system is measured */
  readonly directory: string;
  readonly idleMs: number;
  readonly settleMs: number;
  /** what the loss of a replica or an engine costs, instead of the cases */
  readonly recovery: boolean;
  readonly help: boolean;
}

const SIZE_MIN = 64 * MIB;
const SIZE_MAX = 64 * GIB;

export const BENCH_USAGE = `usage: npm run bench -- [options]
  --recovery         rebuild, catch-up and restart instead (about five minutes, volume of 2GiB)
  --quick            fewer cases, one short run each (about two minutes)
  --only PATTERN     only what matches this regular expression on case/target,
                     for example 'randwrite.*qd64' or '/(floor|aurochs)-3'
  --runs N           repetitions of every case and target (default 3, quick 1)
  --run-ms N         length of one run in milliseconds (default 2500, quick 1500)
  --size SIZE        size of the volume (default 512MiB, quick 256MiB)
  --directory DIR    where the files go: its file system is what is measured (default /var/tmp)
  --idle-ms N        how long the idle volume is watched (default 10000, quick 4000)
`;

/** @throws StorageError INVALID_ARGUMENT naming the option and the accepted values */
export function parseBenchOptions(args: readonly string[]): BenchOptions {
  const { values } = parse(args);
  const quick = values.quick === true;
  const recovery = values.recovery === true;
  const sizeText = values.size ?? (recovery ? '2GiB' : quick ? '256MiB' : '512MiB');
  const sizeBytes = parseSize(sizeText);
  if (sizeBytes < SIZE_MIN || sizeBytes > SIZE_MAX || sizeBytes % MIB !== 0) {
    throw invalid(`--size ${sizeText} is not a whole number of MiB from 64MiB to 64GiB`);
  }
  return {
    quick,
    only: values.only === undefined ? undefined : pattern(values.only),
    runs: whole('--runs', values.runs ?? (quick ? '1' : '3'), { min: 1, max: 100 }),
    runMs: whole('--run-ms', values['run-ms'] ?? (recovery ? '8000' : quick ? '1500' : '2500'), {
      min: 200,
      max: 600_000,
    }),
    sizeBytes,
    directory: values.directory ?? '/var/tmp',
    idleMs: whole('--idle-ms', values['idle-ms'] ?? (quick ? '4000' : '10000'), {
      min: 500,
      max: 600_000,
    }),
    settleMs: quick ? 2000 : 5000,
    recovery,
    help: values.help === true,
  };
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      options: {
        quick: { type: 'boolean' },
        recovery: { type: 'boolean' },
        only: { type: 'string' },
        runs: { type: 'string' },
        'run-ms': { type: 'string' },
        size: { type: 'string' },
        directory: { type: 'string' },
        'idle-ms': { type: 'string' },
        help: { type: 'boolean', short: 'h' },
      },
    });
  } catch (error) {
    throw invalid(error instanceof Error ? error.message : String(error));
  }
}

function pattern(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch (error) {
    throw invalid(`--only: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function whole(name: string, text: string, limits: { min: number; max: number }): number {
  const value = /^[0-9]{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= limits.min && value <= limits.max)) {
    throw invalid(`${name} ${text} is not a whole number from ${limits.min} to ${limits.max}`);
  }
  return value;
}

function invalid(message: string): StorageError {
  return new StorageError('INVALID_ARGUMENT', message, { hint: 'see npm run bench -- --help' });
}
