import { describe, expect, it } from 'vitest';
import { hintFor } from '../../../cli/explain/hints.js';
import { type ReplicaSituation, situationOf } from '../../../cli/explain/situation.js';
import { type Story, storyOf } from '../../../cli/explain/story.js';
import { storyText } from '../../../cli/explain/story-text.js';
import type { EngineEvent, EngineReplicaStatus, EngineStatus } from '../../../proto/control.js';
import { eventWith, replicaWith, statusWith, threeCopies } from '../volume-facts.js';

const MIB = 1024 ** 2;
const ENGINE = 'unix:/run/demo.sock';
const PROGRESS = {
  ...{ phase: 'copying' as const, doneBytes: 64 * MIB, totalBytes: 256 * MIB },
  ...{ bytesPerSecond: 16 * MIB, etaMs: 12_000 },
};

/** Out, with a reason, after two attempts. */
const out = (reason: string): Partial<EngineReplicaStatus> => ({
  ...{ state: 'failed', recordedState: 'failed', reason, attempts: 2, nextTryMs: 3_000 },
});

const slow = eventWith(60_000, { seq: 1, kind: 'slow', replica: 'r-1' });
const well = eventWith(30_000, { seq: 2, kind: 'in-sync', replica: 'r-1' });

describe('the situation of a replica', () => {
  const cases: ReadonlyArray<
    readonly [
      ReplicaSituation,
      Partial<EngineReplicaStatus>,
      EngineStatus['state'],
      readonly EngineEvent[],
    ]
  > = [
    ['in-sync', {}, 'healthy', []],
    ['rebuilding', { state: 'rebuilding', recordedState: 'failed' }, 'degraded', []],
    ['new', { state: 'failed', recordedState: 'rebuilding' }, 'degraded', []],
    ['excluding', { state: 'failed' }, 'degraded', []],
    ['needed', { state: 'failed', reason: 'UNAVAILABLE: gone' }, 'faulted', []],
    ['unreachable', out('UNAVAILABLE: connection refused'), 'degraded', []],
    ['unreachable', out('DEADLINE: no answer'), 'degraded', []],
    ['unreachable', { ...out('UNAVAILABLE: x'), recordedState: 'rebuilding' }, 'degraded', []],
    ['gone', out('NOT_FOUND: no daemon has replica r-1'), 'degraded', []],
    ['disk', out('IO_ERROR: write refused'), 'degraded', []],
    ['disk', out('REPLICA_FAILED: its disk failed'), 'degraded', []],
    ['disk', out('DISK_ROLLED_BACK: restored'), 'degraded', []],
    ['full', out('NO_SPACE: no free extent'), 'degraded', []],
    ['fenced', out('STALE_EPOCH: epoch 9'), 'degraded', []],
    ['foreign', out('IDENTITY_MISMATCH: another volume'), 'degraded', []],
    ['slow', { ...out('DEADLINE: set aside'), attempts: 0 }, 'degraded', [slow]],
    ['unreachable', { ...out('DEADLINE: x'), attempts: 0 }, 'degraded', [slow, well]],
    ['unreachable', out('UNAVAILABLE: refused'), 'degraded', [slow]],
    ['out', out('INTERNAL: oops'), 'degraded', []],
    ['out', out(''), 'degraded', []],
  ];
  it.each(cases)('%s: %j in a %s volume', (want, part, volume, events) => {
    expect(situationOf(replicaWith(part), volume, events)).toBe(want);
  });

  it('has a hint for each that needs a person, with commands that can be pasted', () => {
    const situations = new Set(cases.map(([situation]) => situation));
    for (const situation of situations) {
      const replica = replicaWith(out('X: y'));
      const hint = hintFor(situation, { volume: 'demo', engine: ENGINE, replica });
      expect(hint === '', situation).toBe(situation === 'in-sync');
      for (const [command] of hint.matchAll(/aurochs .*/g)) {
        expect(command, situation).toMatch(
          /^aurochs replica replace demo r-1 (ADDRESS|\S+:9601) --engine unix:\/run\/demo\.sock/,
        );
      }
    }
  });
});

function tell(status: EngineStatus, events: readonly EngineEvent[] = []): Story {
  return storyOf({ status, events, engine: ENGINE, sinceMs: 86_400_000 });
}

