/** The disks of one daemon. One that is refused or fails is shown with its reason and tried again;
 *  the others serve (scenarios 44, 54). */
import { StorageError } from '../../common/errors.js';
import type { DiskInfo } from '../../proto/control.js';
import { type Disk, type DiskOptions, openDisk } from '../disk/disk.js';
import type { DaemonIdentity } from './daemon-identity.js';
import { type DiskPlace, DiskSlot } from './disk-slot.js';
import type { DiskSpec } from './disk-spec.js';
import type { DiskSample } from './service-metrics.js';

/** What the disks have in common. `openDevice`, `openKv`, `home` and `randomBytes` stand for the
 *  real ones where they are given. */
export interface DiskSetOptions
  extends Pick<
    DiskOptions,
    'metaDir' | 'pool' | 'clock' | 'log' | 'openDevice' | 'openKv' | 'home' | 'randomBytes'
  > {
  readonly identity: DaemonIdentity;
  /** memory for extent records, shared out to the disks */
  readonly cacheBytes: number;
}

interface Slot extends DiskPlace {
  readonly opened: Disk | undefined;
  retry(onOpened: (place: DiskPlace) => void): void;
  info(): DiskInfo;
  close(): Promise<void>;
}

export class DiskSet {
  readonly #slots: readonly Slot[];

  private constructor(slots: readonly Slot[]) {
    this.#slots = slots;
  }

  /** Disks that were opened elsewhere; they are not opened again. */
  static of(disks: readonly Disk[]): DiskSet {
    return new DiskSet(disks.map((disk) => new FixedSlot(disk)));
  }

  /** Opens every disk, one after another, formats what is provably empty.
   *  @throws StorageError INVALID_ARGUMENT (a path twice) | the first reason if no disk at all can
   *    be opened */
  static async open(specs: readonly DiskSpec[], options: DiskSetOptions): Promise<DiskSet> {
    const paths = new Set(specs.map((spec) => spec.path));
    if (paths.size !== specs.length) {
      throw new StorageError('INVALID_ARGUMENT', 'the same --disk is given twice');
    }
    const { identity, cacheBytes, ...shared } = options;
    const { clusterId, daemonId, bootId, incarnation } = identity;
    const common = {
      ...{ ...shared, bootId, identity: { clusterId, daemonId } },
      cacheBytes: Math.floor(cacheBytes / specs.length),
    };
    const { clock, log } = options;
    const slots = specs.map((spec) => {
      const slot = { spec, incarnation, clock, log };
      return new DiskSlot({ ...slot, openDisk: (opening) => openDisk({ ...common, ...opening }) });
    });
    for (const slot of slots) await slot.open();
    const first = slots.find(({ refusal }) => refusal !== undefined)?.refusal;
    if (first !== undefined && slots.every(({ opened }) => opened === undefined)) throw first;
    return new DiskSet(slots);
  }

  /** From now on disks that do not serve are tried again.
   *  @param onOpened  a disk came, or came back; in the same step as its place shows it */
  retry(onOpened: (place: DiskPlace) => void): void {
    for (const slot of this.#slots) slot.retry(onOpened);
  }

  /** Those that were opened, also if they failed since. */
  places(): readonly DiskPlace[] {
    return this.#slots.filter(({ opened }) => opened !== undefined);
  }

  /** The ready disk with most free space beyond its reserve. @throws StorageError UNAVAILABLE */
  mostFree(): DiskPlace {
    let best: DiskPlace | undefined;
    for (const place of this.places()) {
      if (place.disk.state !== 'ready') continue;
      if (best === undefined || freeBytes(place.disk) > freeBytes(best.disk)) best = place;
    }
    if (best === undefined) {
      throw new StorageError('UNAVAILABLE', 'no disk of this daemon serves', {
        hint: 'see the reasons in Identify or in the log',
      });
    }
    return best;
  }

  info(): DiskInfo[] {
    return this.#slots.map((slot) => slot.info());
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
    for (const { disk } of this.places()) {
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
    await Promise.all(this.#slots.map((slot) => slot.close()));
  }
}

class FixedSlot implements Slot {
  constructor(readonly disk: Disk) {}

  get opened(): Disk {
    return this.disk;
  }

  retry(): void {}

  info(): DiskInfo {
    const { id, path, sizeBytes, usedBytes, reservedBytes, state, reason } = this.disk;
    return { diskId: id, path, sizeBytes, usedBytes, reservedBytes, state, reason };
  }

  close(): Promise<void> {
    return this.disk.close();
  }
}

function freeBytes(disk: Disk): number {
  return disk.sizeBytes - disk.usedBytes - disk.reservedBytes;
}
