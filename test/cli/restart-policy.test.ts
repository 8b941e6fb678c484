import { describe, expect, it } from 'vitest';
import {
  DELAY_MS_MAX,
  FIRST_DELAY_MS,
  RestartPolicy,
  STABLE_MS,
} from '../../cli/restart-policy.js';

describe('RestartPolicy (scenario 8: crash loop)', () => {
  it('doubles up to the limit', () => {
    const policy = new RestartPolicy();
    const delays = Array.from({ length: 50 }, () => policy.nextDelayMs(100));
    expect(delays.slice(0, 3)).toEqual([FIRST_DELAY_MS, 2 * FIRST_DELAY_MS, 4 * FIRST_DELAY_MS]);
    expect(Math.max(...delays)).toBe(DELAY_MS_MAX);
    expect(delays.at(-1)).toBe(DELAY_MS_MAX);
    expect(policy.restarts).toBe(50);
  });

  it('starts from the first delay again after a long life', () => {
    const policy = new RestartPolicy();
    for (let count = 0; count < 10; count += 1) policy.nextDelayMs(0);
    expect(policy.nextDelayMs(STABLE_MS)).toBe(FIRST_DELAY_MS);
    expect(policy.nextDelayMs(STABLE_MS - 1)).toBe(2 * FIRST_DELAY_MS);
  });
});
