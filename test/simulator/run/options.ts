/** Command line of `npm run simulate`. */
import { parseArgs } from 'node:util';
import { StorageError } from '../../../common/errors.js';
import { MIXES } from '../faults/mixes.js';

export interface SimulateOptions {
  readonly seeds: number;
  readonly start: number;
  readonly operations: number;
  /** undefined: all of them, by turns */
  readonly mix: string | undefined;
  readonly story: boolean;
  readonly shrink: boolean;
  /** a file with a plan to run instead of seeds */
  readonly plan: string | undefined;
  readonly mixes: boolean;
  readonly help: boolean;
}

export const SIMULATE_USAGE = `usage: npm run simulate -- [options]
  --seeds N       how many seeds (default 100)
  --start S       the first one (default 1)
  --ops K         operations of the clients in each run (default 2000)
  --mix NAME      one mix of faults (default: all, by turns); --mixes lists them
  --story         tell what happened in a run that fails
  --shrink        make a failing run small, write its plan, tell its story
  --plan FILE     run a plan that --shrink has written
`;

/** @throws StorageError INVALID_ARGUMENT naming the option and the accepted values */
export function parseSimulateOptions(args: readonly string[]): SimulateOptions {
  const { values } = parse(args);
  const { mix } = values;
  if (mix !== undefined && !MIXES.some(({ name }) => name === mix)) {
    throw invalid(`--mix ${mix} is none of ${MIXES.map(({ name }) => name).join(', ')}`);
  }
  return {
    seeds: whole('--seeds', values.seeds ?? '100', 1),
    start: whole('--start', values.start ?? '1', 0),
    operations: whole('--ops', values.ops ?? '2000', 1),
    mix,
    story: values.story === true,
    shrink: values.shrink === true,
    plan: values.plan,
    mixes: values.mixes === true,
    help: values.help === true,
  };
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      options: {
        seeds: { type: 'string' },
        start: { type: 'string' },
        ops: { type: 'string' },
        mix: { type: 'string' },
        story: { type: 'boolean' },
        shrink: { type: 'boolean' },
        plan: { type: 'string' },
        mixes: { type: 'boolean' },
        help: { type: 'boolean' },
      },
    });
  } catch (cause) {
    throw invalid(cause instanceof Error ? cause.message : String(cause));
  }
}

function whole(option: string, text: string, min: number): number {
  const value = Number(text);
  if (/^[0-9]{1,10}$/.test(text) && value >= min && value <= 2 ** 31) return value;
  throw invalid(`${option} ${text} is not a whole number from ${min} on`);
}

function invalid(text: string): StorageError {
  return new StorageError('INVALID_ARGUMENT', text);
}
