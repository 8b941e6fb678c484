/** Times, durations and rates as people read them. Pure. */
import { formatSize } from '../common/units.js';

const UNITS: ReadonlyArray<readonly [name: string, ms: number]> = [
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['min', 60_000],
  ['s', 1_000],
];

/** The two largest units: `450 ms`, `12 s`, `3 min 20 s`, `2 h 5 min`, `4 d 3 h`. */
export function durationText(ms: number): string {
  if (ms < 1_000) return `${Math.max(0, Math.round(ms))} ms`;
  const seconds = Math.round(ms / 1_000) * 1_000;
  const at = UNITS.findIndex(([, unitMs]) => seconds >= unitMs);
  const [name, unitMs] = UNITS[at] ?? ['s', 1_000];
  const whole = Math.floor(seconds / unitMs);
  const next = UNITS[at + 1];
  const rest = next === undefined ? 0 : Math.floor((seconds - whole * unitMs) / next[1]);
  return rest === 0 || next === undefined
    ? `${whole} ${name}`
    : `${whole} ${name} ${rest} ${next[0]}`;
}

/** How long before `nowMs`: `12 s ago`. A clock that was set back shows `just now`. */
export function agoText(wallMs: number, nowMs: number): string {
  const ms = nowMs - wallMs;
  return ms < 1_000 ? 'just now' : `${durationText(ms)} ago`;
}

/** `2026-11-24 21:37:16` in a zone that is so far ahead of UTC. */
export function wallText(wallMs: number, zoneMinutes: number): string {
  const shifted = new Date(wallMs + zoneMinutes * 60_000);
  return shifted.toISOString().substring(0, 19).replace('T', ' ');
}

/** `UTC`, `UTC+01:00`. */
export function zoneText(zoneMinutes: number): string {
  if (zoneMinutes === 0) return 'UTC';
  const minutes = Math.abs(zoneMinutes);
  const two = (value: number): string => String(value).padStart(2, '0');
  const sign = zoneMinutes < 0 ? '-' : '+';
  return `UTC${sign}${two(Math.floor(minutes / 60))}:${two(minutes % 60)}`;
}

/** How far the zone of this machine is ahead of UTC at that time. */
export function zoneMinutesAt(wallMs: number): number {
  return -new Date(wallMs).getTimezoneOffset();
}

export function rateText(bytesPerSecond: number): string {
  return `${formatSize(Math.round(bytesPerSecond))}/s`;
}
