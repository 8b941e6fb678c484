/** Close, exit, crash, worker termination with operations in flight: one process per case, both
 *  backends. */
import { execFile } from 'node:child_process';
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const SCRIPT = fileURLToPath(new URL('./life-cycle-cases.mjs', import.meta.url));
const FILE_BYTES = 16 * 1024 * 1024;

interface Ending {
  /** exit code or signal */
  readonly end: number | string;
  readonly output: string;
  readonly errors: string;
}

let dir: string;
let file: string;
beforeAll(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'aurochs-life-'));
  file = path.join(dir, 'disk');
  await writeFile(file, '');
  await truncate(file, FILE_BYTES);
});
afterAll(() => rm(dir, { recursive: true }));

function runCase(name: string, backend: string): Promise<Ending> {
  const args = ['--expose-gc', SCRIPT, name, backend, file];
  return new Promise((resolve) => {
    execFile(process.execPath, args, { timeout: 25_000 }, (error, output, errors) => {
      const end = error === null ? 0 : (error.signal ?? error.code ?? -1);
      resolve({ end, output: output.trim(), errors });
    });
  });
}

const CASES: ReadonlyArray<{ name: string; end: number | string; output: string }> = [
  { name: 'end of script', end: 0, output: 'done 3000 failed 0' },
  { name: 'exit before submission', end: 7, output: '' },
  { name: 'exit in flight', end: 7, output: '' },
  { name: 'uncaught exception in flight', end: 1, output: '' },
  { name: 'killed in flight', end: 'SIGKILL', output: '' },
  { name: 'close in flight', end: 0, output: 'done 3000 failed 0' },
  { name: 'buffers collected in flight', end: 0, output: 'reads 256' },
  { name: 'four workers', end: 0, output: '0,0,0,0 good,good,good,good,good' },
  { name: 'workers terminated in flight', end: 0, output: 'after 10' },
  { name: 'worker exits in flight', end: 0, output: 'worker 5' },
  { name: 'worker terminated with a pending channel read', end: 0, output: 'ended' },
  { name: 'many workers one after the other', end: 0, output: 'ended' },
];

// The sanitized run repeats this; there one backend is enough, the other differs only inside the
// reactor.
const backends =
  process.env['AUROCHS_NATIVE_BUILD'] === 'asan' ? ['io_uring'] : ['io_uring', 'threads'];

describe.each(backends)('life cycle, %s', (backend) => {
  test.each(CASES)('$name', async ({ name, end, output }) => {
    const got = await runCase(name, backend);
    expect({ end: got.end, output: got.output }, got.errors).toEqual({ end, output });
    expect(got.errors).not.toMatch(/Sanitizer|runtime error|FATAL/);
  });
});
