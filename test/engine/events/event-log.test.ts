import { describe, expect, it } from 'vitest';
import { EventLog, type VolumeEvent } from '../../../engine/events/event-log.js';
import { ManualClock } from '../../common/manual-clock.js';

function makeLog(eventsMax?: number) {
  const clock = new ManualClock();
  const told: VolumeEvent[] = [];
  const log = new EventLog(clock, {
    onEvent: (event) => told.push(event),
    ...(eventsMax === undefined ? {} : { eventsMax }),
  });
  return { clock, told, log };
}

const texts = (log: EventLog, afterSeq?: number): string[] =>
  log.events(afterSeq).map(({ text, count }) => (count === 1 ? text : `${text} x${count}`));

describe('event log', () => {
  it('tells what happened in order, with the facts of each', () => {
    const { log, clock } = makeLog();
    log.add('failed', 'link lost', { replica: 'a', code: 'UNAVAILABLE' });
    clock.advance(10);
    log.add('excluded', 'generation 2', { replica: 'a', generation: 2 });
    expect(log.events()).toMatchObject([
      { seq: 1, kind: 'failed', replica: 'a', code: 'UNAVAILABLE', count: 1 },
      { seq: 2, kind: 'excluded', generation: 2, wallMs: 1_010 },
    ]);
    expect(texts(log, 1)).toEqual(['generation 2']);
  });

  it('scenario 8: a crash loop is one line that counts, however many others come between', () => {
    const { log, clock, told } = makeLog();
    for (let n = 0; n < 100; n += 1) {
      clock.advance(1);
      log.add('absent', 'not back', { replica: 'c' });
      log.add('repaired', `block ${n}`, { replica: 'a' });
    }
    const [first] = log.events();
    expect(first).toMatchObject({ seq: 1, count: 100, wallMs: 1_001, lastWallMs: 1_100 });
    expect(log.events()).toHaveLength(101);
    // Whoever listens is told each time.
    expect(told.filter((e) => e.kind === 'absent')).toHaveLength(100);
  });

  it('the same again after something else of the same member is another line', () => {
    const { log } = makeLog();
    log.add('failed', 'x', { replica: 'a' });
    log.add('in-sync', 'y', { replica: 'a' });
    log.add('failed', 'x', { replica: 'a' });
    log.add('lost', 'z');
    log.add('lost', 'z');
    expect(texts(log)).toEqual(['x', 'y', 'x', 'z x2']);
  });

  it('is bounded; the numbers show what is gone', () => {
    const { log } = makeLog(3);
    for (let n = 1; n <= 10; n += 1) log.add('scrub', `${n}`);
    expect(log.events().map((e) => e.seq)).toEqual([8, 9, 10]);
    expect(texts(log, 9)).toEqual(['10']);
  });

  it('goes on where earlier engines ended', () => {
    const before = makeLog();
    for (let n = 1; n <= 5; n += 1) before.log.add('scrub', `${n}`);
    const log = new EventLog(new ManualClock(), { history: before.log.events(), eventsMax: 4 });
    log.add('opened', 'now');
    expect(texts(log)).toEqual(['3', '4', '5', 'now']);
    expect(log.events().at(-1)?.seq).toBe(6);
  });
});
