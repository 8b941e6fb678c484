/**
 * One formatted disk with the replicas on it: what the daemon sees.
 *
 * A disk is a block device or a file, paired with one LevelDB under the daemon's data directory
 * (docs/on-disk-format.md). Either without the other is refused, and so is anything older, shorter
 * or foreign.
 */
import { randomBytes as nodeRandomBytes } from 'node:crypto';
import type { BlockDevice, BufferPool } from '../../common/block-device.js';
import type { Clock } from '../../common/clock.js';
import type { Logger } from '../../common/log.js';
import { openBlockDevice } from '../../native/index.js';
import type { Membership } from '../../proto/control.js';
import type { ReplicaStore } from '../replica-store.js';
import type { OpenKv } from '../store/kv.js';
import { openLevelKv } from '../store/level-kv.js';
import type { StoreCounters } from '../store/store-counters.js';
import { DirectoryMetaHome, type MetaHome } from './meta-home.js';
import { mountDisk } from './mount.js';
import { MountedDisk } from './mounted-disk.js';

export interface DiskIdentity {
  readonly clusterId: string;
  readonly daemonId: string;
}

export interface DiskOptions {
  /** a block device or a file */
  readonly path: string;
  /** A missing file is made sparse with this size, and formatted. Undefined: the path must
   *  exist. */
  readonly sizeBytes?: number;
  /** Directory of this daemon's disk metadata; one directory per disk id is made in it. */
  readonly metaDir: string;
  readonly identity: DiskIdentity;
  /** P7: of this opening of the disk; no other one had it */
  readonly incarnation: string;
  /** of this start of the kernel: tells a kill from a loss of power (P10) */
  readonly bootId: string;
  readonly pool: BufferPool;
  readonly log: Logger;
  readonly clock: Clock;
  /** Never made and never formatted, for a disk that comes back. Default: false. */
  readonly reuse?: boolean;
  /** Any other disk is refused. */
  readonly diskId?: string;
  /** D3: un-flushed writes were lost since it was opened last, in this process */
  readonly lostWrites?: boolean;
  /** Called once, when the disk fails. */
  readonly onFailed?: () => void;
  /** Kept back from volumes, in bytes; default 2 % of the disk, at most 4 GiB. */
  readonly reserveBytes?: number;
  /** Memory for extent records of this disk; default 24 MiB. */
  readonly cacheBytes?: number;
  /** Opens the device for exclusive use; default: native, with a lock. */
  readonly openDevice?: (path: string) => Promise<BlockDevice>;
  /** default: LevelDB */
  readonly openKv?: OpenKv;
  /** The files around the disk; default: in `metaDir`. */
  readonly home?: MetaHome;
  /** default: node:crypto */
  readonly randomBytes?: (lengthBytes: number) => Buffer;
}

/** What one replica keeps beside its blocks; durable before any call that changes it resolves. */
export interface ReplicaRecord {
  readonly volume: string;
  readonly replicaId: string;
  readonly sizeBytes: number;
  /** highest that was ever opened (P4) */
  readonly epoch: number;
  /** engine of that epoch; '' if not known */
  readonly engineId: string;
  /** engine of the epoch that was persisted before that one; '' if there was none */
  readonly previousEngineId: string;
  readonly membership: Membership;
  /** incarnation and boot of the daemon that last opened it */
  readonly lastIncarnation: string;
  readonly bootId: string;
  /** P10: power was lost while regions were dirty, and not every one of those was cleaned since */
  readonly lossy: boolean;
}

export interface CreateReplicaOptions {
  readonly volume: string;
  readonly sizeBytes: number;
  readonly replicaId: string;
  readonly membership: Membership;
}

/** One opened replica. Control calls are not meant to overlap each other; the store's calls may
 *  overlap anything. */
