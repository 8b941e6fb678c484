/**
 * Where planted faults get into a simulated system: each hook wraps an injected interface of
 * production code, and gives it back unchanged unless a test plants something.
 */
import type { BlockVolume } from '../../../engine/block-volume.js';
import type { MessageStream } from '../../../proto/message-stream.js';
import type { Disk } from '../../../replica/disk/disk.js';
import type { OpenKv } from '../../../replica/store/kv.js';
import type { Random } from '../kernel/random.js';
import type { Scheduler } from '../kernel/scheduler.js';
import type { SimControl } from '../network/network.js';

/** What a planted fault may use of the world. */
export interface Ground {
  readonly random: Random;
  readonly scheduler: Scheduler;
}

export interface Plants {
  /** the disk of a daemon, as its services see it */
  disk(node: string, disk: Disk): Disk;
  openKv(node: string, open: OpenKv): OpenKv;
  /** the server's end of a data stream */
  stream(node: string, stream: MessageStream): MessageStream;
  /** the control calls of an engine */
  control(address: string, control: SimControl): SimControl;
  /** the volume that clients speak to */
  volume(volume: BlockVolume): BlockVolume;
}

export const NO_PLANTS: Plants = {
  disk: (_node, disk) => disk,
  openKv: (_node, open) => open,
  stream: (_node, stream) => stream,
  control: (_address, control) => control,
  volume: (volume) => volume,
};
