/** The one place where a negative errno of the kernel becomes a StorageError. */
import { constants } from 'node:os';
import { type ErrorCode, type ErrorDetails, StorageError } from '../common/errors.js';

const NAMES = new Map<number, string>();
// The first name of a number wins: EAGAIN before EWOULDBLOCK.
for (const [name, value] of Object.entries(constants.errno)) {
  if (!NAMES.has(value)) NAMES.set(value, name);
}

const CODES: Readonly<Record<string, ErrorCode>> = {
  ENOENT: 'NOT_FOUND',
  ENXIO: 'NOT_FOUND',
  ENOTDIR: 'NOT_FOUND',
  EACCES: 'PERMISSION',
  EPERM: 'PERMISSION',
  EROFS: 'READ_ONLY',
  ENOSPC: 'NO_SPACE',
  EDQUOT: 'NO_SPACE',
  EBUSY: 'DISK_LOCKED',
  EAGAIN: 'DISK_LOCKED',
  EOPNOTSUPP: 'UNSUPPORTED',
  ENOTSUP: 'UNSUPPORTED',
  ENOSYS: 'UNSUPPORTED',
  EINVAL: 'INVALID_ARGUMENT',
  EISDIR: 'INVALID_ARGUMENT',
  ELOOP: 'INVALID_ARGUMENT',
  ENAMETOOLONG: 'INVALID_ARGUMENT',
};

/** `EIO` of 5 or -5; `E999` where the number has no name. */
export function errnoName(errno: number): string {
  const positive = Math.abs(errno);
  return NAMES.get(positive) ?? `E${positive}`;
}

/** The errno of an error thrown by node:fs, or undefined. */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

/** An error of opening, locking or mounting. */
export function openError(errno: string, doing: string, details: ErrorDetails = {}): StorageError {
  return new StorageError(CODES[errno] ?? 'IO_ERROR', `${doing}: ${errno}`, { ...details, errno });
}

/** An error of an operation in progress: the device failed, or it is full. */
export function ioError(errno: number, doing: string, details: ErrorDetails = {}): StorageError {
  const name = errnoName(errno);
  const code = name === 'ENOSPC' || name === 'EDQUOT' ? 'NO_SPACE' : 'IO_ERROR';
  return new StorageError(code, `${doing}: ${name}`, { ...details, errno: name });
}
