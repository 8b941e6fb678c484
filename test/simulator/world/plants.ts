/**
 * Where planted faults get into a simulated system: each hook wraps an injected interface of
 * production code, and gives it back unchanged unless a test plants something.
 */
import type { BlockVolume } from '../../../engine/block-volume.js';
import type { DiskSet } from '../../../replica/service/disk-set.js';
import type { Random } from '../kernel/random.js';
import type { Scheduler } from '../kernel/scheduler.js';
import type { SimControl } from '../network/network.js';

/** What a planted fault may use of the world. */
export interface Ground {
  readonly random: Random;
  readonly scheduler: Scheduler;
}

export interface Plants {
  /** the disks of a daemon, as its services see them */
  disks(node: string, disks: DiskSet): DiskSet;
  /** the control calls of an engine */
  control(address: string, control: SimControl): SimControl;
  /** the volume that clients speak to */
  volume(volume: BlockVolume): BlockVolume;
}

export const NO_PLANTS: Plants = {
  disks: (_node, disks) => disks,
  control: (_address, control) => control,
  volume: (volume) => volume,
};
