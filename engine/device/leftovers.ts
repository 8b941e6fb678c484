/**
 * What a device process left behind when it was killed, found by what the kernel says and not by
 * what a state file claims: killed at any step, the next attach or detach finds the rest. The
 * caller holds the lock of the device.
 */
import { mkdir, rm, rmdir } from 'node:fs/promises';
import type { Logger } from '../../common/log.js';
import type { DevicePaths } from './device-paths.js';
import { findLoops, loopUser, releaseLoop } from './loop-device.js';
import { readMounts, unmountAll } from './mount-table.js';

/** Removes loop devices, mounts and files of a dead process. A loop device that is still mounted
 *  somewhere can only answer errors and goes away with that mount: it is reported, and does not
 *  stand in the way of a new one. */
export async function cleanLeftovers(paths: DevicePaths, log: Logger): Promise<void> {
  for (const loop of await findLoops(paths.backingFile)) {
    const user = await loopUser(loop, { probe: false });
    log.warn({ loop, user }, 'loop device of a dead device process');
    await releaseLoop(loop);
  }
  const mounts = await readMounts();
  if (mounts.some((mount) => mount.mountPoint === paths.mountDir)) {
    log.warn({ dir: paths.mountDir }, 'mount of a dead device process');
    await unmountAll(paths.mountDir, { lazy: true });
  }
  await removeFiles(paths);
}

/** Removes what the attach made, but the directory with lock and log. */
export async function removeFiles(paths: DevicePaths): Promise<void> {
  for (const file of [paths.link, paths.controlSocket, paths.stateFile, paths.pidFile]) {
    await rm(file, { force: true });
  }
  await rmdir(paths.mountDir).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
  });
}

export async function makeMountDir(paths: DevicePaths): Promise<void> {
  await mkdir(paths.mountDir, { mode: 0o700 });
}
