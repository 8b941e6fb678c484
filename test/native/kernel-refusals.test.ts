/** What the kernel may answer to the ring itself: forbidden, interrupted, out of memory. Injected
 *  with strace. */
import { execFile } from 'node:child_process';
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { missing } from '../support/host.js';

const run = promisify(execFile);
const SCRIPT = fileURLToPath(new URL('./life-cycle-cases.mjs', import.meta.url));
// Two tracers in one process do not go together with the sanitizers.
const sanitized = process.env['AUROCHS_NATIVE_BUILD'] === 'asan';
const reason = sanitized ? 'not under sanitizers' : missing('strace');

let dir: string;
let file: string;
beforeAll(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'aurochs-refusals-'));
  file = path.join(dir, 'disk');
  await writeFile(file, '');
  await truncate(file, 16 * 1024 * 1024);
});
afterAll(() => rm(dir, { recursive: true }));

async function runWith(injection: string, name: string, backend: string): Promise<string> {
  const call = injection.split(':', 1)[0];
  const trace = ['-f', '-qq', '-o', path.join(dir, 'trace')];
  const inject = ['-e', `trace=${call}`, '-e', `inject=${injection}`];
  const command = [process.execPath, SCRIPT, name, backend, file];
  const { stdout } = await run('strace', [...trace, ...inject, ...command], { timeout: 25_000 });
  return stdout.trim();
}

describe.skipIf(reason !== undefined)(`refusals of the kernel ${reason ?? ''}`, () => {
  test.each(['EPERM', 'ENOSYS'])('io_uring_setup answers %s: auto is threads', async (errno) => {
    const said = await runWith(`io_uring_setup:error=${errno}`, 'capabilities', 'auto');
    expect(said).toContain('threads {"ioUring":false');
    expect(said).toContain(`"ioUringReason":"io_uring_setup: ${errno}"`);
  });

  test('io_uring asked for where it is forbidden is UNSUPPORTED', async () => {
    const said = await runWith('io_uring_setup:error=EPERM', 'capabilities', 'io_uring');
    expect(said).toMatch(/^UNSUPPORTED /);
  });

  test('flags that an older kernel does not know: plainer set-ups are tried', async () => {
    const said = await runWith(
      'io_uring_setup:error=EINVAL:when=1..2',
      'end of script',
      'io_uring',
    );
    expect(said).toBe('done 3000 failed 0');
  });

  test.each([
    ['interrupted', 'EINTR:when=1..4'],
    ['out of memory for requests', 'EAGAIN:when=1..40'],
    ['completion queue busy', 'EBUSY:when=2..9'],
  ])('submission is %s: sent again, nothing dropped', async (_name, error) => {
    const said = await runWith(`io_uring_enter:error=${error}`, 'end of script', 'io_uring');
    expect(said).toBe('done 3000 failed 0');
  });

  test('the ring is refused for good: operations fail, none hangs or counts as done', async () => {
    const said = await runWith('io_uring_enter:error=EBADF', 'end of script', 'io_uring');
    expect(said).toBe('done 0 failed 3000');
  });
});