describe('explain: how it is, in one sentence', () => {
  it.each<[string, Partial<EngineStatus>, RegExp]>([
    ['healthy', {}, /^demo is healthy: 3 of 3 copies in sync, for 2 h at least\.$/],
    ['healthy since just now', { stateMs: 300 }, /^demo is healthy: 3 of 3 copies in sync\.$/],
    [
      'healthy, after an unclean stop',
      { unequalExtents: 640 },
      /in sync, for 2 h at least; 640 MiB are still made equal after an unclean stop, and what/,
    ],
    [
      'one out',
      { state: 'degraded', replicas: threeCopies({}, out('UNAVAILABLE: x')) },
      /^demo serves, degraded: 2 of 3 copies in sync; r-2 is out\.$/,
    ],
    [
      'one copy left, one catching up',
      {
        state: 'degraded',
        replicas: threeCopies({}, out('X: y'), {
          ...{ state: 'rebuilding', recordedState: 'failed', progress: PROGRESS },
        }),
      },
      new RegExp(
        '1 of 3 copies in sync; without the last one I/O would wait; r-2 is out, ' +
          'r-3 is catching up \\(copying 64MiB of 256MiB, 16MiB/s, 12 s left\\)\\.$',
      ),
    ],
    [
      'an exclusion is not recorded yet (P3)',
      { state: 'degraded', replicas: threeCopies({}, { state: 'failed' }) },
      /2 of 3 copies in sync; r-2 has just failed\.$/,
    ],
    [
      'all lost, I/O waits',
      {
        ...{ state: 'faulted', stateMs: 12_000, parkedOperations: 14, reason: 'nobody answers' },
        replicas: threeCopies({ state: 'failed' }, { state: 'failed' }, { state: 'failed' }),
      },
      new RegExp(
        '^demo does not serve, for 12 s; I/O waits \\(14 operations\\), ' +
          'and fails in 48 s: nobody answers\\.$',
      ),
    ],
    [
      'all lost, I/O fails',
      { state: 'faulted', stateMs: 75_000, refusing: true, reason: 'nobody answers.' },
      /^demo does not serve, for 1 min 15 s, and I\/O fails: nobody answers\.$/,
    ],
  ])('%s', (_name, part, want) => {
    expect(tell(statusWith(part)).sentence).toMatch(want);
  });
});

describe('explain: what to do', () => {
  it('is nothing while all copies are in sync', () => {
    expect(tell(statusWith()).todo).toEqual([]);
  });

  it('comes with what keeps the volume from serving first, salvage last', () => {
    const replicas = threeCopies(out('NO_SPACE: full'), { state: 'failed' }, { state: 'failed' });
    const { todo } = tell(statusWith({ state: 'faulted', replicas }));
    expect(todo.map((text) => text.split(':')[0])).toEqual([
      'r-2',
      'r-3',
      'r-1',
      'only if a copy that demo needs is lost for good',
    ]);
  });
});

describe('explain: the text', () => {
  const events = [
    eventWith(600_000, { seq: 1, kind: 'opened', text: 'opened: epoch 7', generation: 41 }),
    eventWith(190_000, {
      ...{ seq: 2, kind: 'failed', text: 'write refused', replica: 'r-2' },
      ...{ code: 'IO_ERROR', errno: 'EIO' },
    }),
    eventWith(189_000, {
      ...{ seq: 3, kind: 'excluded', text: 'excluded: 2 are left', replica: 'r-2' },
      generation: 42,
    }),
    {
      ...eventWith(180_000, { seq: 4, kind: 'absent', text: 'not back', replica: 'r-2' }),
      ...{ count: 14, lastWallMs: eventWith(20_000, { seq: 0, kind: '' }).wallMs },
    },
  ];
  const status = statusWith({
    ...{ state: 'degraded', generation: 42 },
    replicas: threeCopies({}, out('REPLICA_FAILED: its disk failed')),
  });

  it('leads from the cause to what is done now (3 a.m.)', () => {
    const text = storyText(tell(status, events), { zoneMinutes: 60, bar: false });
    const start = text.indexOf('r-2 at');
    expect(text.substring(start).split('\n').slice(0, 5)).toEqual([
      'r-2 at 10.0.0.2:9601: failed',
      '  now   is tried again in 3 s, attempt 3; last: REPLICA_FAILED: its disk failed',
      '  why   failed: write refused (EIO), 3 min 10 s ago',
      '     -> excluded: 2 are left [generation 41 -> 42], 3 min 9 s ago',
      '     -> absent: not back, 14 times in 2 min 40 s, last 20 s ago',
    ]);
    expect(text).toContain('What to do:\n  1. r-2: look at the disk of the daemon at 10.0.0.2:96');
    expect(text).toContain('What happened, newest last (UTC+01:00):\n  2026-11-24 04:10:00');
    expect(text.trimEnd().split('\n').at(-1)).toMatch(
      new RegExp(
        ' 2026-11-24 04:17:00 +20 s ago +r-2 +absent +not back ' +
          '\\(14 times\\), until 2026-11-24 04:19:40$',
      ),
    );
  });

  it('draws a bar for a person only', () => {
    const replicas = threeCopies({}, { state: 'rebuilding', progress: PROGRESS });
    const story = tell(statusWith({ state: 'degraded', replicas }));
    expect(storyText(story, { zoneMinutes: 0, bar: true })).toContain(
      '[######..................]  25%',
    );
    expect(storyText(story, { zoneMinutes: 0, bar: false })).not.toContain('[###');
  });

  it('tells of a trouble that is over for as long as the time line goes back', () => {
    const back = eventWith(10_000, { seq: 5, kind: 'in-sync', replica: 'r-2', generation: 43 });
    const facts = { status: statusWith(), events: [...events, back], engine: ENGINE };
    const chain = (sinceMs: number): number | undefined =>
      storyOf({ ...facts, sinceMs }).replicas[1]?.chain.length;
    expect([chain(3_600_000), chain(5_000)]).toEqual([4, 0]);
  });
});
