/** A stopped disk, locked and read without a change: no new nonce, no finished deletions, nothing
 *  written back. */

import { StorageError } from '../../common/errors.js';
import type { Logger } from '../../common/log.js';
import { Semaphore } from '../../common/semaphore.js';
import { MIB } from '../../common/units.js';
import type { ReplicaStore } from '../replica-store.js';
import { DirtyRegions } from '../store/dirty-regions.js';
import { ExtentCache } from '../store/extent-cache.js';
import { ExtentStore } from '../store/extent-store.js';
import type { Kv } from '../store/kv.js';
import { MetadataWriter } from '../store/metadata-writer.js';
import { type DiskServices, StoreContext } from '../store/store-context.js';
import { StoreCounters } from '../store/store-counters.js';
import type { ReplicaRecord } from './disk.js';
import type { ScannedReplica } from './metadata-scan.js';
import { type Mount, type MountOptions, mountDisk } from './mount.js';
import { DATA_OFFSET_BYTES } from './superblock.js';

const CACHE_BYTES = MIB;

export interface InspectedReplica {
  readonly record: ReplicaRecord;
  /** Only `read` and `map`; outside of `raw` only where `dirtyRegions` or `closedInOrder` say that
   *  checksums are true. */
  readonly store: ReplicaStore;
  readonly dirtyRegions: ReadonlySet<number>;
  readonly closedInOrder: boolean;
}

export interface Inspection {
  /** @throws StorageError CORRUPT_METADATA */
  open(volume: string): InspectedReplica | undefined;
  close(): Promise<void>;
}

/** @throws StorageError as openDisk; DISK_MISMATCH also for a disk that is not formatted */
export async function inspectDisk(
  options: Omit<MountOptions, 'purpose' | 'sizeBytes'> & { readonly log: Logger },
): Promise<Inspection> {
  const mount = await mountDisk({ ...options, purpose: 'inspect' });
  const services = readOnlyServices(mount, options);
  return {
    open: (volume) => openInspected(mount, services, volume),
    close: async () => {
      await mount.kv.close();
      await mount.device.close();
      mount.lock.release();
    },
  };
}

function openInspected(
  mount: Mount,
  services: DiskServices,
  volume: string,
): InspectedReplica | undefined {
  const replica = [...mount.scanned.replicas.values()].find(
    ({ record }) => record.volume === volume && !record.deleting,
  );
  if (replica === undefined) return undefined;
  if (replica.damage !== undefined) {
    throw new StorageError(
      'CORRUPT_METADATA',
      `volume ${volume} on ${mount.device.path}: ${replica.damage}`,
    );
  }
  const context = new StoreContext(services, { ...identityOf(replica) }, stateOf(replica));
  return {
    record: replica.record,
    store: new ExtentStore(context, () => undefined),
    dirtyRegions: new Set(replica.dirtyRegions),
    closedInOrder: replica.record.closed,
  };
}

function identityOf({ record, number }: ScannedReplica) {
  const { volume, replicaId, sizeBytes } = record;
  return { volume, replicaId, sizeBytes, number };
}

function stateOf({ record, map, dirtyRegions, tags }: ScannedReplica) {
  const regions = new DirtyRegions(map.extents);
  for (const region of dirtyRegions) regions.inherit(region, record.closed);
  return { map, regions, tags };
}

function readOnlyServices(
  mount: Mount,
  options: { readonly pool: MountOptions['pool']; readonly log: Logger },
): DiskServices {
  const counters = new StoreCounters();
  const refuse = (): never => {
    throw new StorageError('READ_ONLY', `disk ${mount.device.path} is being inspected`);
  };
  const kv: Kv = { ...readOnly(mount.kv), batch: async () => refuse() };
  const writer = new MetadataWriter({
    ...{ kv, counters, sums: mount.scanned.sums },
    onFailure: () => undefined,
    onReleased: () => undefined,
  });
  return {
    ...{ device: mount.device, kv, counters, writer, pool: options.pool, log: options.log },
    dataOffsetBytes: DATA_OFFSET_BYTES,
    cache: new ExtentCache(CACHE_BYTES, counters),
    proofTurn: new Semaphore('extent proof', 1, 1),
    cleanTurn: new Semaphore('region clean', 1, 1),
    allocate: refuse,
    giveBack: refuse,
    flush: async () => refuse(),
  };
}

function readOnly(kv: Kv): Kv {
  return {
    get: (key) => kv.get(key),
    iterate: (range) => kv.iterate(range),
    batch: (ops, options) => kv.batch(ops, options),
    close: () => kv.close(),
  };
}
