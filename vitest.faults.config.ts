import { defineConfig } from 'vitest/config';

/** One test at a time: each has several processes of its own, and some measure time. */
export default defineConfig({
  test: {
    include: ['test/faults/**/*.test.ts'],
    pool: 'forks',
    fileParallelism: false,
    testTimeout: 60_000,
    // Clearing away after a failure waits for what the kernel still has in flight.
    hookTimeout: 120_000,
    reporters: ['verbose'],
  },
});
