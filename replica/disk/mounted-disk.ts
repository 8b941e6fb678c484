/** A disk in use: its replicas, its space, and the one metadata writer and device flush that they
 *  share. */
import { type ErrorCode, StorageError, toStorageError } from '../../common/errors.js';
import { checkName } from '../../common/names.js';
import { Semaphore } from '../../common/semaphore.js';
import { EXTENT_SIZE, formatSize, GIB, MIB, VOLUME_SIZE_MAX } from '../../common/units.js';
import { ExtentCache } from '../store/extent-cache.js';
import { ExtentMap } from '../store/extent-map.js';
import { replicaKey } from '../store/keys.js';
import { MetadataWriter } from '../store/metadata-writer.js';
import { RegionTags } from '../store/region-tags.js';
import type { DiskServices } from '../store/store-context.js';
import { StoreCounters } from '../store/store-counters.js';
import type {
  CreateReplicaOptions,
  Disk,
  DiskOptions,
  ReplicaHandle,
  ReplicaSummary,
} from './disk.js';
import { ExtentSupply } from './extent-supply.js';
import { FlushGroup } from './flush-group.js';
import type { MetaHome } from './meta-home.js';
import type { ScannedReplica } from './metadata-scan.js';
import { fillDiskRecord, type Mount, renewNonce } from './mount.js';
import { incarnationOf, OpenedReplica } from './opened-replica.js';
import { removeReplica } from './replica-removal.js';
import { rewriteUnflushed } from './rewrite-unflushed.js';
import {
  howItWasLeft,
  isVolumeSize,
  type StoredReplica,
  storedReplicaBody,
} from './stored-replica.js';
import { DATA_OFFSET_BYTES } from './superblock.js';

const CACHE_BYTES_DEFAULT = 24 * MIB;
const RESERVE_BYTES_MAX = 4 * GIB;
const RESERVE_PART = 0.02;
const REPLICAS_MAX = 4096;
/** Callers that may wait for a turn; admission above keeps far below. */
const TURN_WAITERS_MAX = 65536;

export interface MountedDiskOptions {
  readonly mount: Mount;
  readonly home: MetaHome;
  readonly disk: DiskOptions;
  readonly randomBytes: (lengthBytes: number) => Buffer;
}

export class MountedDisk implements Disk {
  readonly counters = new StoreCounters();
  readonly #options: MountedDiskOptions;
  readonly #mount: Mount;
  readonly #writer: MetadataWriter;
  readonly #supply: ExtentSupply;
  readonly #services: DiskServices;
  readonly #reserveExtents: number;
  readonly #byVolume = new Map<string, ScannedReplica>();
  readonly #opened = new Map<string, OpenedReplica>();
  /** volumes being created, opened or deleted */
  readonly #changing = new Set<string>();
  #failure: StorageError | undefined;
  #lostWrites = false;
  /** the note of lost writes, being put down */
  #noted: Promise<void> = Promise.resolve();
  #closing: Promise<void> | undefined;

