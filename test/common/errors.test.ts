import { describe, expect, it } from 'vitest';
import { ERROR_CODES, isErrorCode, StorageError, toStorageError } from '../../common/errors.js';

describe('StorageError', () => {
  it('carries code, errno, details and cause', () => {
    const cause = new Error('below');
    const error = new StorageError('NO_SPACE', 'disk d1 is full', { disk: 'd1' }, { cause });
    expect(error).toMatchObject({ code: 'NO_SPACE', errno: 'ENOSPC', cause, name: 'StorageError' });
    expect(error.details.disk).toBe('d1');
    expect(error).toBeInstanceOf(Error);
  });

  it('knows its codes, and nothing that objects inherit', () => {
    expect(Object.keys(ERROR_CODES).every(isErrorCode)).toBe(true);
    for (const text of ['', 'NOPE', 'toString', '__proto__', 'constructor']) {
      expect(isErrorCode(text)).toBe(false);
    }
  });

  it('wraps what is not ours as INTERNAL and keeps what is', () => {
    const ours = new StorageError('CLOSED', 'closed');
    expect(toStorageError(ours, 'reading')).toBe(ours);
    const wrapped = toStorageError(new TypeError('x is undefined'), 'reading');
    expect(wrapped.code).toBe('INTERNAL');
    expect(wrapped.message).toBe('reading: x is undefined');
    expect(toStorageError('text', 'reading').message).toBe('reading: text');
  });

  it('maps every code to a gRPC status and an exit code of the contract', () => {
    for (const entry of Object.values(ERROR_CODES)) {
      expect(entry.grpc).toBeGreaterThan(0);
      expect(entry.grpc).toBeLessThanOrEqual(16);
      expect([1, 2, 3, 4, 5]).toContain(entry.exit);
    }
  });
});
