/** The few numbers that sum up repeated runs: medians and ranges, no averages of percentiles. */
import assert from 'node:assert';

export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

/** Middle value; the mean of the two middle ones for an even count. @param values not empty */
export function median(values: readonly number[]): number {
  assert(values.length > 0, 'median of nothing');
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] as number;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] as number) + upper) / 2;
}

export function spread(values: readonly number[]): Spread {
  return { median: median(values), min: Math.min(...values), max: Math.max(...values) };
}

/** The list turned so that it starts at another place each time: no target always runs first. */
export function rotated<T>(list: readonly T[], by: number): T[] {
  const start = list.length === 0 ? 0 : by % list.length;
  return [...list.slice(start), ...list.slice(0, start)];
}
