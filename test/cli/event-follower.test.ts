import { describe, expect, it } from 'vitest';
import { EventFollower } from '../../cli/event-follower.js';
import { eventText } from '../../cli/events-command.js';
import type { EngineEvent } from '../../proto/control.js';
import { eventWith } from './volume-facts.js';

const event = (seq: number, replica = '', count = 1): EngineEvent =>
  eventWith(1_000, { seq, kind: 'absent', replica, count });

/** What an engine would answer. */
const laterThan = (events: readonly EngineEvent[], seq: number): EngineEvent[] =>
  events.filter((one) => one.seq > seq);

describe('events --follow', () => {
  it('shows the newest that were there, then each new one once', () => {
    const follower = new EventFollower(2);
    const shown: number[][] = [];
    const look = (events: readonly EngineEvent[]): void =>
      void shown.push(follower.next(laterThan(events, follower.afterSeq)).map(({ seq }) => seq));
    look([event(1), event(2), event(3)]);
    look([event(1), event(2), event(3)]);
    look([event(2), event(3), event(4)]);
    expect(shown).toEqual([[2, 3], [], [4]]);
  });

  it('shows one that counts up although its number is not the newest', () => {
    const follower = new EventFollower(10);
    follower.next([event(1, 'r-1'), event(2, 'r-2')]);
    const events = [event(1, 'r-1', 2), event(2, 'r-2'), event(3)];
    expect(follower.afterSeq).toBe(0);
    const news = follower.next(laterThan(events, follower.afterSeq));
    expect(news.map(({ seq, count }) => [seq, count])).toEqual([
      [1, 2],
      [3, 1],
    ]);
  });

  it('one line each, with the cause and how often', () => {
    const failed = eventWith(60_000, {
      ...{ seq: 1, kind: 'failed', replica: 'r-2', code: 'IO_ERROR', errno: 'EIO' },
      ...{ text: 'write refused', count: 3 },
    });
    expect(eventText(failed, 0)).toBe(
      '2026-11-24 03:19:00  r-2            failed (EIO): write refused (3 times)',
    );
    expect(eventText(eventWith(0, { seq: 2, kind: 'scrub' }), 0)).toMatch(/ {2}- +scrub: scrub$/);
  });
});
