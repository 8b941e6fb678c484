/** A lock file against a second daemon on the same directory (scenario 14). */
import { closeSync, constants, ftruncate, open, write } from 'node:fs';
import { promisify } from 'node:util';
import { addon } from './addon.js';
import { errnoOf, openError } from './errno.js';
import { lockError } from './open-device.js';

const openFd = promisify(open);
const truncateFd = promisify(ftruncate);
const writeFd = promisify(write);

export interface FileLock {
  /** Idempotent. The file stays: removing it would let two holders lock two files of one name. */
  release(): void;
}

/** Holds `path`, created if missing, until `release` or the end of the process, however it ends:
 *  the kernel keeps the lock on the open file. The holder's process id is in the file, for people.
 *  @throws StorageError DISK_LOCKED if another holder has it | NOT_FOUND | PERMISSION | IO_ERROR */
export async function lockFile(path: string): Promise<FileLock> {
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW;
  let fd: number;
  try {
    fd = await openFd(path, flags, 0o600);
  } catch (error) {
    throw openError(errnoOf(error) ?? 'EIO', `open of ${path}`);
  }
  const status = addon.lockFd(fd);
  if (status !== 0) {
    closeSync(fd);
    throw lockError(path, status);
  }
  let held = true;
  const release = (): void => {
    if (held) closeSync(fd);
    held = false;
  };
  // A full disk does not make the lock less valid.
  await truncateFd(fd, 0).catch(() => undefined);
  await writeFd(fd, `${process.pid}\n`, 0).catch(() => undefined);
  return { release };
}
