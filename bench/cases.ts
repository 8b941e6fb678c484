/** What is measured: the load of one benchmark case, independent of the target it runs on. */
import { KIB, MIB } from '../common/units.js';

export interface BenchCase {
  readonly name: string;
  readonly direction: 'write' | 'read';
  readonly pattern: 'random' | 'sequential';
  readonly blockBytes: number;
  /** requests in flight; with `flushEach` the number of clients, each with one request */
  readonly queueDepth: number;
  /** a flush after every write, by the same client, before its next write */
  readonly flushEach: boolean;
  /** part of `--quick` too */
  readonly quick: boolean;
}

function random(direction: 'write' | 'read', queueDepth: number): BenchCase {
  return {
    name: `rand${direction}-4k-qd${queueDepth}`,
    direction,
    pattern: 'random',
    blockBytes: 4 * KIB,
    queueDepth,
    flushEach: false,
    quick: queueDepth !== 16,
  };
}

function sequential(direction: 'write' | 'read'): BenchCase {
  return {
    name: `seq${direction}-1m-qd4`,
    direction,
    pattern: 'sequential',
    blockBytes: MIB,
    queueDepth: 4,
    flushEach: false,
    quick: true,
  };
}

function flushed(clients: number): BenchCase {
  return {
    ...random('write', clients),
    name: `flush-4k-x${clients}`,
    flushEach: true,
    quick: true,
  };
}

export const BENCH_CASES: readonly BenchCase[] = [
  random('write', 1),
  random('write', 16),
  random('write', 64),
  random('read', 1),
  random('read', 16),
  random('read', 64),
  sequential('write'),
  sequential('read'),
  flushed(1),
  flushed(16),
];
