import { pino } from 'pino';
import { describe, expect, it } from 'vitest';
import { StorageError } from '../../../common/errors.js';
import { EXTENT_SIZE, EXTENTS_PER_REGION, REGION_SIZE } from '../../../common/units.js';
import { UnequalExtents } from '../../../engine/recovery/unequal-extents.js';
import { ManualClock } from '../../common/manual-clock.js';
import { outcome, turns } from '../../support/engine-bed.js';

const refusal = new StorageError('NO_REPLICA', 'waited long enough');

/** Batches of extents that are being made equal; the test ends each. */
class Work {
  readonly batches: Array<readonly number[]> = [];
  #ends: Array<(error: StorageError | undefined) => void> = [];

  readonly equalize = (extents: readonly number[]): Promise<void> => {
    this.batches.push(extents);
    return new Promise((resolve, reject) => {
      this.#ends.push((error) => (error === undefined ? resolve() : reject(error)));
    });
  };

  async end(error?: StorageError): Promise<void> {
    this.#ends.shift()?.(error);
    await turns(2);
  }

  /** Lets all pass until nothing is asked any more. */
  async endAll(): Promise<void> {
    while (this.#ends.length > 0) await this.end();
  }
}

function makeBed() {
  const clock = new ManualClock();
  let done = 0;
  const log = pino({ level: 'silent' });
  const unequal = new UnequalExtents({ clock, log, onDone: () => (done += 1) });
  return { clock, unequal, work: new Work(), abort: new AbortController(), done: () => done };
}

const at = (extent: number): number => extent * EXTENT_SIZE;
const bad = (code: 'CORRUPT_BLOCK' | 'IO_ERROR'): StorageError => new StorageError(code, 'no');

describe('extents that may differ (P5, R1)', () => {
  it('nothing of a suspect region passes before it is equal, all else does', async () => {
    const { unequal, work, abort } = makeBed();
    expect(unequal.active).toBe(false);
    expect(unequal.pending(0, 1)).toBeUndefined();
    unequal.begin([2, 1, 2], work.equalize, abort.signal);
    expect(unequal.active).toBe(true);
    expect(unequal.progress).toEqual({ left: 128, total: 128 });
    expect([0, 1, 2, 3].map((r) => unequal.touchesRegion(r))).toEqual([false, true, true, false]);
    expect(unequal.pending(0, REGION_SIZE)).toBeUndefined();
    expect(unequal.pending(3 * REGION_SIZE, 1)).toBeUndefined();
    expect(unequal.pending(REGION_SIZE - 1, 2)).toBeDefined();
    await work.endAll();
    expect(unequal.active).toBe(false);
    expect(unequal.touchesRegion(1)).toBe(false);
    expect(work.batches.flat()).toEqual(Array.from({ length: 128 }, (_, n) => 64 + n));
  });

  it('what an operation asks for is made equal ahead of the rest', async () => {
    const { unequal, work, abort } = makeBed();
    unequal.begin([0], work.equalize, abort.signal);
    let passed = false;
    const pending = unequal.pending(at(40), 2 * EXTENT_SIZE)?.then(() => {
      passed = true;
    });
    await work.end();
    expect(work.batches[1]).toEqual([40, 41]);
    expect(passed).toBe(false);
    await work.end();
    await pending;
    expect(unequal.pending(at(40), 2 * EXTENT_SIZE)).toBeUndefined();
    expect(unequal.progress.left).toBe(EXTENTS_PER_REGION - 16 - 2);
  });

  it('says once when all are equal; who waits for that is told', async () => {
    const { unequal, work, abort, done } = makeBed();
    await unequal.whenEqual();
    unequal.begin([0], work.equalize, abort.signal);
    let equal = false;
    const waiting = unequal.whenEqual().then(() => {
      equal = true;
    });
    await work.end();
    expect([equal, done()]).toEqual([false, 0]);
    await work.endAll();
    await waiting;
    expect(done()).toBe(1);
  });

  it('a member that broke meanwhile is no reason to give up: tried again soon', async () => {
    const { unequal, work, abort, clock } = makeBed();
    unequal.begin([0], work.equalize, abort.signal);
    const passed = outcome(unequal.pending(0, 1) ?? Promise.resolve());
    await work.end(bad('IO_ERROR'));
    expect(work.batches).toHaveLength(1);
    clock.advance(200);
    await turns(2);
    expect(work.batches[1]).toEqual([0]);
    await work.end();
    expect(await passed).toBe('ok');
  });
});

describe('an extent that cannot be made equal (scenario 43)', () => {
  it('fails who asks for it, and nobody else', async () => {
    const { unequal, work, abort, clock, done } = makeBed();
    unequal.begin([0], work.equalize, abort.signal);
    await work.end();
    const asked = [40, 41].map((e) => outcome(unequal.pending(at(e), 1) ?? Promise.resolve()));
    await work.end();
    expect(work.batches[2]).toEqual([40, 41]);
    await work.end(bad('CORRUPT_BLOCK'));
    expect(work.batches.slice(3)).toEqual([[40]]);
    await work.end(bad('CORRUPT_BLOCK'));
    expect(await asked[0]).toBe('CORRUPT_BLOCK');
    await work.end();
    expect(await asked[1]).toBe('ok');
    await work.endAll();
    expect(unequal.progress.left).toBe(1);
    expect(done()).toBe(0);
    expect(unequal.pending(at(41), EXTENT_SIZE)).toBeUndefined();
    // Tried again whenever somebody asks, and by itself from time to time.
    const again = outcome(unequal.pending(at(40), 1) ?? Promise.resolve());
    clock.advance(200);
    await turns(2);
    await work.end(bad('CORRUPT_BLOCK'));
    expect(await again).toBe('CORRUPT_BLOCK');
    clock.advance(5_000);
    await turns(2);
    clock.advance(200);
    await turns(2);
    await work.endAll();
    expect(unequal.active).toBe(false);
    expect(done()).toBe(1);
  });
});

describe('tenures come and go', () => {
  it('who waits goes on waiting, until whichever tenure has made it equal', async () => {
    const { unequal, work, abort } = makeBed();
    unequal.begin([0], work.equalize, abort.signal);
    let passed = false;
    const pending = unequal.pending(at(2), 1)?.then(() => {
      passed = true;
    });
    abort.abort(refusal);
    await work.end();
    expect(passed).toBe(false);
    expect(unequal.active).toBe(true);
    const next = new Work();
    unequal.begin([0], next.equalize, new AbortController().signal);
    expect(next.batches[0]).toEqual([2]);
    await next.end();
    await pending;
    expect(passed).toBe(true);
    await next.endAll();
    expect(unequal.active).toBe(false);
  });

  it('who waits for a region that is not suspect any more is let through', async () => {
    const { unequal, work, abort } = makeBed();
    unequal.begin([0], work.equalize, abort.signal);
    const pending = outcome(unequal.pending(0, 1) ?? Promise.resolve());
    const equal = outcome(unequal.whenEqual());
    abort.abort(refusal);
    unequal.begin([], work.equalize, new AbortController().signal);
    expect(await pending).toBe('ok');
    expect(await equal).toBe('ok');
    expect(unequal.active).toBe(false);
  });

  it('between tenures: who waits fails, and who comes, until the next begins', async () => {
    const { unequal, work, abort } = makeBed();
    unequal.begin([0], work.equalize, abort.signal);
    const before = outcome(unequal.pending(0, 1) ?? Promise.resolve());
    const equal = outcome(unequal.whenEqual());
    abort.abort(refusal);
    unequal.refuse(refusal);
    expect(await before).toBe('NO_REPLICA');
    expect(await equal).toBe('NO_REPLICA');
    expect(await outcome(unequal.pending(0, 1) ?? Promise.resolve())).toBe('NO_REPLICA');
    const next = new Work();
    unequal.begin([0], next.equalize, new AbortController().signal);
    const after = outcome(unequal.pending(0, 1) ?? Promise.resolve());
    await next.endAll();
    expect(await after).toBe('ok');
  });

  it('a batch that ends after its tenure marks nothing equal in the next', async () => {
    const { unequal, work, abort, done } = makeBed();
    unequal.begin([0], work.equalize, abort.signal);
    abort.abort(refusal);
    const next = new Work();
    unequal.begin([0], next.equalize, new AbortController().signal);
    await work.end();
    expect(unequal.progress.left).toBe(EXTENTS_PER_REGION);
    await next.endAll();
    expect(done()).toBe(1);
  });

  it('leaves no timer behind', async () => {
    const { unequal, work, abort, clock } = makeBed();
    unequal.begin([0], work.equalize, abort.signal);
    await work.end(bad('IO_ERROR'));
    expect(clock.pending).toBe(1);
    abort.abort(refusal);
    await turns(2);
    expect(clock.pending).toBe(0);
  });
});
