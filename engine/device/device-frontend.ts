/**
 * How the host sees a volume as a block device, and the choice of the means.
 *
 * `DeviceFrontend` is the seam: ublk and kernel NBD will be further implementations, the better
 * ones first in FRONTENDS. Callers use `attachDevice` and its siblings, which take the first
 * frontend that this host can run.
 */
import { StorageError } from '../../common/errors.js';
import type { Logger } from '../../common/log.js';
import { LoopFuseFrontend } from './loop-fuse-frontend.js';

export interface AttachOptions {
  /** name of the device; also that of the export unless `exportName` says otherwise */
  readonly name: string;
  readonly exportName?: string;
  /** unix socket of the engine's NBD server */
  readonly socketPath: string;
  /** mode 0700; one for all devices of a host is fine */
  readonly runDir: string;
  readonly log: Logger;
  /** NBD connections; default 1, see ADR-0005 */
  readonly connections?: number;
  /** how long requests wait for an engine that is away before they end with EIO; default 120 s */
  readonly giveUpMs?: number;
  /** how long the attach may take, waiting for an engine included; default 30 s */
  readonly timeoutMs?: number;
}

export interface AttachedDevice {
  /** stable link RUNDIR/dev/NAME */
  readonly linkPath: string;
  /** for example /dev/loop3 */
  readonly devicePath: string;
  /** process that serves it */
  readonly pid: number;
}

export interface DeviceRef {
  readonly name: string;
  readonly runDir: string;
}

export interface DetachOptions extends DeviceRef {
  /** how long the engine may take for what is still unwritten; default 150 s */
  readonly timeoutMs?: number;
  /** Ends the process even if the device is in use or the engine is gone: what is not acknowledged
   *  is lost, and a file system on the device gets I/O errors. */
  readonly force?: boolean;
  readonly log?: Logger;
}

export interface DeviceStatus {
  /** `dead`: the process was killed; the next attach or detach cleans up. `busy`: it exists and
   *  does not answer. */
  readonly state:
    | 'detached'
    | 'connecting'
    | 'mounted'
    | 'attached'
    | 'detaching'
    | 'dead'
    | 'busy';
  readonly frontend: string;
  readonly devicePath?: string;
  readonly pid?: number;
  readonly sizeBytes?: number;
  /** false: the engine is away and requests wait */
  readonly connected?: boolean;
  readonly reconnects?: number;
  readonly unanswered?: number;
  /** why the device cannot be detached now, for example `mounted at /mnt` */
  readonly user?: string;
}

export interface DeviceFrontend {
  readonly kind: string;
  /** Why this host cannot run it, or undefined. */
  obstacle(): Promise<string | undefined>;
  attach(options: AttachOptions): Promise<AttachedDevice>;
  detach(options: DetachOptions): Promise<void>;
  status(ref: DeviceRef): Promise<DeviceStatus>;
  resize(ref: DeviceRef): Promise<{ sizeBytes: number }>;
}

const FRONTENDS: readonly DeviceFrontend[] = [new LoopFuseFrontend()];

/** The best frontend of this host and why it is the one. @throws StorageError UNSUPPORTED with what
 *  is missing */
export async function chooseDeviceFrontend(
  frontends: readonly DeviceFrontend[] = FRONTENDS,
): Promise<{ frontend: DeviceFrontend; reason: string }> {
  const obstacles: string[] = [];
  for (const frontend of frontends) {
    const obstacle = await frontend.obstacle();
    if (obstacle === undefined) {
      const rest = obstacles.length === 0 ? '' : ` (${obstacles.join('; ')})`;
      return { frontend, reason: `${frontend.kind}${rest}` };
    }
    obstacles.push(`${frontend.kind}: ${obstacle}`);
  }
  throw new StorageError('UNSUPPORTED', `no block device on this host: ${obstacles.join('; ')}`);
}

/** Makes a block device of an export. Idempotent: a device that is attached to the same export is
 *  returned as it is, also after an engine restart. What a killed process left behind is cleaned up
 *  first.
 *  @throws StorageError CONFLICT (attached to another socket) | UNSUPPORTED | UNAVAILABLE
 *          (no engine) | DEADLINE */
export async function attachDevice(options: AttachOptions): Promise<AttachedDevice> {
  const { frontend, reason } = await chooseDeviceFrontend();
  const device = await frontend.attach(options);
  options.log.info({ device: device.devicePath, pid: device.pid, frontend: reason }, 'device');
  return device;
}

/** Takes the device away; when it resolves, no loop device, mount or process of it is left.
 *  Idempotent.
 *  @throws StorageError CONFLICT (in use; names the mount point) | IO_ERROR (last flush
 *          failed, device is gone) */
export async function detachDevice(options: DetachOptions): Promise<void> {
  const { frontend } = await chooseDeviceFrontend();
  await frontend.detach(options);
}

export async function deviceStatus(ref: DeviceRef): Promise<DeviceStatus> {
  const { frontend } = await chooseDeviceFrontend();
  return frontend.status(ref);
}

/** Makes the device as large as the export is now, while in use; a file system is grown by its own
 *  tool afterwards.
 *  @throws StorageError UNAVAILABLE (not attached, or no engine) | CONFLICT (the export
 *          shrank) */
export async function resizeDevice(ref: DeviceRef): Promise<{ sizeBytes: number }> {
  const { frontend } = await chooseDeviceFrontend();
  return frontend.resize(ref);
}
