/**
 * Where planted faults get into a simulated system: each hook wraps an injected interface of
 * production code, and gives it back unchanged unless a test plants something.
 */
import type { BlockVolume } from '../../../engine/block-volume.js';
import type { Disk } from '../../../replica/disk/disk.js';
import type { Random } from '../kernel/random.js';
import type { Scheduler } from '../kernel/scheduler.js';
import type { SimControl } from '../network/network.js';

/** What a planted fault may use of the world. */
export interface Ground {
  readonly random: Random;
  readonly scheduler: Scheduler;
}

export interface Plants {
  /** The disk of a daemon, as its services see it; undefined: no disk is betrayed, and one that
   *  fails is opened again. */
  disk?: (node: string, disk: Disk) => Disk;
  /** the control calls of an engine */
  control(address: string, control: SimControl): SimControl;
  /** the volume that clients speak to */
  volume(volume: BlockVolume): BlockVolume;
}

export const NO_PLANTS: Plants = {
  control: (_address, control) => control,
  volume: (volume) => volume,
};
