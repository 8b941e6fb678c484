/**
 * The numbers that stand for error codes on the data stream (IoReply.status).
 *
 * A number, once given, never changes and is never given again: engines and replica daemons of
 * different versions speak to each other. New codes get the next free number.
 * `test/proto/status.test.ts` holds the table still.
 */
import type { ErrorCode } from '../common/errors.js';

/** Status of a reply that reports success. */
export const STATUS_OK = 0;

const STATUS: Readonly<Record<ErrorCode, number>> = {
  INVALID_ARGUMENT: 1,
  OUT_OF_RANGE: 2,
  LIMIT_EXCEEDED: 3,
  NOT_FOUND: 4,
  ALREADY_EXISTS: 5,
  CONFLICT: 6,
  READ_ONLY: 7,
  PERMISSION: 8,
  UNSUPPORTED: 9,
  NO_SPACE: 10,
  IO_ERROR: 11,
  IO_INDETERMINATE: 12,
  NO_REPLICA: 13,
  REPLICA_FAILED: 14,
  UNAVAILABLE: 15,
  OVERLOADED: 16,
  DEADLINE: 17,
  CLOSED: 18,
  ABORTED: 19,
  INTERNAL: 20,
  STALE_EPOCH: 21,
  STALE_REPLICA: 22,
  IDENTITY_MISMATCH: 23,
  MEMBERSHIP_UNPROVEN: 24,
  CORRUPT_BLOCK: 25,
  CORRUPT_METADATA: 26,
  CORRUPT_MESSAGE: 27,
  PROTOCOL_ERROR: 28,
  DISK_FOREIGN: 29,
  DISK_NOT_EMPTY: 30,
  DISK_TRUNCATED: 31,
  DISK_ROLLED_BACK: 32,
  DISK_MISMATCH: 33,
  DISK_LOCKED: 34,
  VERSION_UNSUPPORTED: 35,
};

const CODES = new Map<number, ErrorCode>();
for (const [code, status] of Object.entries(STATUS)) CODES.set(status, code as ErrorCode);

/** The number of a code: never 0, the same in every version. */
export function statusOf(code: ErrorCode): number {
  return STATUS[code];
}

/** The code of a number from the wire; undefined for 0 (OK) and for numbers this version does not
 * know. */
export function codeOfStatus(status: number): ErrorCode | undefined {
  return CODES.get(status);
}
