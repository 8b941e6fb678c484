import { describe, expect, it } from 'vitest';
import { StorageError } from '../../../common/errors.js';
import { MIB } from '../../../common/units.js';
import { PACER_POLICY, Pacer, type PacerPolicy } from '../../../engine/recovery/pacer.js';
import { ManualClock } from '../../common/manual-clock.js';
import { outcome, turns } from '../../support/engine-bed.js';

function makePacer(policy: Partial<PacerPolicy> = {}) {
  const clock = new ManualClock();
  const state = { clientMs: Number.NEGATIVE_INFINITY };
  const pacer = new Pacer({
    clock,
    policy: { ...PACER_POLICY, ...policy },
    lastClientMs: () => state.clientMs,
  });
  const abort = new AbortController();
  const begun: number[] = [];
  const ends: Array<() => void> = [];
  /** Begins a piece of work; its number is noted when it runs. */
  const piece = (n: number, bytes: number): Promise<string> =>
    outcome(
      pacer.run(bytes, abort.signal, async () => {
        begun.push(n);
        await new Promise<void>((resolve) => ends.push(resolve));
      }),
    );
  return { clock, state, pacer, abort, begun, ends, piece };
}

describe('pacer', () => {
  it('idle: as many pieces and bytes as the window holds, in order', async () => {
    const { piece, begun, ends } = makePacer({ idle: { pieces: 3, bytes: 4 * MIB } });
    const work = [2, 2, 1, 1, 1].map((mib, n) => piece(n, mib * MIB));
    await turns(2);
    expect(begun).toEqual([0, 1]);
    ends.shift()?.();
    await turns(2);
    expect(begun).toEqual([0, 1, 2, 3]);
    for (let n = 0; n < 6; n += 1) {
      ends.shift()?.();
      await turns(2);
    }
    expect(await Promise.all(work)).toEqual(Array(5).fill('ok'));
  });

  it('one piece may run whatever its size', async () => {
    const { piece, begun } = makePacer({ idle: { pieces: 3, bytes: MIB } });
    void piece(0, 9 * MIB);
    void piece(1, 1);
    await turns(2);
    expect(begun).toEqual([0]);
  });

  it('busy: a small window, and a pause in proportion to what the piece took', async () => {
    const { piece, begun, ends, clock, state } = makePacer({
      ...{ busy: { pieces: 1, bytes: MIB }, busyPause: 2, busyRateMin: 1 },
    });
    state.clientMs = clock.nowMs();
    const work = [piece(0, 100), piece(1, 100)];
    await turns(2);
    expect(begun).toEqual([0]);
    clock.advance(30);
    state.clientMs = clock.nowMs();
    ends.shift()?.();
    await turns(2);
    clock.advance(59);
    state.clientMs = clock.nowMs();
    await turns(2);
    expect(begun).toEqual([0]);
    clock.advance(1);
    await turns(2);
    expect(begun).toEqual([0, 1]);
    ends.shift()?.();
    await turns(2);
    clock.advance(1);
    expect(await Promise.all(work)).toEqual(['ok', 'ok']);
  });

  it('busy for ever: no pause is so long that the copy would not end', async () => {
    const { piece, begun, ends, clock, state } = makePacer({
      ...{ busy: { pieces: 1, bytes: MIB }, busyPause: 100, busyRateMin: MIB },
    });
    state.clientMs = clock.nowMs();
    void piece(0, MIB);
    void piece(1, MIB);
    await turns(2);
    clock.advance(400);
    state.clientMs = clock.nowMs();
    ends.shift()?.();
    await turns(2);
    clock.advance(599);
    await turns(2);
    expect(begun).toEqual([0]);
    clock.advance(1);
    await turns(2);
    expect(begun).toEqual([0, 1]);
  });

  it('a rate limit holds over any time, whatever the window', async () => {
    const { piece, begun, ends, clock } = makePacer({ bytesPerSecond: 1000 });
    for (let n = 0; n < 5; n += 1) void piece(n, 500);
    for (let n = 0; n < 5; n += 1) {
      await turns(2);
      expect(begun).toHaveLength(n + 1);
      ends.shift()?.();
      clock.advance(499);
      await turns(2);
      expect(begun).toHaveLength(n + 1);
      clock.advance(1);
    }
  });

  it('a new policy takes effect for who waits', async () => {
    const { piece, begun, pacer } = makePacer({ idle: { pieces: 1, bytes: MIB } });
    for (let n = 0; n < 3; n += 1) void piece(n, 1);
    await turns(2);
    pacer.set({ ...PACER_POLICY, idle: { pieces: 3, bytes: MIB } });
    await turns(2);
    expect(begun).toEqual([0, 1, 2]);
  });

  it('aborted: who waits or pauses ends with the reason; places and timers come back', async () => {
    const { piece, begun, ends, clock, state, abort, pacer } = makePacer({
      ...{ idle: { pieces: 1, bytes: MIB }, busy: { pieces: 1, bytes: MIB } },
    });
    const work = [piece(0, MIB), piece(1, MIB)];
    await turns(2);
    clock.advance(10);
    state.clientMs = clock.nowMs();
    ends.shift()?.();
    await turns(2);
    expect(clock.pending).toBe(1);
    abort.abort(new StorageError('CLOSED', 'the tenure is over'));
    expect(await Promise.all(work)).toEqual(['CLOSED', 'CLOSED']);
    expect([begun, clock.pending]).toEqual([[0], 0]);
    clock.advance(1_000);
    expect(await outcome(pacer.run(1, new AbortController().signal, async () => 1))).toBe('ok');
  });

  it('work that fails gives its place back', async () => {
    const { pacer, abort, piece, begun } = makePacer({ idle: { pieces: 1, bytes: MIB } });
    const failed = pacer.run(1, abort.signal, async () => {
      throw new StorageError('IO_ERROR', 'no');
    });
    void piece(0, 1);
    expect(await outcome(failed)).toBe('IO_ERROR');
    await turns(2);
    expect(begun).toEqual([0]);
  });
});
