/** The small programs behind `npm test` and the set-up: a green line must mean that all is
 *  green. */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ROOT } from './source-tree.js';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(path.join(tmpdir(), 'aurochs-scripts-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

interface Ran {
  readonly status: number | null;
  readonly lines: readonly string[];
}

function node(script: string, ...args: readonly string[]): Ran {
  const { status, stdout } = spawnSync(process.execPath, [path.join(ROOT, script), ...args], {
    cwd: dir,
    encoding: 'utf8',
  });
  return { status, lines: stdout.trimEnd().split('\n') };
}

describe('test-summary', () => {
  const test = (status: string): unknown => ({ status, assertionResults: [{ status }] });
  const counts = { numPassedTests: 5, numFailedTests: 0, numPendingTests: 0, numTodoTests: 0 };
  const green = { ...counts, testResults: [test('passed')] };

  it.each([
    ['all passed', green, '0', '0', '5 passed, 0 failed', 0],
    ['one skipped', { ...green, numPendingTests: 1 }, '0', '0', '5 passed, 0 failed', 0],
    [
      'two failed',
      { ...counts, numFailedTests: 2, testResults: [test('failed')] },
      '1',
      '0',
      '5 passed, 2 failed',
      1,
    ],
    [
      'a file that does not load',
      { ...counts, testResults: [{ status: 'failed', assertionResults: [] }] },
      '1',
      '0',
      '5 passed, 1 failed',
      1,
    ],
    ['an unhandled rejection only', green, '1', '0', '5 passed, 1 failed', 1],
    ['lint failed', green, '0', '1', '5 passed, 1 failed', 1],
    ['nothing ran', { ...green, numPassedTests: 0 }, '0', '0', '0 passed, 0 failed', 1],
    ['no JSON', undefined, '1', '0', '0 passed, 1 failed', 1],
  ])('%s', (_name, report, vitestStatus, lintFailed, lastLine, status) => {
    const file = path.join(dir, 'report.json');
    writeFileSync(file, report === undefined ? '' : JSON.stringify(report));
    const ran = node('scripts/test-summary.mjs', file, vitestStatus, lintFailed);
    expect(ran.lines.at(-1)).toBe(lastLine);
    expect(ran.status).toBe(status);
  });
});

describe('check-modules', () => {
  const wanted = {
    '': {},
    'node_modules/a': { version: '1.0.0' },
    'node_modules/b': { version: '2.0.0', optional: true },
  };

  function lockFiles(installed: unknown): void {
    mkdirSync(path.join(dir, 'node_modules'), { recursive: true });
    writeFileSync(path.join(dir, 'package-lock.json'), JSON.stringify({ packages: wanted }));
    const file = path.join(dir, 'node_modules', '.package-lock.json');
    writeFileSync(file, JSON.stringify({ packages: installed }));
  }

  it.each([
    ['the same', { 'node_modules/a': { version: '1.0.0' } }, 0, ''],
    ['an older version', { 'node_modules/a': { version: '0.9.0' } }, 1, /a is 0\.9\.0, wanted 1/],
    ['one missing', {}, 1, /a is missing/],
    [
      'an optional one of another version',
      { 'node_modules/a': { version: '1.0.0' }, 'node_modules/b': { version: '1.0.0' } },
      1,
      /b is 1\.0\.0/,
    ],
  ])('%s', (_name, installed, status, reason) => {
    lockFiles(installed);
    const ran = node('scripts/check-modules.mjs');
    expect(ran.status).toBe(status);
    expect(ran.lines[0]).toMatch(reason);
  });

  it('nothing installed', () => {
    cpSync(path.join(ROOT, 'package-lock.json'), path.join(dir, 'package-lock.json'));
    expect(node('scripts/check-modules.mjs')).toEqual({
      status: 1,
      lines: ['node_modules is missing'],
    });
  });
});

describe('bin/aurochs', () => {
  it('says what to do when nothing is built', () => {
    mkdirSync(path.join(dir, 'bin'));
    cpSync(path.join(ROOT, 'bin'), path.join(dir, 'bin'), { recursive: true });
    writeFileSync(path.join(dir, 'package.json'), '{"type":"module"}');
    const ran = spawnSync(path.join(dir, 'bin', 'aurochs'), ['doctor'], {
      encoding: 'utf8',
    });
    expect(ran.status).toBe(5);
    expect(ran.stderr).toMatch(/^error UNAVAILABLE: .* not built\nhint: .*npm run setup/);
  });
});
