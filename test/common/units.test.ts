import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import * as units from '../../common/units.js';

describe('parseSize', () => {
  it.each([
    ['0', 0],
    ['4096', 4096],
    ['4096B', 4096],
    ['1KiB', 1024],
    ['512MiB', 512 * units.MIB],
    ['10GiB', 10 * units.GIB],
    ['64TiB', units.VOLUME_SIZE_MAX],
    ['9007199254740991', Number.MAX_SAFE_INTEGER],
  ])('%s is %d bytes', (text, bytes) => {
    expect(units.parseSize(text)).toBe(bytes);
  });

  it.each([
    '',
    ' 1',
    '1 GiB',
    '10GB',
    '10G',
    '10gib',
    '1.5GiB',
    '-1',
    '+1',
    '1e3',
    '0x10',
    'GiB',
    'NaN',
    '9007199254740992',
    '9999999999999999TiB',
    '12345678901234567',
    '1GiB\n',
    '１',
  ])('refuses %j', (text) => {
    expect(() => units.parseSize(text)).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT' }),
    );
  });

  it('does not print an endless text back', () => {
    expect(() => units.parseSize('x'.repeat(100_000))).toThrow(/^.{1,100}$/);
  });
});

describe('formatSize', () => {
  it.each([
    [0, '0B'],
    [1023, '1023B'],
    [1500, '1.5KiB'],
    [units.GIB, '1GiB'],
    [1.5 * units.TIB, '1.5TiB'],
  ])('%d is %s', (bytes, text) => {
    expect(units.formatSize(bytes)).toBe(text);
  });

  it('is read back exactly for whole units', () => {
    const unit = fc.constantFrom(1, units.KIB, units.MIB, units.GIB);
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 1023 }), unit, (count, factor) => {
        expect(units.parseSize(units.formatSize(count * factor))).toBe(count * factor);
      }),
    );
  });
});

describe('rounding', () => {
  it('gives the nearest multiples below and above', () => {
    const value = fc.integer({ min: 0, max: 2 ** 50 });
    fc.assert(
      fc.property(value, fc.integer({ min: 1, max: units.EXTENT_SIZE }), (bytes, unit) => {
        const [down, up] = [units.roundDown(bytes, unit), units.roundUp(bytes, unit)];
        expect([down % unit, up % unit]).toEqual([0, 0]);
        expect(down <= bytes && bytes <= up && up - down <= unit).toBe(true);
        expect(up === down).toBe(bytes % unit === 0);
      }),
    );
  });
});

it('constants fit together: an extent number of the largest volume fits 32 bits', () => {
  expect(units.VOLUME_SIZE_MAX / units.EXTENT_SIZE).toBeLessThan(2 ** 32);
  expect(units.BLOCKS_PER_EXTENT).toBe(256);
  expect(units.REQUEST_BYTES_MAX).toBe(2 ** 25);
});
