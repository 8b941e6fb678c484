/** mount(2) and umount2(2) for FUSE, without the fusermount program; needs CAP_SYS_ADMIN. */
import assert from 'node:assert';
import { addon } from './addon.js';
import { errnoName, openError } from './errno.js';

const OPTIONS = /^(?:[a-z_]+(?:=[0-9a-z]+)?)(?:,[a-z_]+(?:=[0-9a-z]+)?)*$/;

/** Mounts a FUSE file system whose requests arrive on the returned descriptor (non-blocking,
 *  close-on-exec). `dir` may be a regular file too: then the root of the file system is that one
 *  file.
 *  @param options.options  comma-separated, added to fd, rootmode, user_id and group_id; for
 *  example
 *                          `allow_other,max_read=1048576`
 *  @returns descriptor, the caller's; normally given to an FdChannel
 *  @throws StorageError NOT_FOUND | PERMISSION | IO_ERROR (details.errno) */
export function fuseMount(dir: string, options: { source: string; options?: string }): number {
  const extra = options.options ?? '';
  assert(extra === '' || OPTIONS.test(extra), `mount options ${extra}`);
  const fd = addon.mountFuse(dir, options.source, extra);
  if (fd < 0) throw openError(errnoName(fd), `mount of FUSE on ${dir}`);
  return fd;
}

/** @param options.lazy  detaches even when in use (MNT_DETACH); it goes away with the last user
 *  @throws StorageError INVALID_ARGUMENT (not a mount point) | DISK_LOCKED (in use) | NOT_FOUND |
 *  PERMISSION */
export function fuseUnmount(dir: string, options: { lazy?: boolean } = {}): void {
  const status = addon.unmountFuse(dir, options.lazy === true);
  if (status === 0) return;
  throw openError(errnoName(status), `unmount of ${dir}`);
}
