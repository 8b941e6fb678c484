/** One line that says how far something is. Pure. */
import { formatSize } from '../common/units.js';
import type { RebuildProgress } from '../proto/control.js';
import { durationText, rateText } from './time-text.js';

export interface Amount {
  readonly doneBytes: number;
  readonly totalBytes: number;
}

export interface Measured extends Amount {
  /** 0: not known */
  readonly bytesPerSecond: number;
  /** 0: not known */
  readonly etaMs: number;
}

const CELLS = 24;

/** `[######..................]  25%`; never over 100 %, and 100 % only when all is done. */
export function barText({ doneBytes, totalBytes }: Amount): string {
  const part = totalBytes > 0 ? Math.min(1, doneBytes / totalBytes) : 0;
  const full = Math.floor(part * CELLS);
  const percent = String(Math.floor(part * 100)).padStart(3);
  return `[${'#'.repeat(full)}${'.'.repeat(CELLS - full)}] ${percent}%`;
}

/** `1.2GiB of 2.6GiB, 120MiB/s, 12 s left`; leaves out what is not known. */
export function amountText(progress: Measured): string {
  const { doneBytes, totalBytes, bytesPerSecond, etaMs } = progress;
  const parts = [`${formatSize(doneBytes)} of ${formatSize(totalBytes)}`];
  if (bytesPerSecond > 0) parts.push(rateText(bytesPerSecond));
  if (etaMs > 0 && doneBytes < totalBytes) parts.push(`${durationText(etaMs)} left`);
  return parts.join(', ');
}

/** Phases that have no measure yet say only what they are. */
export function rebuildText(progress: RebuildProgress, options: { bar: boolean }): string {
  if (progress.totalBytes === 0) return progress.phase;
  const bar = options.bar ? `${barText(progress)} ` : '';
  return `${progress.phase} ${bar}${amountText(progress)}`;
}
