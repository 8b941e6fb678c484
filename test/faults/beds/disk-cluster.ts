/** A volume whose copies lie on disks that fail on request: loop devices that are the daemons'
 *  disks themselves, so that an error of the device is an error of the daemon's read, write or
 *  flush. */
import { MIB } from '../../../common/units.js';
import type { Cluster, ClusterOptions } from '../../support/cluster.js';
import type { FaultBed } from './fault-bed.js';
import { FaultDisk } from './fault-disk.js';

export interface DiskCluster {
  readonly cluster: Cluster;
  readonly disks: readonly FaultDisk[];
}

const DISK_BYTES = 256 * MIB;

/** Daemons and engine, ready. */
export async function startDiskCluster(
  bed: FaultBed,
  options: ClusterOptions & { readonly diskBytes?: (index: number) => number } = {},
): Promise<DiskCluster> {
  const disks: FaultDisk[] = [];
  for (let n = 0; n < (options.replicas ?? 3); n += 1) {
    const sizeBytes = options.diskBytes?.(n) ?? DISK_BYTES;
    disks.push(
      await FaultDisk.create(bed.lab, { name: `disk${n}`, sizeBytes, seed: bed.seed + n }),
    );
  }
  const cluster = await bed.startCluster({
    disk: (index) => disks[index]?.device ?? '',
    ...options,
  });
  return { cluster, disks };
}
