/** Options that several commands share, and how their text is checked. */
import { InvalidArgumentError, Option } from 'commander';
import { StorageError } from '../common/errors.js';
import { checkName } from '../common/names.js';
import { parseSize } from '../common/units.js';
import { parseAddress } from '../proto/transport.js';
import type { OutputFormat } from './report.js';
import { absoluteAddress } from './volume-client.js';

/** `-o json`, the same on every command. */
export function outputOption(): Option {
  return new Option('-o, --output <format>', 'text for people, json for programs')
    .choices(['text', 'json'] satisfies OutputFormat[])
    .default('text' satisfies OutputFormat);
}

/** `--engine unix:PATH`: the control socket of a standalone engine. */
export function engineOption(): Option {
  return new Option('--engine <address>', 'control socket of the engine, unix:PATH or HOST:PORT');
}

/** For commander: a size such as 10GiB, in bytes. */
export function sizeArgument(text: string): number {
  const bytes = usage(() => parseSize(text));
  if (bytes <= 0) throw new InvalidArgumentError('must be more than 0');
  return bytes;
}

/** For commander: bytes per second as a size; 0: no limit. */
export function rateArgument(text: string): number {
  return usage(() => parseSize(text));
}

/** For commander: a volume name. */
export function nameArgument(text: string): string {
  return usage(() => checkName(text, 'volume'));
}

/** For commander: a whole number between the limits. */
export function countArgument(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^[0-9]{1,9}$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= min && value <= max)) {
      throw new InvalidArgumentError(`must be a whole number from ${min} to ${max}`);
    }
    return value;
  };
}

const DURATION_MS: Readonly<Record<string, number>> = {
  s: 1_000,
  m: 60_000,
  min: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/** For commander: a time such as 90s, 30min, 1h or 7d, in milliseconds. */
export function durationArgument(text: string): number {
  const match = /^([0-9]{1,6})(s|m|min|h|d)$/.exec(text);
  const unitMs = DURATION_MS[match?.[2] ?? ''];
  if (match === null || unitMs === undefined) {
    throw new InvalidArgumentError('must be a whole number with s, min, h or d');
  }
  return Number(match[1]) * unitMs;
}

/** For commander: the id of a replica. */
export function replicaArgument(text: string): string {
  return usage(() => checkName(text, 'replica'));
}

/** For commander: a replica daemon, HOST:PORT or unix:PATH; a relative path is made absolute. */
export function addressArgument(text: string): string {
  return usage(() => {
    const address = absoluteAddress(text);
    parseAddress(address);
    return address;
  });
}

function usage<T>(parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    if (!(error instanceof StorageError)) throw error;
    const { hint } = error.details;
    throw new InvalidArgumentError(`${error.message}${hint === undefined ? '' : `; ${hint}`}.`);
  }
}
