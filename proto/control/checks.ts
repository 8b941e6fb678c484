/** Checks of single fields from the wire. Each returns the value in its domain type or throws;
 * `what` names the field. */
import { StorageError } from '../../common/errors.js';

/** What protobufjs makes of a fixed64. */
export interface WireLong {
  readonly low: number;
  readonly high: number;
}

/** A fixed64 as an exact number. @throws StorageError OUT_OF_RANGE from 2^53 on */
export function safeNumber(value: number | WireLong | null | undefined, what: string): number {
  if (value === undefined || value === null) return 0;
  const number =
    typeof value === 'number' ? value : (value.high >>> 0) * 4294967296 + (value.low >>> 0);
  if (!Number.isSafeInteger(number) || number < 0) {
    throw new StorageError('OUT_OF_RANGE', `${what} is not an integer below 2^53`);
  }
  return number;
}

/** An integer in [min, max]. @throws StorageError OUT_OF_RANGE */
export function inRange(value: number, range: readonly [number, number], what: string): number {
  if (value >= range[0] && value <= range[1]) return value;
  throw new StorageError('OUT_OF_RANGE', `${what} ${value} is not in [${range[0]}, ${range[1]}]`);
}

/** Text without control characters, in bytes at most `max`. @throws StorageError INVALID_ARGUMENT
 */
export function boundedText(value: string | null | undefined, max: number, what: string): string {
  const text = value ?? '';
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  if (Buffer.byteLength(text) <= max && !/[\u0000-\u001f\u007f]/.test(text)) return text;
  throw new StorageError('INVALID_ARGUMENT', `${what} is longer than ${max} bytes or not plain`);
}

/** Text for people in a reply: never a reason to refuse it, so control characters become blanks and
 * the rest is cut. */
export function plainText(value: string | null | undefined, max: number): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return (value ?? '').substring(0, max).replaceAll(/[\u0000-\u001f\u007f]/g, ' ');
}

/** One of a closed list. @throws StorageError INVALID_ARGUMENT */
export function oneOf<T extends string>(
  value: string | null | undefined,
  allowed: readonly T[],
  what: string,
): T {
  const found = allowed.find((item) => item === value);
  if (found !== undefined) return found;
  const shown = JSON.stringify((value ?? '').substring(0, 40));
  throw new StorageError('INVALID_ARGUMENT', `${what} ${shown} is not ${allowed.join(' | ')}`);
}

/** A list of at most `max` items, each converted. @throws StorageError LIMIT_EXCEEDED, and what
 * `convert` throws */
export function boundedList<In, Out>(
  values: readonly In[] | null | undefined,
  limit: { max: number; what: string },
  convert: (value: In) => Out,
): Out[] {
  const list = values ?? [];
  if (list.length > limit.max) {
    throw new StorageError(
      'LIMIT_EXCEEDED',
      `${limit.what}: ${list.length} items, limit ${limit.max}`,
    );
  }
  return list.map(convert);
}

/** A latency or similar: finite, not negative. @throws StorageError OUT_OF_RANGE */
export function finiteNumber(value: number | null | undefined, what: string): number {
  const number = value ?? 0;
  if (Number.isFinite(number) && number >= 0) return number;
  throw new StorageError('OUT_OF_RANGE', `${what} ${number} is not a finite positive number`);
}