  constructor(options: MountedDiskOptions) {
    this.#options = options;
    this.#mount = options.mount;
    const { device, kv, scanned } = options.mount;
    const { log, pool } = options.disk;
    const { counters } = this;
    const onFailure = (error: Error, synced = true): void => this.#fail(error, synced);
    this.#reserveExtents = reserveOf(scanned.space.extents, options.disk.reserveBytes);
    this.#writer = new MetadataWriter({
      kv,
      counters,
      sums: scanned.sums,
      onFailure,
      onReleased: (physical) => this.#supply.release(physical),
    });
    const flushes = new FlushGroup(device, counters, onFailure);
    this.#supply = new ExtentSupply({
      ...{ device, counters, log, space: scanned.space, reserveExtents: this.#reserveExtents },
      offsetBytes: DATA_OFFSET_BYTES,
      flush: () => flushes.flush(),
      syncFreed: () => this.#writer.sync(),
      freedWaiting: () => this.#writer.freedWaiting,
    });
    this.#services = {
      ...{ device, pool, kv, counters, log, writer: this.#writer },
      dataOffsetBytes: DATA_OFFSET_BYTES,
      cache: new ExtentCache(options.disk.cacheBytes ?? CACHE_BYTES_DEFAULT, counters),
      proofTurn: new Semaphore('extent proof', 1, TURN_WAITERS_MAX),
      cleanTurn: new Semaphore('region clean', 1, TURN_WAITERS_MAX),
      allocate: () => this.#supply.allocate(),
      giveBack: (physical) => this.#supply.giveBack(physical),
      flush: () => flushes.flush(),
    };
  }

  /** Renews the nonce, notes what was lost, and finishes deletions that a crash interrupted. */
  async start(): Promise<void> {
    await this.#renewNonce();
    if (this.#mount.note.lostWrites === true || this.#options.disk.lostWrites === true) {
      await this.#markLossy();
    }
    for (const replica of this.#mount.scanned.replicas.values()) {
      if (replica.record.deleting) await this.#remove(replica);
      else this.#byVolume.set(replica.record.volume, replica);
    }
  }

  get id(): string {
    return this.#mount.superblock.diskId;
  }

  get path(): string {
    return this.#options.disk.path;
  }

  get sizeBytes(): number {
    return this.#mount.device.sizeBytes;
  }

  get usedBytes(): number {
    return this.#mount.scanned.space.takenCount * EXTENT_SIZE;
  }

  get reservedBytes(): number {
    return this.#reserveExtents * EXTENT_SIZE;
  }

  get state(): 'ready' | 'failed' {
    return this.#failure === undefined ? 'ready' : 'failed';
  }

  get reason(): string {
    return this.#failure?.message ?? '';
  }

  get lostWrites(): boolean {
    return this.#lostWrites;
  }

  replicas(): ReplicaSummary[] {
    return [...this.#byVolume.values()].map((replica) => {
      const { closed: _closed, deleting: _deleting, ...record } = replica.record;
      const opened = this.#opened.get(record.volume);
      const failedReason = opened?.store.failedReason ?? replica.damage ?? this.#failure?.message;
      const dirtyRegions = opened?.dirtyCount ?? replica.dirtyRegions.length;
      const { bootId, incarnation } = this.#options.disk;
      return {
        ...record,
        ...(opened?.left ?? howItWasLeft(replica.record, dirtyRegions, bootId)),
        incarnation: incarnationOf(replica, incarnation),
        allocatedBytes: replica.map.allocated * EXTENT_SIZE,
        dirtyRegions,
        failedReason,
      };
    });
  }

  async createReplica(options: CreateReplicaOptions): Promise<void> {
    const { volume, replicaId, sizeBytes, membership } = options;
    checkName(volume, 'volume');
    checkName(replicaId, 'replica');
    if (!isVolumeSize(sizeBytes)) {
      const limit = formatSize(VOLUME_SIZE_MAX);
      const text = `volume ${volume} of ${sizeBytes} bytes: whole blocks, at most ${limit}`;
      throw new StorageError('INVALID_ARGUMENT', text);
    }
    await this.#changeOf(volume, async () => {
      const there = this.#byVolume.get(volume);
      if (there !== undefined) {
        const same = there.record.replicaId === replicaId && there.record.sizeBytes === sizeBytes;
        if (same) return;
        const text = `${there.record.replicaId} with ${there.record.sizeBytes} bytes is there`;
        throw this.#error('CONFLICT', volume, `create ${replicaId} with ${sizeBytes}: ${text}`);
      }
      if (this.#byVolume.size >= REPLICAS_MAX) {
        throw this.#error('LIMIT_EXCEEDED', volume, `create: ${REPLICAS_MAX} replicas are there`);
      }
      await this.#create({
        ...{ volume, replicaId, sizeBytes, membership },
        ...{ epoch: 0, engineId: '', previousEngineId: '' },
        ...{ lossy: false, closed: true, deleting: false },
        ...{ lastIncarnation: '', bootId: this.#options.disk.bootId },
      });
    });
  }

  async openReplica(volume: string): Promise<ReplicaHandle> {
    return await this.#changeOf(volume, async () => {
      const replica = this.#byVolume.get(volume);
      if (replica === undefined) throw this.#error('NOT_FOUND', volume, 'open: no such replica');
      if (this.#opened.has(volume)) throw this.#error('CONFLICT', volume, 'open: it is open');
      if (replica.damage !== undefined) {
        throw this.#error('CORRUPT_METADATA', volume, `open: ${replica.damage}`);
      }
      const { incarnation, bootId } = this.#options.disk;
      const opened = await OpenedReplica.open({
        ...{ services: this.#services, replica, incarnation, bootId },
        diskFailure: () => this.#failure,
        release: (physical) => this.#supply.release(physical),
        onClosed: () => this.#opened.delete(volume),
      });
      this.#opened.set(volume, opened);
      return opened;
    });
  }

  async deleteReplica(volume: string): Promise<void> {
    await this.#changeOf(volume, async () => {
      const replica = this.#byVolume.get(volume);
      if (replica === undefined) return;
      if (this.#opened.has(volume)) throw this.#error('CONFLICT', volume, 'delete: it is open');
      await this.#remove(replica);
      this.#byVolume.delete(volume);
    });
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const { device, kv, lock } = this.#mount;
    const { log } = this.#options.disk;
    for (const opened of [...this.#opened.values()]) await opened.close();
    await this.#supply.stop();
    await this.#noted;
    try {
      const { nonceUnsettled } = this.#mount;
      if (this.#failure === undefined && !nonceUnsettled) await this.#renewNonce();
      await this.#writer.drained();
    } catch (error) {
      log.warn({ disk: this.id, err: error }, 'disk was not closed in order');
    }
    for (const close of [() => kv.close(), () => device.close()]) {
      await close().catch((error: unknown) => log.warn({ disk: this.id, err: error }, 'close'));
    }
    lock.release();
  }

  async #create(record: StoredReplica): Promise<void> {
    const mount = this.#mount;
    const number = mount.record.nextReplicaNumber;
    let recordSeal = 0;
    // The number is taken at once: creations may be in flight together.
    mount.record = { ...mount.record, nextReplicaNumber: number + 1 };
    await this.#writer.submit(
      (batch) => {
        recordSeal = batch.put(0, replicaKey(number), storedReplicaBody(record), undefined);
        fillDiskRecord(mount, batch, mount.record);
      },
      { sync: true },
    );
    const map = new ExtentMap(Math.ceil(record.sizeBytes / EXTENT_SIZE));
    const replica = {
      number,
      record,
      recordSeal,
      map,
      dirtyRegions: [],
      tags: new RegionTags(),
      damage: undefined,
      outdated: false,
      loads: 0,
    };
    this.#byVolume.set(record.volume, replica);
  }

  #remove(replica: ScannedReplica): Promise<void> {
    return removeReplica({ kv: this.#mount.kv, writer: this.#writer, replica });
  }

  /** Runs a change of one volume's replica; a second one of the same volume meanwhile is
   *  CONFLICT. */
  async #changeOf<T>(volume: string, work: () => Promise<T>): Promise<T> {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#closing !== undefined) {
      throw new StorageError('CLOSED', `disk ${this.path} is closed`, { disk: this.id });
    }
    if (this.#changing.has(volume)) throw this.#error('CONFLICT', volume, 'another change runs');
    this.#changing.add(volume);
    try {
      return await work();
    } catch (error) {
      throw toStorageError(error, `replica of volume ${volume}`);
    } finally {
      this.#changing.delete(volume);
    }
  }

  async #renewNonce(): Promise<void> {
    const { pool } = this.#options.disk;
    const { randomBytes } = this.#options;
    const { sizeBytes } = this.#mount.device;
    await renewNonce(this.#mount, { writer: this.#writer, pool, randomBytes, sizeBytes });
  }

  /** D3: what was in dirty regions when a flush failed may be gone. Regions without mark were
   *  flushed before, and so was all of a replica that was closed in order. Durable before it
   *  resolves, and so is what the device shows in these regions; then the note goes. */
  async #markLossy(): Promise<void> {
    const concerned = [...this.#mount.scanned.replicas.values()].filter(
      ({ record, dirtyRegions }) => dirtyRegions.length > 0 && !record.closed,
    );
    const { device } = this.#mount;
    const { pool } = this.#options.disk;
    await rewriteUnflushed({ device, pool, counters: this.counters }, concerned);
    await this.#writer.submit(
      (batch) => {
        for (const replica of concerned) {
          const record = { ...replica.record, lossy: true };
          const body = storedReplicaBody(record);
          replica.recordSeal = batch.put(0, replicaKey(replica.number), body, replica.recordSeal);
          replica.record = record;
        }
      },
      { sync: true },
    );
    const { lostWrites: _lostWrites, ...note } = this.#mount.note;
    await this.#options.home.put(note);
    this.#mount.note = note;
    const fact = { disk: this.id, path: this.path, replicas: concerned.length };
    this.#options.disk.log.warn(fact, 'writes were lost before: replicas are lossy');
  }

  /** Best effort: if the daemon dies before the disk is opened again, its next start knows. */
  async #noteLostWrites(): Promise<void> {
    const note = { ...this.#mount.note, lostWrites: true };
    try {
      await this.#options.home.put(note);
    } catch (error) {
      this.#options.disk.log.error({ disk: this.id, err: error }, 'lost writes were not noted');
    }
  }

  /** D3, P8: a lost flush or metadata batch may have been anybody's. */
  #fail(cause: Error, lostWrites: boolean): void {
    if (lostWrites && !this.#lostWrites) {
      this.#lostWrites = true;
      this.#noted = this.#noteLostWrites();
    }
    if (this.#failure !== undefined) return;
    this.#failure = new StorageError(
      'REPLICA_FAILED',
      `disk ${this.path} has failed: ${cause.message}`,
      { disk: this.id, path: this.path },
      { cause },
    );
    this.#options.disk.log.error({ disk: this.id, path: this.path, err: cause }, 'disk failed');
    for (const opened of this.#opened.values()) opened.fail(this.#failure);
    this.#options.disk.onFailed?.();
  }

  #error(code: ErrorCode, volume: string, text: string): StorageError {
    return new StorageError(code, `volume ${volume} on disk ${this.path}: ${text}`, {
      volume,
      disk: this.id,
    });
  }
}

function reserveOf(extents: number, reserveBytes: number | undefined): number {
  const bytes = reserveBytes ?? Math.min(RESERVE_BYTES_MAX, extents * EXTENT_SIZE * RESERVE_PART);
  return Math.min(extents, Math.ceil(bytes / EXTENT_SIZE));
}
