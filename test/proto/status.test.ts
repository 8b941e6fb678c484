import { describe, expect, it } from 'vitest';
import { ERROR_CODES, type ErrorCode } from '../../common/errors.js';
import { codeOfStatus, STATUS_OK, statusOf } from '../../proto/status.js';

/** The table as it was released. Lines are added here, never changed: peers of other versions rely
 * on them. */
const RELEASED: ReadonlyArray<readonly [number, ErrorCode]> = [
  [1, 'INVALID_ARGUMENT'],
  [2, 'OUT_OF_RANGE'],
  [3, 'LIMIT_EXCEEDED'],
  [4, 'NOT_FOUND'],
  [5, 'ALREADY_EXISTS'],
  [6, 'CONFLICT'],
  [7, 'READ_ONLY'],
  [8, 'PERMISSION'],
  [9, 'UNSUPPORTED'],
  [10, 'NO_SPACE'],
  [11, 'IO_ERROR'],
  [12, 'IO_INDETERMINATE'],
  [13, 'NO_REPLICA'],
  [14, 'REPLICA_FAILED'],
  [15, 'UNAVAILABLE'],
  [16, 'OVERLOADED'],
  [17, 'DEADLINE'],
  [18, 'CLOSED'],
  [19, 'ABORTED'],
  [20, 'INTERNAL'],
  [21, 'STALE_EPOCH'],
  [22, 'STALE_REPLICA'],
  [23, 'IDENTITY_MISMATCH'],
  [24, 'MEMBERSHIP_UNPROVEN'],
  [25, 'CORRUPT_BLOCK'],
  [26, 'CORRUPT_METADATA'],
  [27, 'CORRUPT_MESSAGE'],
  [28, 'PROTOCOL_ERROR'],
  [29, 'DISK_FOREIGN'],
  [30, 'DISK_NOT_EMPTY'],
  [31, 'DISK_TRUNCATED'],
  [32, 'DISK_ROLLED_BACK'],
  [33, 'DISK_MISMATCH'],
  [34, 'DISK_LOCKED'],
  [35, 'VERSION_UNSUPPORTED'],
];

describe('status numbers', () => {
  it.each(RELEASED)('%i stays %s', (status, code) => {
    expect(statusOf(code)).toBe(status);
    expect(codeOfStatus(status)).toBe(code);
  });

  it('has a number for every code, each once, and 0 for none', () => {
    const codes = Object.keys(ERROR_CODES) as ErrorCode[];
    expect(codes.filter((code) => !(statusOf(code) > 0))).toEqual([]);
    expect(new Set(codes.map(statusOf)).size).toBe(codes.length);
    expect([...codes].sort()).toEqual(RELEASED.map(([, code]) => code).sort());
    expect(codeOfStatus(STATUS_OK)).toBeUndefined();
    expect(codeOfStatus(9999)).toBeUndefined();
  });
});
