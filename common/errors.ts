/**
 * The closed list of error codes, and the one error class that carries them.
 *
 * Decide on `code`, never on text. `docs/errors.md` has a heading per code; a test compares the
 * two. Mapping to errno (NBD, FUSE), gRPC status and exit code is this one table.
 */

export type ErrnoName =
  | 'EPERM'
  | 'EIO'
  | 'ENOMEM'
  | 'EINVAL'
  | 'ENOSPC'
  | 'EOVERFLOW'
  | 'ENOTSUP'
  | 'ESHUTDOWN';

interface CodeEntry {
  /** what a block client sees */
  readonly errno: ErrnoName;
  /** numeric gRPC status */
  readonly grpc: number;
  /** exit code of the CLI: 1 failed, 2 usage, 3 not found, 4 conflict, 5 unavailable */
  readonly exit: number;
}

const code = (errno: ErrnoName, grpc: number, exit: number): CodeEntry => ({ errno, grpc, exit });

export const ERROR_CODES = {
  // the caller asked for something wrong
  INVALID_ARGUMENT: code('EINVAL', 3, 2),
  OUT_OF_RANGE: code('EINVAL', 11, 2),
  LIMIT_EXCEEDED: code('EINVAL', 8, 2),
  NOT_FOUND: code('EINVAL', 5, 3),
  ALREADY_EXISTS: code('EINVAL', 6, 4),
  CONFLICT: code('EINVAL', 9, 4),
  READ_ONLY: code('EPERM', 9, 4),
  PERMISSION: code('EPERM', 7, 1),
  UNSUPPORTED: code('ENOTSUP', 12, 1),
  // the operation could not be done
  NO_SPACE: code('ENOSPC', 8, 1),
  IO_ERROR: code('EIO', 13, 1),
  IO_INDETERMINATE: code('EIO', 2, 1),
  NO_REPLICA: code('EIO', 14, 5),
  REPLICA_FAILED: code('EIO', 9, 1),
  UNAVAILABLE: code('EIO', 14, 5),
  OVERLOADED: code('ENOMEM', 8, 5),
  DEADLINE: code('EIO', 4, 5),
  CLOSED: code('ESHUTDOWN', 14, 5),
  ABORTED: code('EIO', 10, 1),
  INTERNAL: code('EIO', 13, 1),
  // who may serve (correctness R4, R5, R8)
  STALE_EPOCH: code('EIO', 9, 4),
  STALE_REPLICA: code('EIO', 9, 4),
  IDENTITY_MISMATCH: code('EIO', 9, 4),
  MEMBERSHIP_UNPROVEN: code('EIO', 9, 5),
  // bytes that are not what was written; never retried blindly
  CORRUPT_BLOCK: code('EIO', 15, 1),
  CORRUPT_METADATA: code('EIO', 15, 1),
  CORRUPT_MESSAGE: code('EIO', 15, 1),
  PROTOCOL_ERROR: code('EINVAL', 3, 1),
  // disks that are refused when opened
  DISK_FOREIGN: code('EIO', 9, 4),
  DISK_NOT_EMPTY: code('EIO', 9, 4),
  DISK_TRUNCATED: code('EIO', 9, 4),
  DISK_ROLLED_BACK: code('EIO', 9, 4),
  DISK_MISMATCH: code('EIO', 9, 4),
  DISK_LOCKED: code('EIO', 9, 4),
  VERSION_UNSUPPORTED: code('EIO', 9, 4),
} as const satisfies Record<string, CodeEntry>;

export type ErrorCode = keyof typeof ERROR_CODES;

/** Facts about the failure. Plain values only: they travel in logs, gRPC metadata and JSON. */
export interface ErrorDetails {
  readonly volume?: string;
  readonly replica?: string;
  readonly disk?: string;
  readonly offsetBytes?: number;
  readonly lengthBytes?: number;
  readonly errno?: string;
  /** what the reader should do */
  readonly hint?: string;
  readonly [key: string]: string | number | boolean | undefined;
}

/** An operating error or a corruption. Programmer errors are assertions, not this.
 *  The message says operation, subject, numbers and limit, for example
 *  `write [4096, 12288) of volume v1 ends past 8192`. */
export class StorageError extends Error {
  override readonly name = 'StorageError';
  readonly code: ErrorCode;
  readonly details: ErrorDetails;

  constructor(
    errorCode: ErrorCode,
    message: string,
    details: ErrorDetails = {},
    options?: { cause?: unknown },
  ) {
    super(message, options);
    this.code = errorCode;
    this.details = details;
  }

  get errno(): ErrnoName {
    return ERROR_CODES[this.code].errno;
  }
}

export function isErrorCode(text: string): text is ErrorCode {
  return Object.hasOwn(ERROR_CODES, text);
}

/** The given error if it is ours, else INTERNAL with the original as cause. */
export function toStorageError(error: unknown, doing: string): StorageError {
  if (error instanceof StorageError) return error;
  const text = error instanceof Error ? error.message : String(error);
  return new StorageError('INTERNAL', `${doing}: ${text}`, {}, { cause: error });
}
