/**
 * One replica daemon: its disks, the replicas on them, and the listener that engines connect to.
 *
 * DIR is the data directory: `lock` (flock, held while running), `daemon.json` (identity),
 * `meta/<disk id>` (metadata of each disk). Start: lock -> identity -> disks -> replicas ->
 * listener. Stop is the reverse and answers what runs.
 */
import assert from 'node:assert';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { BufferPool } from '../common/block-device.js';
import type { Clock } from '../common/clock.js';
import { StorageError } from '../common/errors.js';
import type { Logger } from '../common/log.js';
import {
  createRegistry,
  type MetricsEndpoint,
  type Registry,
  serveMetrics,
} from '../common/metrics.js';
import { Semaphore } from '../common/semaphore.js';
import { MIB } from '../common/units.js';
import { createBufferPool, type FileLock, lockFile } from '../native/index.js';
import { replicaControlService } from '../proto/control.js';
import { listenTransport, type TransportListener, type TransportTls } from '../proto/transport.js';
import { ControlService } from './service/control-service.js';
import { type DaemonIdentity, loadDaemonIdentity } from './service/daemon-identity.js';
import { DiskSet } from './service/disk-set.js';
import type { DiskSpec } from './service/disk-spec.js';
import { ReplicaDirectory } from './service/replica-directory.js';
import { ReplicaSession } from './service/replica-session.js';
import { ServiceMetrics } from './service/service-metrics.js';
import { StreamService, WINDOW_BYTES } from './service/stream-service.js';

