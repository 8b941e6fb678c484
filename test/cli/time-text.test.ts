import { describe, expect, it } from 'vitest';
import { amountText, barText, rebuildText } from '../../cli/progress-bar.js';
import { agoText, durationText, rateText, wallText, zoneText } from '../../cli/time-text.js';

describe('times for people', () => {
  it.each([
    [-5, '0 ms'],
    [0, '0 ms'],
    [999, '999 ms'],
    [1_000, '1 s'],
    [59_499, '59 s'],
    [59_600, '1 min'],
    [200_000, '3 min 20 s'],
    [3_600_000, '1 h'],
    [7_500_000, '2 h 5 min'],
    [86_400_000, '1 d'],
    [4 * 86_400_000 + 3 * 3_600_000 + 59_000, '4 d 3 h'],
  ])('%d ms is %s', (ms, text) => {
    expect(durationText(ms)).toBe(text);
  });

  it('are relative, and a clock that was set back frightens nobody', () => {
    expect(agoText(10_000, 25_000)).toBe('15 s ago');
    expect(agoText(10_000, 10_999)).toBe('just now');
    expect(agoText(10_000, 2_000)).toBe('just now');
  });

  it.each([
    [0, '2026-11-24 23:30:00', 'UTC'],
    [60, '2026-11-25 00:30:00', 'UTC+01:00'],
    [-210, '2026-11-24 20:00:00', 'UTC-03:30'],
  ])('%d minutes ahead of UTC: %s (%s)', (zone, wall, name) => {
    expect(wallText(Date.UTC(2026, 10, 24, 23, 30), zone)).toBe(wall);
    expect(zoneText(zone)).toBe(name);
  });

  it('have rates', () => {
    expect(rateText(16 * 1024 ** 2)).toBe('16MiB/s');
    expect(rateText(0.4)).toBe('0B/s');
  });
});

describe('the progress bar', () => {
  it.each([
    [0, 0, '[........................]   0%'],
    [0, 100, '[........................]   0%'],
    [50, 100, '[############............]  50%'],
    [999, 1000, '[#######################.]  99%'],
    [1000, 1000, '[########################] 100%'],
    [2000, 1000, '[########################] 100%'],
  ])('%d of %d: %s', (doneBytes, totalBytes, bar) => {
    expect(barText({ doneBytes, totalBytes })).toBe(bar);
  });

  it('leaves out what is not known', () => {
    const amount = { doneBytes: 512, totalBytes: 1024, bytesPerSecond: 0, etaMs: 0 };
    expect(amountText(amount)).toBe('512B of 1KiB');
    const known = { ...amount, bytesPerSecond: 512, etaMs: 1_000 };
    expect(amountText(known)).toBe('512B of 1KiB, 512B/s, 1 s left');
    expect(amountText({ ...known, doneBytes: 1024 })).toBe('1KiB of 1KiB, 512B/s');
    expect(rebuildText({ ...known, totalBytes: 0, phase: 'listing' }, { bar: true })).toBe(
      'listing',
    );
  });
});