export interface ReplicaHandle {
  readonly volume: string;
  readonly replicaId: string;
  readonly sizeBytes: number;
  readonly record: ReplicaRecord;
  readonly epoch: number;
  readonly engineId: string;
  readonly membership: Membership;
  /** The data path. Another object after `reopen`. */
  readonly store: ReplicaStore;
  /** P7: another one after each load; that of the disk for the first one. */
  readonly incarnation: string;
  readonly counters: StoreCounters;
  /** Regions were dirty when this replica was opened, and not each of them was cleaned since.
   *  What was in flight there is forgotten, however orderly the stop: they must be compared. */
  readonly restartedDirty: boolean;
  /** P10: no source. Sticky until every region that was dirty then has been cleaned, a new era
   *  accepts the loss, or `noteComplete`. */
  readonly lossy: boolean;
  /** P4, R5: durable before it resolves. @throws StorageError STALE_EPOCH (lower than the persisted
   *  one) | IO_ERROR */
  setEpoch(epoch: number, engineId: string): Promise<void>;
  /** R3: durable before it resolves; the order of records is the caller's. @throws StorageError
   *  IO_ERROR | CLOSED */
  setMembership(membership: Membership): Promise<void>;
  /** P10: this copy was made equal to one that holds every acknowledged write, and flushed: it is
   *  not lossy any more. Durable before it resolves. @throws StorageError IO_ERROR | CLOSED */
  noteComplete(): Promise<void>;
  /** P7, P8: loads a failed replica anew from its disk, as another incarnation. Its dirty regions
   *  count as after a restart: what their stored checksums say is not believed.
   *  @throws StorageError REPLICA_FAILED (the disk itself has failed) | CORRUPT_METADATA |
   *    IO_ERROR */
  reopen(): Promise<void>;
  /** Waits for what is in flight, makes everything durable, releases. Idempotent; never throws:
   *  a failure is logged, and the next start sees an unclean stop. */
  close(): Promise<void>;
}

/** What is known of a replica without opening it. */
export interface ReplicaSummary extends ReplicaRecord {
  /** as the handle says it, or would if it was opened now */
  readonly restartedDirty: boolean;
  readonly incarnation: string;
  readonly allocatedBytes: number;
  readonly dirtyRegions: number;
  /** why it cannot be opened, or has failed */
  readonly failedReason: string | undefined;
}

export interface Disk {
  readonly id: string;
  readonly path: string;
  readonly sizeBytes: number;
  /** allocated extents, and freed ones whose freeing is not durable yet */
  readonly usedBytes: number;
  readonly reservedBytes: number;
  /** failed: a flush or the metadata failed (D3, P8); every replica on it has failed until the disk
   *  is opened again */
  readonly state: 'ready' | 'failed';
  readonly reason: string;
  /** D3: a flush has failed, of the device or of metadata */
  readonly lostWrites: boolean;
  readonly counters: StoreCounters;
  replicas(): ReplicaSummary[];
  /** Durable before it resolves (R7). The same replica again is no change.
   *  @throws StorageError CONFLICT (another replica or size of that volume) | LIMIT_EXCEEDED |
   *    IO_ERROR */
  createReplica(options: CreateReplicaOptions): Promise<void>;
  /** @throws StorageError NOT_FOUND | CONFLICT (already open) | CORRUPT_METADATA |
   *    REPLICA_FAILED */
  openReplica(volume: string): Promise<ReplicaHandle>;
  /** The bytes are unreadable and the name is free once it resolves; a crash in the middle is
   *  finished at the next open. A replica that is not there is no error. @throws StorageError
   *  CONFLICT (open) | IO_ERROR */
  deleteReplica(volume: string): Promise<void>;
  /** Closes every replica, then seals the disk. Idempotent; never throws. */
  close(): Promise<void>;
}

/** Opens or, where it is provably empty, formats a disk.
 *  @throws StorageError DISK_FOREIGN | DISK_NOT_EMPTY | DISK_TRUNCATED | DISK_ROLLED_BACK |
 *  DISK_MISMATCH | DISK_LOCKED | INVALID_ARGUMENT | VERSION_UNSUPPORTED | CORRUPT_METADATA |
 *  NO_SPACE (too small) | NOT_FOUND | IO_ERROR
 *  @see docs/on-disk-format.md#opening */
export async function openDisk(options: DiskOptions): Promise<Disk> {
  const randomBytes = options.randomBytes ?? nodeRandomBytes;
  const home = options.home ?? new DirectoryMetaHome(options.metaDir);
  const mount = await mountDisk({
    path: options.path,
    ...(options.sizeBytes === undefined ? {} : { sizeBytes: options.sizeBytes }),
    ...(options.diskId === undefined ? {} : { diskId: options.diskId }),
    purpose: options.reuse === true ? 'reuse' : 'use',
    identity: options.identity,
    home,
    pool: options.pool,
    openDevice: options.openDevice ?? ((path) => openBlockDevice(path, { exclusive: true })),
    openKv: options.openKv ?? openLevelKv,
    randomBytes,
  });
  const disk = new MountedDisk({ mount, home, disk: options, randomBytes });
  try {
    await disk.start();
  } catch (error) {
    await disk.close();
    throw error;
  }
  return disk;
}
