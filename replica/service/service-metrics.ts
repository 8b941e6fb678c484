/** The metrics of one replica daemon. Labels are bounded: op and code are closed lists, disks are
 *  few. */
import type { ErrorCode } from '../../common/errors.js';
import {
  Counter,
  Gauge,
  Histogram,
  latencyHistogram,
  type Registry,
} from '../../common/metrics.js';

export const SERVICE_OPS = [
  'read',
  'write',
  'flush',
  'trim',
  'write_zeroes',
  'map',
  'clean',
  'replace',
  'hash',
  'other',
] as const;
export type ServiceOp = (typeof SERVICE_OPS)[number];

/** What one disk shows when it is scraped. */
export interface DiskSample {
  readonly disk: string;
  readonly sizeBytes: number;
  readonly usedBytes: number;
  readonly reservedBytes: number;
  readonly state: 'ready' | 'failed' | 'refused';
}

/** Values that are read at scrape time instead of being counted on the way. */
export interface ServiceSampler {
  disks(): DiskSample[];
  dirtyRegions(): number;
  replicas(): number;
  streams(): number;
  requestsInFlight(): number;
}

/** Bound once: recording on the hot path is one call without a lookup by label. */
export class ServiceMetrics {
  readonly #latency: Record<ServiceOp, Histogram.Internal<'op'>>;
  /** plain numbers on the hot path; a counter only when somebody looks */
  readonly #moved = { read: 0, write: 0 };
  readonly #errors: Counter<'op' | 'code'>;
  readonly #corruptBlocks: Counter;
  readonly #batchReplies: Histogram;

  constructor(registry: Registry, sampler: ServiceSampler) {
    const latency = latencyHistogram<'op'>(registry, {
      name: 'aurochs_replica_request_seconds',
      help: 'Time from the arrival of a request to the hand-over of its reply.',
      labelNames: ['op'],
    });
    const bound = SERVICE_OPS.map((op) => [op, latency.labels(op)]);
    this.#latency = Object.fromEntries(bound);
    const moved = this.#moved;
    new Counter({
      name: 'aurochs_replica_bytes_total',
      help: 'Payload bytes of requests that succeeded.',
      labelNames: ['op'],
      registers: [registry],
      collect() {
        this.reset();
        this.inc({ op: 'read' }, moved.read);
        this.inc({ op: 'write' }, moved.write);
      },
    });
    this.#errors = new Counter({
      name: 'aurochs_replica_errors_total',
      help: 'Requests answered with an error, by its code.',
      labelNames: ['op', 'code'],
      registers: [registry],
    });
    this.#corruptBlocks = new Counter({
      name: 'aurochs_replica_corrupt_blocks_total',
      help: 'Reads that met a block whose content does not match its stored checksum.',
      registers: [registry],
    });
    this.#batchReplies = new Histogram({
      name: 'aurochs_replica_batch_replies',
      help: 'Replies per message to the engine.',
      buckets: [1, 2, 4, 8, 16, 32, 64, 128, 256],
      registers: [registry],
    });
    addSampled(registry, sampler);
  }

  done(op: ServiceOp, elapsedMs: number): void {
    this.#latency[op].observe(elapsedMs / 1e3);
  }

  moved(op: 'read' | 'write', lengthBytes: number): void {
    this.#moved[op] += lengthBytes;
  }

  failed(op: ServiceOp, code: ErrorCode): void {
    this.#errors.inc({ op, code });
    if (code === 'CORRUPT_BLOCK') this.#corruptBlocks.inc();
  }

  batched(replies: number): void {
    this.#batchReplies.observe(replies);
  }
}

function addSampled(registry: Registry, sampler: ServiceSampler): void {
  const gauge = (name: string, help: string, read: () => number): Gauge =>
    new Gauge({
      name,
      help,
      registers: [registry],
      collect() {
        this.set(read());
      },
    });
  gauge('aurochs_replica_requests_in_flight', 'Requests started and not yet answered.', () =>
    sampler.requestsInFlight(),
  );
  gauge('aurochs_replica_streams', 'Data streams that engines hold.', () => sampler.streams());
  gauge('aurochs_replica_replicas', 'Replicas on the disks of this daemon.', () =>
    sampler.replicas(),
  );
  gauge('aurochs_replica_dirty_regions', 'Regions with a dirty mark, all replicas.', () =>
    sampler.dirtyRegions(),
  );
  new Gauge({
    name: 'aurochs_disk_bytes',
    help: 'Bytes of a disk: size, used by extents, reserved.',
    labelNames: ['disk', 'kind'],
    registers: [registry],
    collect() {
      this.reset();
      for (const disk of sampler.disks()) {
        this.set({ disk: disk.disk, kind: 'size' }, disk.sizeBytes);
        this.set({ disk: disk.disk, kind: 'used' }, disk.usedBytes);
        this.set({ disk: disk.disk, kind: 'reserved' }, disk.reservedBytes);
      }
    },
  });
  new Gauge({
    name: 'aurochs_disk_ready',
    help: '1 while the disk serves, 0 when it failed or was refused.',
    labelNames: ['disk'],
    registers: [registry],
    collect() {
      this.reset();
      for (const disk of sampler.disks()) {
        this.set({ disk: disk.disk }, disk.state === 'ready' ? 1 : 0);
      }
    },
  });
}
