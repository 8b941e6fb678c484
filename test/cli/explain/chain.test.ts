import { describe, expect, it } from 'vitest';
import { chainOf } from '../../../cli/explain/chain.js';
import { timelineOf } from '../../../cli/explain/timeline.js';
import type { EngineEvent } from '../../../proto/control.js';
import { eventWith, NOW } from '../volume-facts.js';

/** `kind` of r-2 or, with a dot before it, of the volume; `kind:number` has a generation. One a
 *  minute, the last one a minute ago. */
function story(...words: readonly string[]): EngineEvent[] {
  return words.map((word, index) => {
    const [kind = '', generation = '0'] = word.split(':');
    const ofVolume = kind.startsWith('.');
    return eventWith((words.length - index) * 60_000, {
      seq: index + 1,
      kind: ofVolume ? kind.substring(1) : kind,
      replica: ofVolume ? '' : 'r-2',
      generation: Number(generation),
    });
  });
}

const kinds = (events: readonly EngineEvent[], inSync: boolean): string[] =>
  chainOf('r-2', events, inSync).map((link) => link.kind);

describe('the causal chain of a replica', () => {
  it.each([
    { name: 'nothing is known', events: story(), inSync: true, want: [] },
    { name: 'always well', events: story('.opened:1'), inSync: true, want: [] },
    {
      name: 'failed just now, not recorded yet',
      events: story('.opened:41', 'failed'),
      inSync: false,
      want: ['failed'],
    },
    {
      name: 'failed, excluded, its daemon away',
      events: story('.opened:41', 'failed', 'excluded:42', 'absent'),
      inSync: false,
      want: ['failed', 'excluded', 'absent'],
    },
    {
      name: 'back again: the whole of the last trouble',
      events: story('failed', 'excluded:42', 'absent', 'rebuilding', 'in-sync:43'),
      inSync: true,
      want: ['failed', 'excluded', 'absent', 'rebuilding', 'in-sync'],
    },
    {
      name: 'failed a second time: only what began then',
      events: story('failed', 'excluded:42', 'in-sync:43', 'slow', 'failed', 'excluded:44'),
      inSync: false,
      want: ['slow', 'failed', 'excluded'],
    },
    {
      name: 'excluded over a restart of the engine: the cause before it is kept',
      events: story('failed', 'excluded:42', '.opened:42', 'absent', 'in-sync:43'),
      inSync: true,
      want: ['failed', 'excluded', 'absent', 'in-sync'],
    },
    {
      name: 'lost with all others, and back with them',
      events: story('joined', 'in-sync:40', 'failed', '.lost', '.back:40'),
      inSync: true,
      want: ['failed', 'back'],
    },
    {
      name: 'lost with all others: still away',
      events: story('in-sync:40', 'failed', '.lost'),
      inSync: false,
      want: ['failed'],
    },
  ])('$name', ({ events, inSync, want }) => {
    expect(kinds(events, inSync)).toEqual(want);
  });

  it('names the generation that an exclusion changed, and the one before it', () => {
    const events = story('.opened:41', 'failed', '.joined:43', 'excluded:45');
    const excluded = chainOf('r-2', events, false).find(({ kind }) => kind === 'excluded');
    expect(excluded).toMatchObject({ generationBefore: 43, generation: 45 });
    const [first] = chainOf('r-2', story('excluded:7'), false);
    expect(first).toMatchObject({ generationBefore: 6, generation: 7 });
  });

  it('leaves out what happened to others', () => {
    const other = eventWith(1, { seq: 9, kind: 'failed', replica: 'r-1' });
    expect(kinds([...story('failed'), other], false)).toEqual(['failed']);
  });

  it('makes one link of attempts that alternate between two reasons', () => {
    const attempt = (seq: number, text: string, count: number): EngineEvent =>
      eventWith(60_000 - seq, { seq, kind: 'absent', replica: 'r-2', text, count });
    const events = [...story('failed'), attempt(2, 'a', 3), attempt(3, 'b', 1), attempt(4, 'a', 2)];
    const links = chainOf('r-2', events, false);
    expect(links.map(({ text, count }) => [text, count])).toEqual([
      ['failed', 1],
      ['a', 5],
      ['b', 1],
    ]);
    expect(links[1]?.lastWallMs).toBe(NOW - 60_000 + 4);
  });

  it('is bounded: the cause stays, and what happened last', () => {
    const many = Array.from({ length: 40 }, (_, n) =>
      eventWith(1_000 - n, { seq: n + 2, kind: 'absent', replica: 'r-2', text: `reason ${n}` }),
    );
    const links = chainOf('r-2', [...story('failed'), ...many], false);
    expect(links).toHaveLength(12);
    expect(links[0]?.kind).toBe('failed');
    expect(links.at(-1)?.text).toBe('reason 39');
  });
});

describe('the time line', () => {
  const wish = { sinceWallMs: 0, entriesMax: 100 };
  const bad = (seq: number, text: string): EngineEvent =>
    eventWith(10_000 - seq, { seq, kind: 'bad-block', replica: 'r-1', text });

  it('counts what repeats, also blocks of a disk that rots in many places', () => {
    const events = [bad(1, 'block at 0'), bad(2, 'block at 4096'), ...story('failed')];
    const [first, second] = timelineOf(events, wish);
    expect(first).toMatchObject({ text: 'block at 0', count: 2, alike: true });
    expect(second).toMatchObject({ kind: 'failed', count: 1, alike: false });
  });

  it('does not join what only looks alike', () => {
    const events = story('absent', 'failed', 'absent');
    expect(timelineOf(events, wish).map(({ kind }) => kind)).toEqual([
      'absent',
      'failed',
      'absent',
    ]);
  });

  it('goes back as far as was asked, by when something happened last', () => {
    const old = eventWith(3_600_000, { seq: 1, kind: 'absent', replica: 'r-2' });
    const again = { ...old, seq: 2, count: 9, lastWallMs: NOW - 1_000 };
    const sinceWallMs = NOW - 60_000;
    expect(timelineOf([old], { ...wish, sinceWallMs })).toEqual([]);
    expect(timelineOf([again], { ...wish, sinceWallMs })).toHaveLength(1);
    expect(timelineOf(story('a', 'b', 'c'), { ...wish, entriesMax: 2 })).toHaveLength(2);
  });
});
