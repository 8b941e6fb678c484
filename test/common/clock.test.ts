import { describe, expect, it } from 'vitest';
import { SystemClock, sleep } from '../../common/clock.js';
import { ManualClock } from './manual-clock.js';

describe('sleep', () => {
  it('resolves after the delay, not before', async () => {
    const clock = new ManualClock();
    let done = false;
    const sleeping = sleep(clock, 100).then(() => {
      done = true;
    });
    clock.advance(99);
    await Promise.resolve();
    expect(done).toBe(false);
    clock.advance(1);
    await sleeping;
    expect(done).toBe(true);
  });

  it('rejects with the reason at once when aborted, and leaves no timer', async () => {
    const clock = new ManualClock();
    const abort = new AbortController();
    const sleeping = sleep(clock, 100, abort.signal);
    const reason = new Error('enough');
    abort.abort(reason);
    await expect(sleeping).rejects.toBe(reason);
    expect(clock.pending).toBe(0);
  });

  it('rejects when it was aborted before', async () => {
    const clock = new ManualClock();
    await expect(sleep(clock, 100, AbortSignal.abort('late'))).rejects.toBe('late');
    expect(clock.pending).toBe(0);
  });
});

describe('SystemClock', () => {
  it('is monotonic (scenario 75) and calls back once', async () => {
    const clock = new SystemClock();
    const startMs = clock.nowMs();
    let calls = 0;
    await new Promise<void>((resolve) => {
      clock.after(5, () => {
        calls += 1;
        resolve();
      });
    });
    expect(clock.nowMs() - startMs).toBeGreaterThanOrEqual(4);
    expect(calls).toBe(1);
  });

  it('calls nobody after cancel', async () => {
    const clock = new SystemClock();
    let called = false;
    clock
      .after(1, () => {
        called = true;
      })
      .cancel();
    await sleep(clock, 10);
    expect(called).toBe(false);
  });
});
