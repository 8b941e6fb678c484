import fc from 'fast-check';
import { expect, it } from 'vitest';
import { ReadLatency } from '../../../engine/core/read-latency.js';

it('knows a percentile to within its buckets, which double', () => {
  const latency = fc.double({ min: 0.02, max: 10_000, noNaN: true });
  fc.assert(
    fc.property(
      fc.array(latency, { minLength: 100, maxLength: 400 }),
      fc.constantFrom(0.5, 0.9, 0.99),
      (samples, part) => {
        const recent = new ReadLatency();
        for (const ms of samples) recent.note(ms);
        const sorted = [...samples].sort((a, b) => a - b);
        const exact = sorted[Math.ceil(samples.length * part) - 1] ?? 0;
        const found = recent.percentile(part) ?? 0;
        // Up to the next bucket, and a bucket of 16 us at the least.
        expect(found).toBeGreaterThanOrEqual(exact * 0.99);
        expect(found).toBeLessThanOrEqual(Math.max(0.064, exact * 2.1));
      },
    ),
  );
});

it('says nothing before it has seen enough, and forgets what was long ago', () => {
  const recent = new ReadLatency();
  for (let n = 0; n < 99; n += 1) recent.note(1);
  expect(recent.percentile(0.99)).toBeUndefined();
  for (let n = 0; n < 5_000; n += 1) recent.note(1_000);
  for (let n = 0; n < 30_000; n += 1) recent.note(1);
  expect(recent.percentile(0.9)).toBeLessThan(3);
  expect(recent.samples).toBeLessThanOrEqual(4_097);
});
