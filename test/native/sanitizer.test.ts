/** The native tests again, on a build with AddressSanitizer and UndefinedBehaviorSanitizer, in a
 *  child process. */
import { execFile, execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { missing } from '../support/host.js';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../..', import.meta.url));
const library =
  missing('g++') === undefined
    ? execFileSync('g++', ['-print-file-name=libasan.so'], { encoding: 'utf8' }).trim()
    : '';
const reason = existsSync(library) ? undefined : 'needs g++ with libasan';
const inside = process.env['AUROCHS_NATIVE_BUILD'] === 'asan';

/** Node itself leaks at exit, by design. */
const SANITIZED = {
  ...process.env,
  LD_PRELOAD: library,
  ASAN_OPTIONS: 'detect_leaks=0',
  UBSAN_OPTIONS: 'print_stacktrace=1',
  AUROCHS_NATIVE_BUILD: 'asan',
};

describe.skipIf(reason !== undefined || inside)(`sanitizers ${reason ?? ''}`, () => {
  test('the native tests are clean under AddressSanitizer and UBSan', async () => {
    await run(process.execPath, [path.join(root, 'scripts', 'build-native.mjs'), '--sanitize']);
    const vitest = path.join(root, 'node_modules', 'vitest', 'vitest.mjs');
    const exclude = ['--exclude', '**/memory-disk.test.ts'];
    const args = [vitest, 'run', 'test/native', ...exclude, '--reporter', 'dot'];
    const options = { cwd: root, env: SANITIZED, maxBuffer: 16 * 1024 * 1024 };
    const { stdout, stderr } = await run(process.execPath, args, options).catch((error) => {
      throw new Error(`${error.stdout}\n${error.stderr}`);
    });
    expect(`${stdout}${stderr}`).not.toMatch(/Sanitizer|runtime error/);
    expect(stdout).toMatch(/Tests .*passed/);
  }, 240_000);
});

describe.runIf(inside)('in the child process', () => {
  test('the sanitized module is the one that is loaded', async () => {
    await import('../../native/index.js');
    const maps = await readFile('/proc/self/maps', 'utf8');
    expect(maps).toContain(path.join('native', 'build-asan'));
    expect(maps).toContain('libasan');
  });
});
