/** What one engine tells Prometheus. Observers are bound once; recording is a few additions. */
import { Counter, Gauge, latencyHistogram, type Registry } from '../common/metrics.js';

export interface EngineCounters {
  readonly registry: Registry;
  readonly badCopies: Counter<'volume' | 'replica' | 'code'>;
  readonly repairs: Counter<'volume' | 'replica'>;
  readonly replicaFailures: Counter<'volume' | 'replica'>;
}

export interface EngineGauges {
  readonly volume: string;
  readonly sizeBytes: () => number;
  readonly inFlight: () => number;
  readonly dirtyRegions: () => number;
  readonly members: () => ReadonlyArray<{ replicaId: string; state: string }>;
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
  };
}

/** Gauges that are read when scraped. */
export function addEngineGauges(registry: Registry, gauges: EngineGauges): void {
  const { volume } = gauges;
  const simple = (name: string, help: string, read: () => number): Gauge<'volume'> =>
    new Gauge({
      name,
      help,
      labelNames: ['volume'],
      registers: [registry],
      collect() {
        this.set({ volume }, read());
      },
    });
  simple('aurochs_volume_size_bytes', 'Size of the volume.', gauges.sizeBytes);
  simple('aurochs_volume_in_flight', 'Client operations under way.', gauges.inFlight);
  simple(
    'aurochs_volume_dirty_regions',
    'Regions written since they were last cleaned.',
    gauges.dirtyRegions,
  );
  new Gauge({
    name: 'aurochs_volume_replica_state',
    help: '1 for the state that each replica is in.',
    labelNames: ['volume', 'replica', 'state'],
    registers: [registry],
    collect() {
      this.reset();
      for (const { replicaId, state } of gauges.members()) {
        this.set({ volume, replica: replicaId, state }, 1);
      }
    },
  });
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