export interface DaemonOptions {
  /** `HOST:PORT` (0: any free port) or `unix:/path` */
  readonly listen: string;
  readonly dataDir: string;
  readonly disks: readonly DiskSpec[];
  readonly clusterId: string;
  readonly tls?: TransportTls | undefined;
  /** `HOST:PORT` of the Prometheus endpoint */
  readonly metrics?: string | undefined;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface Daemon {
  /** where engines reach it, with the real port */
  readonly address: string;
  readonly metricsAddress: string | undefined;
  readonly identity: DaemonIdentity;
  readonly registry: Registry;
  /** Takes nothing new, answers what runs, flushes, closes the disks. Idempotent. */
  stop(): Promise<void>;
}

// Memory, for a daemon of at most 150 MiB. What requests hold is admitted first, so that an
// admitted request always finds its buffer: the pool has room for slots that are up to half larger
// than asked, and for what the store reads for itself.
const ADMISSION_BYTES = 32 * MIB;
const POOL_BYTES = 64 * MIB;
/** Messages that arrive in pieces; past this they are put together in ordinary memory. */
const MESSAGE_POOL_BYTES = 24 * MIB;
/** of extent records, all disks together */
const CACHE_BYTES = 24 * MIB;
assert(ADMISSION_BYTES * 1.5 < POOL_BYTES && WINDOW_BYTES <= ADMISSION_BYTES);
const STREAMS_MAX = 256;

/** Resolves when the daemon serves. A disk that is refused is reported by Identify and in the log;
 *  the others serve.
 *  @throws StorageError DISK_LOCKED (another daemon has DIR) | CORRUPT_METADATA | IDENTITY_MISMATCH
 *    | INVALID_ARGUMENT | UNAVAILABLE (cannot listen) | the reason of a disk if no disk at all can
 *    be opened */
export async function startDaemon(options: DaemonOptions): Promise<Daemon> {
  const undo: Array<() => Promise<void> | void> = [];
  try {
    return await start(options, undo);
  } catch (error) {
    for (const step of undo.reverse()) await step();
    throw error;
  }
}

async function start(
  options: DaemonOptions,
  undo: Array<() => Promise<void> | void>,
): Promise<Daemon> {
  const { clock, log, dataDir } = options;
  const lock = await lockDataDir(dataDir);
  undo.push(() => lock.release());
  const identity = await loadDaemonIdentity(dataDir, options.clusterId);
  const pool = createBufferPool({ limitBytes: POOL_BYTES });
  const messages = createBufferPool({ limitBytes: MESSAGE_POOL_BYTES });
  const disks = await DiskSet.open(options.disks, {
    metaDir: join(dataDir, 'meta'),
    identity,
    pool,
    cacheBytes: CACHE_BYTES,
    clock,
    log,
  });
  undo.push(() => disks.close());
  const replicas = new ReplicaDirectory();
  const startedMs = clock.nowMs();
  addReplicas({ disks, replicas, clock, startedMs, log });

  const registry = createRegistry('replica');
  const streams = createStreams({ disks, replicas, pool, registry, clock, log });
  const control = new ControlService({ identity, disks, replicas, clock, startedMs, log });
  const listener = await listenTransport({
    address: options.listen,
    tls: options.tls,
    acquire: (lengthBytes) => messages.acquire(lengthBytes),
    onIoStream: (stream) => streams.accept(stream),
    services: [replicaControlService(control)],
    log,
    clock,
  });
  undo.push(() => listener.close());
  const endpoint = await openMetrics(options, registry, disks);
  log.info(
    {
      address: listener.address,
      metrics: endpoint?.address,
      daemon: identity.daemonId,
      incarnation: identity.incarnation,
    },
    'replica daemon serves',
  );
  let stopped: Promise<void> | undefined;
  const parts = { lock, disks, replicas, streams, control, listener, endpoint, log };
  return {
    address: listener.address,
    metricsAddress: endpoint?.address,
    identity,
    registry,
    stop: () => {
      stopped ??= stopParts(parts);
      return stopped;
    },
  };
}

function createStreams(parts: {
  disks: DiskSet;
  replicas: ReplicaDirectory;
  pool: BufferPool;
  registry: Registry;
  clock: Clock;
  log: Logger;
}): StreamService {
  const { disks, replicas, pool, registry, clock, log } = parts;
  const metrics = new ServiceMetrics(registry, {
    disks: () => disks.samples(),
    dirtyRegions: () => disks.dirtyRegions(),
    replicas: () => replicas.size,
    streams: () => streams.count,
    requestsInFlight: () => replicas.all().reduce((sum, r) => sum + r.running, 0),
  });
  const streams: StreamService = new StreamService({
    replicas,
    memory: new Semaphore('replica memory', ADMISSION_BYTES, STREAMS_MAX),
    pool,
    metrics,
    clock,
    log,
    streamsMax: STREAMS_MAX,
  });
  return streams;
}

/** @throws StorageError DISK_LOCKED | IO_ERROR */
async function lockDataDir(dataDir: string): Promise<FileLock> {
  try {
    await mkdir(dataDir, { recursive: true, mode: 0o700 });
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    throw new StorageError(
      code === 'EACCES' ? 'PERMISSION' : 'IO_ERROR',
      `cannot make data directory ${dataDir}: ${message}`,
      code === undefined ? {} : { errno: code },
      { cause },
    );
  }
  return lockFile(join(dataDir, 'lock'));
}

function addReplicas(parts: {
  disks: DiskSet;
  replicas: ReplicaDirectory;
  clock: Clock;
  startedMs: number;
  log: Logger;
}): void {
  const { disks, replicas, clock, startedMs, log } = parts;
  for (const disk of disks.opened()) {
    for (const summary of disk.replicas()) {
      if (replicas.has(summary.volume, summary.replicaId)) {
        // A disk that was copied block by block: of two replicas with one identity only one can be
        // served (scenario 56).
        log.error({ volume: summary.volume, replica: summary.replicaId }, 'replica found twice');
        continue;
      }
      replicas.add(new ReplicaSession({ disk, summary, clock, startedMs, log }));
    }
  }
}

async function openMetrics(
  options: DaemonOptions,
  registry: Registry,
  disks: DiskSet,
): Promise<MetricsEndpoint | undefined> {
  if (options.metrics === undefined) return undefined;
  return serveMetrics({
    registry,
    listen: options.metrics,
    unhealthyReason: () => disks.unhealthyReason(),
  });
}

async function stopParts(parts: {
  lock: FileLock;
  disks: DiskSet;
  replicas: ReplicaDirectory;
  streams: StreamService;
  control: ControlService;
  listener: TransportListener;
  endpoint: MetricsEndpoint | undefined;
  log: Logger;
}): Promise<void> {
  const { replicas, streams, control, listener, endpoint, disks, lock, log } = parts;
  streams.refuseNew();
  await control.stop();
  await Promise.all(replicas.all().map((replica) => replica.stop()));
  await streams.finish();
  await listener.close();
  await endpoint?.close();
  await disks.close();
  lock.release();
  log.info('replica daemon stopped');
}
