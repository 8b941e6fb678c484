import { describe, expect, it } from 'vitest';
import { formatTcpAddress, isLoopback, parseTcpAddress } from '../../common/address.js';

describe('parseTcpAddress', () => {
  it.each([
    ['127.0.0.1:9501', '127.0.0.1', 9501],
    ['[::1]:0', '::1', 0],
    ['node-1.storage.local:65535', 'node-1.storage.local', 65535],
  ])('%s', (text, host, port) => {
    expect(parseTcpAddress(text)).toEqual({ host, port });
    expect(formatTcpAddress({ host, port })).toBe(text);
  });

  it.each([
    '',
    ':1',
    'host',
    'host:',
    'host:65536',
    'host:-1',
    'host:1x',
    '::1:1',
    'a b:1',
    'host:1:2',
    'http://host:1',
    'host:000001',
    `${'h'.repeat(300)}:1`,
  ])('refuses %j', (text) => {
    expect(() => parseTcpAddress(text)).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT' }),
    );
  });
});

describe('isLoopback', () => {
  it.each(['127.0.0.1', '127.9.9.9', '::1', 'localhost'])('%s is', (host) => {
    expect(isLoopback(host)).toBe(true);
  });

  it.each(['0.0.0.0', '::', '10.0.0.1', '128.0.0.1', 'localhost.evil.org', '127.0.0.1.nip.io'])(
    '%s is not',
    (host) => {
      expect(isLoopback(host)).toBe(false);
    },
  );
});
