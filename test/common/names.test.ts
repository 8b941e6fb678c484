import { describe, expect, it } from 'vitest';
import { checkName, isName } from '../../common/names.js';

describe('names (correctness 3.2)', () => {
  it.each(['a', '0', 'pg', 'pg-data-1', `a${'b'.repeat(61)}c`])('accepts %s', (name) => {
    expect(checkName(name, 'volume')).toBe(name);
  });

  it.each([
    '',
    '-a',
    'a-',
    'A',
    'a_b',
    'a.b',
    '.',
    '..',
    'a/b',
    '/a',
    'a\\b',
    'a\0',
    'a\n',
    ' a',
    'ä',
    'а',
    `a${'b'.repeat(63)}`,
    '--help',
    'a b',
    '$(id)',
  ])('refuses %j', (name) => {
    expect(isName(name)).toBe(false);
    expect(() => checkName(name, 'volume')).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT' }),
    );
  });

  it('cuts and escapes what it shows', () => {
    const evil = `\u001b[31m${'x'.repeat(10_000)}`;
    expect(() => checkName(evil, 'volume')).toThrow(/^[\x20-\x7e]{1,120}$/);
  });
});
