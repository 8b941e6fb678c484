import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SLOW_POLICY, SlowJudge, type SlowSample } from '../../../engine/core/slow-judge.js';

const { forMs, backOffMs, backOffMaxMs, forgiveMs } = SLOW_POLICY;
const SECOND = 1_000;

const samples = (...latencies: number[]): SlowSample[] =>
  latencies.map((latencyMs, n) => ({ replicaId: 'abcdef'[n] as string, latencyMs }));

/** Looks once a second; when a member was set aside, and which. */
function watch(
  judge: SlowJudge,
  fromMs: number,
  toMs: number,
  sample: (nowMs: number) => readonly SlowSample[],
): Array<readonly [atMs: number, replicaId: string]> {
  const found: Array<readonly [number, string]> = [];
  for (let now = fromMs; now <= toMs; now += SECOND) {
    const verdict = judge.look(sample(now), now);
    if (verdict !== undefined) found.push([now, verdict.replicaId]);
  }
  return found;
}

describe('a slow member (scenario 20)', () => {
  it.each([
    { name: 'an outlier of three', latencies: [1, 1, 200], slow: 'c' },
    { name: 'all are slow: a slow set is not one slow member', latencies: [200, 210, 220] },
    { name: 'five times as slow as fast is no matter below the floor', latencies: [1, 1, 20] },
    { name: 'far above the floor, but not by the factor', latencies: [100, 100, 400] },
    { name: 'two members: too few would be left', latencies: [1, 500] },
    { name: 'one member', latencies: [500] },
    { name: 'of two outliers the worse goes first', latencies: [1, 1, 1, 300, 400], slow: 'e' },
  ])('$name', ({ latencies, slow }) => {
    const found = watch(new SlowJudge(), 0, forMs, () => samples(...latencies));
    expect(found).toEqual(slow === undefined ? [] : [[forMs, slow]]);
  });

  it('is set aside only after it was slow for long without a break', () => {
    const judge = new SlowJudge();
    const oneGood = (now: number): SlowSample[] => samples(1, 1, now === 7 * SECOND ? 2 : 500);
    expect(watch(judge, 0, 40 * SECOND, oneGood)[0]).toEqual([8 * SECOND + forMs, 'c']);
  });

  it('that answers only every few seconds is judged, too', () => {
    const judge = new SlowJudge();
    const rarely = (now: number): SlowSample[] =>
      now % (5 * SECOND) === 0 ? samples(1, 1, 4_000) : [];
    expect(watch(judge, 0, 30 * SECOND, rarely)[0]).toEqual([forMs, 'c']);
  });

  it('is not judged by what it was before a long silence', () => {
    const judge = new SlowJudge();
    const busy = (now: number): SlowSample[] =>
      now === 0 || now >= 3_600 * SECOND ? samples(1, 1, 500) : [];
    const found = watch(judge, 0, 3_700 * SECOND, busy);
    expect(found[0]).toEqual([3_600 * SECOND + forMs, 'c']);
  });
});

describe('never flaps (scenario 27)', () => {
  /** Slow whenever it is here: comes back when its back-off has ended. */
  function setAsides(times: number): number[] {
    const judge = new SlowJudge();
    const at: number[] = [];
    for (let now = 0; at.length < times; now += SECOND) {
      if (judge.backOffMs('c', now) > 0) continue;
      if (judge.look(samples(1, 1, 500), now) !== undefined) at.push(now);
    }
    return at;
  }

  it('each time it stays away twice as long, up to a bound', () => {
    const at = setAsides(10);
    const away = at.slice(1).map((ms, n) => ms - (at[n] as number) - forMs);
    const want = away.map((_, n) => Math.min(backOffMaxMs, backOffMs * 2 ** n));
    expect(away).toEqual(want);
  });

  it('after it has behaved for long the back-off begins anew', () => {
    const judge = new SlowJudge();
    const [first] = watch(judge, 0, forMs, () => samples(1, 1, 500));
    const since = first?.[0] ?? 0;
    expect(judge.backOffMs('c', since)).toBe(backOffMs);
    const later = since + forgiveMs + SECOND;
    watch(judge, later, later + forMs, () => samples(1, 1, 500));
    expect(judge.backOffMs('c', later + forMs)).toBe(backOffMs);
  });

  it('a member that was never set aside has no back-off', () => {
    expect(new SlowJudge().backOffMs('c', 0)).toBe(0);
  });

  it('whatever the latencies do: at most one at a time, none twice within its back-off', () => {
    const latency = fc.oneof(fc.constant(1), fc.integer({ min: 0, max: 1000 }));
    const look = fc.array(latency, { minLength: 0, maxLength: 5 });
    fc.assert(
      fc.property(fc.array(look, { minLength: 20, maxLength: 200 }), (looks) => {
        const judge = new SlowJudge();
        const last = new Map<string, number>();
        for (const [n, latencies] of looks.entries()) {
          const now = n * 2 * SECOND;
          const here = samples(...latencies).filter((s) => judge.backOffMs(s.replicaId, now) === 0);
          const verdict = judge.look(here, now);
          if (verdict === undefined) continue;
          expect(here.length).toBeGreaterThan(SLOW_POLICY.othersMin);
          const before = last.get(verdict.replicaId);
          if (before !== undefined) expect(now - before).toBeGreaterThanOrEqual(backOffMs + forMs);
          last.set(verdict.replicaId, now);
        }
      }),
    );
  });
});
