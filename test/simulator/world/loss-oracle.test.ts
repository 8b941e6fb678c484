/** Which crashes are hard (F3): every copy that serves has lost something since it was whole. */
import { describe, expect, it } from 'vitest';
import { LossOracle, type LossyCopy } from './loss-oracle.js';

const copy = (): LossyCopy & { losses: number } => ({ lossy: false, losses: 0 });

function lose(...copies: ReadonlyArray<ReturnType<typeof copy>>): void {
  for (const one of copies) {
    one.lossy = true;
    one.losses += 1;
  }
}

describe('a crash (F3)', () => {
  it('is hard when every copy of the record has lost something', () => {
    const [one, two, oracle] = [copy(), copy(), new LossOracle()];
    lose(one);
    expect(oracle.serving([one, two], true)).toBe(false);
    lose(one, two);
    expect(oracle.serving([one, two], true)).toBe(true);
    expect(oracle.serving([one], true)).toBe(true);
  });

  it('is not hard because of a copy that a recovery made whole', () => {
    const [one, two, oracle] = [copy(), copy(), new LossOracle()];
    lose(one);
    oracle.serving([one, two], true);
    oracle.recovered();
    lose(two);
    expect(oracle.serving([one, two], true)).toBe(false);
  });

  it('is hard when the copy lost something again while it was being made whole', () => {
    const [one, two, oracle] = [copy(), copy(), new LossOracle()];
    lose(one);
    oracle.serving([one, two], true);
    lose(one);
    oracle.recovered();
    lose(two);
    expect(oracle.serving([one, two], true)).toBe(true);
  });

  it('counts a copy as whole that was promoted, unless it lost something on the way (P6)', () => {
    const [one, two, oracle] = [copy(), copy(), new LossOracle()];
    oracle.serving([one], false);
    lose(two);
    oracle.rebuilding(two);
    oracle.promoted(two);
    lose(one);
    expect(oracle.serving([one, two], true)).toBe(false);
    oracle.rebuilding(two);
    lose(two);
    oracle.promoted(two);
    expect(oracle.serving([one, two], true)).toBe(true);
  });

  it('forgets a rebuild that ended with its engine', () => {
    const [one, two, oracle] = [copy(), copy(), new LossOracle()];
    lose(two);
    oracle.rebuilding(two);
    oracle.serving([one], false);
    oracle.promoted(two);
    lose(one);
    expect(oracle.serving([one, two], true)).toBe(true);
  });
});
