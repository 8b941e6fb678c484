/** Where everything of one attached device lies below the run directory. */
import { mkdir, realpath } from 'node:fs/promises';
import { checkName } from '../../common/names.js';
import { FILE_NAME } from './fuse-wire.js';

export interface DevicePaths {
  readonly name: string;
  /** mode 0700; everything but the link and the pid file */
  readonly dir: string;
  readonly mountDir: string;
  /** the file that the loop device stands on */
  readonly backingFile: string;
  readonly lockFile: string;
  readonly stateFile: string;
  readonly controlSocket: string;
  readonly logFile: string;
  /** stable name of the device: symbolic link to /dev/loopN */
  readonly link: string;
  readonly linkDir: string;
  readonly pidFile: string;
}

/** Creates the directories that are missing. The kernel names mounts and backing files by real
 *  path, so `runDir` is resolved. @throws StorageError INVALID_ARGUMENT for a bad name */
export async function prepareDevicePaths(runDir: string, name: string): Promise<DevicePaths> {
  checkName(name, 'device');
  await mkdir(runDir, { recursive: true, mode: 0o700 });
  const base = await realpath(runDir);
  const dir = `${base}/device/${name}`;
  const linkDir = `${base}/dev`;
  const mountDir = `${dir}/mnt`;
  await mkdir(`${base}/device`, { recursive: true, mode: 0o700 });
  await mkdir(dir, { recursive: true, mode: 0o700 });
  await mkdir(linkDir, { recursive: true, mode: 0o700 });
  return {
    name,
    dir,
    mountDir,
    backingFile: `${mountDir}/${FILE_NAME}`,
    lockFile: `${dir}/lock`,
    stateFile: `${dir}/state.json`,
    controlSocket: `${dir}/control.sock`,
    logFile: `${dir}/log`,
    link: `${linkDir}/${name}`,
    linkDir,
    pidFile: `${base}/${name}.device.pid`,
  };
}
