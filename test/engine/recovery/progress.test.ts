import { expect, it } from 'vitest';
import { MIB } from '../../../common/units.js';
import { Progress } from '../../../engine/recovery/progress.js';
import { ManualClock } from '../../common/manual-clock.js';

it('tells how far it is, how fast, and when it ends', () => {
  const clock = new ManualClock();
  const progress = new Progress(clock);
  expect(progress.view()).toEqual({
    ...{ phase: 'connecting', doneBytes: 0, totalBytes: 0, bytesPerSecond: 0, etaMs: 0 },
  });
  progress.begin('copying', 100 * MIB);
  expect(progress.view()).toMatchObject({ phase: 'copying', bytesPerSecond: 0, etaMs: 0 });
  clock.advance(1_000);
  progress.advance(10 * MIB);
  expect(progress.view()).toMatchObject({ bytesPerSecond: 10 * MIB, etaMs: 9_000 });
  clock.advance(1_000);
  progress.advance(10 * MIB);
  clock.advance(2_000);
  progress.advance(60 * MIB);
  // The newest two seconds count, not the average since the start.
  expect(progress.view()).toMatchObject({
    ...{ doneBytes: 80 * MIB, bytesPerSecond: 30 * MIB, etaMs: 667 },
  });
});

it('never passes its end, and a new phase begins at nothing', () => {
  const clock = new ManualClock();
  const progress = new Progress(clock);
  progress.begin('copying', MIB);
  progress.advance(2 * MIB);
  expect(progress.view()).toMatchObject({ doneBytes: MIB, etaMs: 0 });
  progress.begin('comparing', 10);
  clock.advance(500);
  expect(progress.view()).toMatchObject({ doneBytes: 0, totalBytes: 10, bytesPerSecond: 0 });
  progress.phase('flushing');
  expect(progress.view()).toMatchObject({ phase: 'flushing', totalBytes: 10 });
});
