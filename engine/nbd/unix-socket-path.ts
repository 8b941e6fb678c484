/** The path of a unix socket: made private, cleaned of what a dead server left, never taken from
 *  a live one. */
import { chmod, link, lstat, mkdir, rename, unlink } from 'node:fs/promises';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { StorageError } from '../../common/errors.js';

/** sockaddr_un.sun_path with its final NUL */
const PATH_BYTES_MAX = 107;

function isErrno(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}

/** Somebody accepts connections there. */
function isLive(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', (error) => {
      if (isErrno(error, 'ECONNREFUSED') || isErrno(error, 'ENOENT')) resolve(false);
      // a full backlog is a sign of life
      else if (isErrno(error, 'EAGAIN')) resolve(true);
      else reject(error);
    });
  });
}

/** Makes the directory (0700, if it is missing) and removes a dead server's socket.
 *  @throws StorageError CONFLICT (a live server, or no socket at all, is there) |
 *  INVALID_ARGUMENT (path too long) */
export async function prepareSocketPath(path: string): Promise<void> {
  if (Buffer.byteLength(path) > PATH_BYTES_MAX) {
    throw new StorageError(
      'INVALID_ARGUMENT',
      `socket path ${path} is longer than ${PATH_BYTES_MAX} bytes`,
      { hint: 'use a shorter directory' },
    );
  }
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const found = await lstat(path).catch((error: unknown) => {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw error;
  });
  if (found === undefined) return;
  const inUse = (why: string): StorageError =>
    new StorageError('CONFLICT', `NBD socket ${path}: ${why}`, {
      hint: 'stop the other server or choose another path',
    });
  if (!found.isSocket()) throw inUse('a file that is not a socket is there');
  if (await isLive(path)) throw inUse('a live server listens there');
  // Another server may have replaced it since the probe: take it aside and look again before
  // removing it.
  const aside = `${path}.${process.pid}`;
  await rename(path, aside);
  const taken = await lstat(aside);
  if (taken.ino !== found.ino) {
    await link(aside, path);
    await unlink(aside);
    throw inUse('another server has just started there');
  }
  await unlink(aside);
}

/** Calls `bind`, which must create the socket before it returns, so that nobody but the owner
 *  could ever connect. */
export function bindPrivately(bind: () => void): void {
  const before = process.umask(0o177);
  try {
    bind();
  } finally {
    process.umask(before);
  }
}

export function makePrivate(path: string): Promise<void> {
  return chmod(path, 0o600);
}
