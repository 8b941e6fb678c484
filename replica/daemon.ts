/**
 * One replica daemon: its disks, the replicas on them, and the listener that engines connect to.
 *
 * DIR is the data directory: `lock` (flock, held while running), `daemon.json` (identity),
 * `meta/<disk id>` (metadata of each disk). Start: lock -> identity -> disks -> replicas ->
 * listener. Stop is the reverse and answers what runs.
 */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../common/clock.js';
import { StorageError } from '../common/errors.js';
import type { Logger } from '../common/log.js';
import {
  createRegistry,
  type MetricsEndpoint,
  type Registry,
  serveMetrics,
} from '../common/metrics.js';
import { MIB } from '../common/units.js';
import { createBufferPool, type FileLock, lockFile } from '../native/index.js';
import { replicaControlService } from '../proto/control.js';
import { listenTransport, type TransportListener, type TransportTls } from '../proto/transport.js';
import { type DaemonIdentity, loadDaemonIdentity } from './service/daemon-identity.js';
import { DiskSet } from './service/disk-set.js';
import type { DiskSpec } from './service/disk-spec.js';
import { POOL_BYTES_MIN, ReplicaService } from './service/replica-service.js';
import type { EndOfTurn } from './service/reply-batcher.js';

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
  /** default: setImmediate */
  readonly endOfTurn?: EndOfTurn;
  /** draws ids that no other call ever draws; default: random UUIDs */
  readonly randomId?: () => string;
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

// Memory, for a daemon of at most 150 MiB: that of requests, and this.
/** Messages that arrive in pieces; past this they are put together in ordinary memory. */
const MESSAGE_POOL_BYTES = 24 * MIB;
/** of extent records, all disks together */
const CACHE_BYTES = 24 * MIB;

/** Resolves when the daemon serves. A disk that is refused is reported by Identify and in the log,
 *  and tried again; the others serve.
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
  const { clock, log, dataDir, randomId } = options;
  const lock = await lockDataDir(dataDir);
  undo.push(() => lock.release());
  const identity = await loadDaemonIdentity(dataDir, options.clusterId, randomId);
  const pool = createBufferPool({ limitBytes: POOL_BYTES_MIN });
  const messages = createBufferPool({ limitBytes: MESSAGE_POOL_BYTES });
  const metaDir = join(dataDir, 'meta');
  const disks = await DiskSet.open(options.disks, {
    ...{ metaDir, identity, pool, cacheBytes: CACHE_BYTES, clock, log },
  });
  undo.push(() => disks.close());
  const registry = createRegistry('replica');
  const endOfTurn = options.endOfTurn ?? ((callback) => void setImmediate(callback));
  const service = new ReplicaService({ identity, disks, pool, registry, clock, endOfTurn, log });
  undo.push(() => service.stop());
  const listener = await listenTransport({
    address: options.listen,
    tls: options.tls,
    acquire: (lengthBytes) => messages.acquire(lengthBytes),
    onIoStream: (stream) => service.accept(stream),
    services: [replicaControlService(service.control)],
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
  const parts = { lock, disks, service, listener, endpoint, log };
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
  service: ReplicaService;
  listener: TransportListener;
  endpoint: MetricsEndpoint | undefined;
  log: Logger;
}): Promise<void> {
  const { service, listener, endpoint, disks, lock, log } = parts;
  await service.stop();
  await listener.close();
  await endpoint?.close();
  await disks.close();
  lock.release();
  log.info('replica daemon stopped');
}
