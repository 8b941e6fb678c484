/** The disks of one daemon. One that is refused or fails is shown with its reason; the others serve
 *  (scenarios 44, 54). */
import type { BufferPool } from '../../common/block-device.js';
import type { Clock } from '../../common/clock.js';
import { StorageError, toStorageError } from '../../common/errors.js';
import type { Logger } from '../../common/log.js';
import type { DiskInfo } from '../../proto/control.js';
import { type Disk, openDisk } from '../disk/disk.js';
import type { DaemonIdentity } from './daemon-identity.js';
import type { DiskSpec } from './disk-spec.js';
import type { DiskSample } from './service-metrics.js';

export interface DiskSetOptions {
  readonly metaDir: string;
  readonly identity: DaemonIdentity;
  readonly pool: BufferPool;
  /** memory for extent records, shared out to the disks */
  readonly cacheBytes: number;
  readonly clock: Clock;
  readonly log: Logger;
}

interface RefusedDisk {
  readonly path: string;
  readonly error: StorageError;
}

export class DiskSet {
  readonly #disks: Disk[] = [];
  readonly #refused: RefusedDisk[] = [];

  private constructor() {}

  /** Disks that were opened elsewhere. */
  static of(disks: readonly Disk[]): DiskSet {
    const set = new DiskSet();
    set.#disks.push(...disks);
    return set;
  }

  /** Opens every disk, one after another, formats what is provably empty.
   *  @throws StorageError INVALID_ARGUMENT (a path twice) | the first reason if no disk at all can
   *    be opened */
  static async open(specs: readonly DiskSpec[], options: DiskSetOptions): Promise<DiskSet> {
    const paths = new Set(specs.map((spec) => spec.path));
    if (paths.size !== specs.length) {
      throw new StorageError('INVALID_ARGUMENT', 'the same --disk is given twice');
    }
    const set = new DiskSet();
    for (const spec of specs) await set.#openOne(spec, specs.length, options);
    const first = set.#refused[0];
    if (set.#disks.length === 0 && first !== undefined) throw first.error;
    return set;
  }

  async #openOne(spec: DiskSpec, count: number, options: DiskSetOptions): Promise<void> {
    const { metaDir, identity, pool, clock, log } = options;
    const { path } = spec;
    try {
      const disk = await openDisk({
        path,
        ...(spec.sizeBytes === undefined ? {} : { sizeBytes: spec.sizeBytes }),
        metaDir,
        identity: { clusterId: identity.clusterId, daemonId: identity.daemonId },
        incarnation: identity.incarnation,
        bootId: identity.bootId,
        pool,
        cacheBytes: Math.floor(options.cacheBytes / count),
        clock,
        log,
      });
      this.#disks.push(disk);
      const { id, sizeBytes, usedBytes } = disk;
      log.info({ disk: id, path, sizeBytes, usedBytes }, 'disk serves');
    } catch (cause) {
      const error = toStorageError(cause, `disk ${path}`);
      this.#refused.push({ path, error });
      const { hint } = error.details;
      log.error({ path, code: error.code, error: error.message, hint }, 'disk refused');
    }
  }

  /** Those that were opened, also if they failed since. */
  opened(): readonly Disk[] {
    return this.#disks;
  }

  /** The ready disk with most free space beyond its reserve. @throws StorageError UNAVAILABLE */
  mostFree(): Disk {
    let best: Disk | undefined;
    for (const disk of this.#disks) {
      if (disk.state !== 'ready') continue;
      if (best === undefined || freeBytes(disk) > freeBytes(best)) best = disk;
    }
    if (best === undefined) {
      throw new StorageError('UNAVAILABLE', 'no disk of this daemon serves', {
        hint: 'see the reasons in Identify or in the log',
      });
    }
    return best;
  }

  info(): DiskInfo[] {
    const opened = this.#disks.map((disk) => ({
      diskId: disk.id,
      path: disk.path,
      sizeBytes: disk.sizeBytes,
      usedBytes: disk.usedBytes,
      reservedBytes: disk.reservedBytes,
      state: disk.state,
      reason: disk.reason,
    }));
    const refused = this.#refused.map(({ path, error }) => ({
      diskId: '',
      path,
      sizeBytes: 0,
      usedBytes: 0,
      reservedBytes: 0,
      state: 'refused' as const,
      reason: `${error.code}: ${error.message}`,
    }));
    return [...opened, ...refused];
  }

  samples(): DiskSample[] {
    return this.info().map((disk) => ({
      ...disk,
      disk: disk.diskId === '' ? disk.path : disk.diskId,
    }));
  }

  /** Regions with a dirty mark, all replicas. */
  dirtyRegions(): number {
    let regions = 0;
    for (const disk of this.#disks) {
      for (const replica of disk.replicas()) regions += replica.dirtyRegions;
    }
    return regions;
  }

  /** Undefined while every disk is ready. */
  unhealthyReason(): string | undefined {
    const bad = this.info().find((disk) => disk.state !== 'ready');
    return bad === undefined ? undefined : `disk ${bad.path} ${bad.state}: ${bad.reason}`;
  }

  /** Closes what was opened. Never throws. */
  async close(): Promise<void> {
    await Promise.all(this.#disks.map((disk) => disk.close()));
  }
}

function freeBytes(disk: Disk): number {
  return disk.sizeBytes - disk.usedBytes - disk.reservedBytes;
}
