/** What one engine counts for Prometheus as it happens (the rest: engine-gauges.ts). Observers are
 *  bound once; recording is a few additions. */
import { Counter, latencyHistogram, type Registry } from '../common/metrics.js';

export interface EngineCounters {
  readonly registry: Registry;
  readonly badCopies: Counter<'volume' | 'replica' | 'code'>;
  readonly repairs: Counter<'volume' | 'replica'>;
  readonly replicaFailures: Counter<'volume' | 'replica'>;
  readonly events: Counter<'volume' | 'kind'>;
}

export function createEngineCounters(registry: Registry): EngineCounters {
  return {
    registry,
    badCopies: new Counter({
      name: 'aurochs_engine_bad_copies_total',
      help: 'Reads that one replica could not serve and another had to.',
      labelNames: ['volume', 'replica', 'code'],
      registers: [registry],
    }),
    repairs: new Counter({
      name: 'aurochs_engine_repaired_blocks_total',
      help: 'Blocks of a replica that were rewritten from a good copy.',
      labelNames: ['volume', 'replica'],
      registers: [registry],
    }),
    replicaFailures: new Counter({
      name: 'aurochs_engine_replica_failures_total',
      help: 'Replicas that left the in-sync set.',
      labelNames: ['volume', 'replica'],
      registers: [registry],
    }),
    events: new Counter({
      name: 'aurochs_volume_events_total',
      help: 'Events of the volume by kind, repeated ones too.',
      labelNames: ['volume', 'kind'],
      registers: [registry],
    }),
  };
}

export const OPS = ['read', 'write', 'flush', 'trim', 'zero', 'status'] as const;
export type OpName = (typeof OPS)[number];

/** Seconds per client operation, one bound observer per kind. */
export function operationObservers(
  registry: Registry,
  volume: string,
): Readonly<Record<OpName, (seconds: number) => void>> {
  const histogram = latencyHistogram(registry, {
    name: 'aurochs_volume_operation_seconds',
    help: 'Latency of client operations, from admission to reply.',
    labelNames: ['volume', 'op'],
  });
  const observe = (op: OpName): ((seconds: number) => void) => {
    const bound = histogram.labels({ volume, op });
    return (seconds) => bound.observe(seconds);
  };
  return {
    read: observe('read'),
    write: observe('write'),
    flush: observe('flush'),
    trim: observe('trim'),
    zero: observe('zero'),
    status: observe('status'),
  };
}
