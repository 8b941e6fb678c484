import { describe, expect, it } from 'vitest';
import { NO_SCRUB, type ScrubReport } from '../../../engine/scrub/scrub.js';
import { isScrubDue, ScrubSchedule } from '../../../engine/scrub/scrub-schedule.js';
import { ManualClock } from '../../common/manual-clock.js';

const DAY = 86_400_000;
const WEEK = 7 * DAY;
const NOW = 100 * WEEK;

const done = (agoMs: number): Partial<ScrubReport> => ({
  ...{ state: 'done', startedMs: NOW - agoMs - 1_000, finishedMs: NOW - agoMs },
});
const stopped = (agoMs: number): Partial<ScrubReport> => ({
  ...{ state: 'stopped', startedMs: NOW - agoMs, finishedMs: 0 },
});

describe('when a scrub begins by itself', () => {
  it.each<[string, Partial<ScrubReport>, { interrupted?: boolean; everyMs?: number }, boolean]>([
    ['never scrubbed', {}, {}, true],
    ['never scrubbed, and switched off', {}, { everyMs: 0 }, false],
    ['the last one is a day old', done(DAY), {}, false],
    ['the last one is a week old', done(WEEK), {}, true],
    ['old, and switched off', done(WEEK), { everyMs: 0 }, false],
    ['one runs', { ...done(2 * WEEK), state: 'running' }, {}, false],
    ['a person stopped it yesterday', stopped(DAY), {}, false],
    ['a person stopped it a week ago', stopped(WEEK), {}, true],
    ['the engine ended under it', stopped(DAY), { interrupted: true }, true],
    [
      'the engine ended under it, and switched off',
      stopped(DAY),
      { interrupted: true, everyMs: 0 },
      false,
    ],
    ['the clock was set back (scenario 75)', done(-DAY), {}, true],
  ])('%s', (_name, report, options, want) => {
    const age = {
      ...{ report: { ...NO_SCRUB, ...report }, wallMs: NOW },
      ...{ interrupted: options.interrupted ?? false, everyMs: options.everyMs ?? WEEK },
    };
    expect(isScrubDue(age)).toBe(want);
  });
});

describe('the schedule', () => {
  function bed(everyMs: number) {
    const clock = new ManualClock();
    let starts = 0;
    const scrub = {
      report: NO_SCRUB,
      interrupted: false,
      start(): void {
        starts += 1;
        this.report = { ...NO_SCRUB, state: 'running' };
      },
    };
    let serving = true;
    const schedule = new ScrubSchedule({ everyMs, clock, scrub, serving: () => serving });
    schedule.start();
    return {
      ...{ clock, schedule, scrub },
      starts: () => starts,
      setServing: (value: boolean) => {
        serving = value;
      },
    };
  }

  it('lets recovery go first after a start, then begins once', () => {
    const { clock, starts } = bed(WEEK);
    clock.advance(599_999);
    expect(starts()).toBe(0);
    clock.advance(1);
    expect(starts()).toBe(1);
    clock.advance(DAY);
    expect(starts()).toBe(1);
  });

  it('waits for a volume that does not serve', () => {
    const { clock, starts, setServing } = bed(WEEK);
    setServing(false);
    clock.advance(600_000);
    expect(starts()).toBe(0);
    setServing(true);
    clock.advance(600_000);
    expect(starts()).toBe(1);
  });

  it('is off with 0, and ends with the engine', () => {
    expect(bed(0).clock.pending).toBe(0);
    const { clock, schedule } = bed(WEEK);
    schedule.stop();
    expect(clock.pending).toBe(0);
  });
});
