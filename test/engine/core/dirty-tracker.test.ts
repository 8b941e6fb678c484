import { describe, expect, it } from 'vitest';
import { REGION_SIZE } from '../../../common/units.js';
import { DirtyTracker } from '../../../engine/core/dirty-tracker.js';

describe('dirty tracker (P2)', () => {
  it('notes every region that a change touches, and no other', () => {
    const tracker = new DirtyTracker();
    tracker.touch(REGION_SIZE - 1, 1, 0);
    tracker.touch(3 * REGION_SIZE - 1, 2, 0);
    expect(tracker.idle(0, 0, 9)).toEqual([0, 2, 3]);
    tracker.touch(REGION_SIZE, 2 * REGION_SIZE, 0);
    expect(tracker.count).toBe(4);
  });

  it('a region is idle when nothing has touched it for so long', () => {
    const tracker = new DirtyTracker();
    tracker.touch(0, 1, 100);
    expect(tracker.isIdle(0, 199, 100)).toBe(false);
    expect(tracker.isIdle(0, 200, 100)).toBe(true);
    tracker.touch(0, 1, 200);
    expect(tracker.idle(299, 100, 9)).toEqual([]);
    expect(tracker.isIdle(7, 1_000, 0)).toBe(false);
  });

  it('one that was dirty at the start does not become younger by being found again', () => {
    const tracker = new DirtyTracker();
    tracker.touch(0, 1, 100);
    tracker.add(0, 900);
    tracker.add(1, 900);
    expect(tracker.idle(1_000, 200, 9)).toEqual([0]);
  });

  it('gives out at most as many as wanted, and forgets what was cleaned', () => {
    const tracker = new DirtyTracker();
    for (let region = 0; region < 5; region += 1) tracker.add(region, 0);
    expect(tracker.idle(10, 0, 2)).toEqual([0, 1]);
    tracker.cleaned(0);
    expect(tracker.idle(10, 0, 2)).toEqual([1, 2]);
    expect(tracker.count).toBe(4);
  });
});
