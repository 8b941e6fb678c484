import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createPidFile, endProcess, livePid, writePidFile } from '../../cli/pid-file.js';
import { SystemClock } from '../../common/clock.js';

const clock = new SystemClock();
const mark = { role: 'engine', contains: '/data-7' };
const children: ChildProcess[] = [];
let dir: string;
let file: string;

beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'aurochs-pid-'));
  file = path.join(dir, 'x.pid');
});

afterEach(async () => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  await rm(dir, { recursive: true });
});

/** A process with the given arguments that says when it listens to signals. */
async function start(args: readonly string[], code = ''): Promise<number> {
  const script = `${code}; process.stdout.write('up'); setInterval(() => 0, 1e9)`;
  const child = spawn(process.execPath, ['-e', script, '--', ...args], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  children.push(child);
  await once(child.stdout, 'data');
  return child.pid ?? 0;
}

describe('pid files', () => {
  it('are taken once', async () => {
    expect(await createPidFile(file, 4711)).toBe(true);
    expect(await createPidFile(file, 4712)).toBe(false);
    expect(await readFile(file, 'utf8')).toBe('4711\n');
  });

  it('name a live process that carries the mark', async () => {
    await writePidFile(file, await start(['engine', '--nbd', 'unix:/data-7/x']));
    expect(await livePid(file, mark)).toBe(children[0]?.pid);
  });

  it('do not name another process that got the number (pid reuse)', async () => {
    await writePidFile(file, await start(['engine', '--nbd', 'unix:/other']));
    expect(await livePid(file, mark)).toBeUndefined();
    await writePidFile(file, await start(['replica', '/data-7']));
    expect(await livePid(file, mark)).toBeUndefined();
  });

  it.each(['', 'abc', '-1', '0', '1', '1e9', '99999999999999999999'])(
    'with the text %j name nobody',
    async (text) => {
      await writeFile(file, text);
      expect(await livePid(file, { role: '', contains: '' })).toBeUndefined();
    },
  );

  it('that do not exist name nobody', async () => {
    expect(await livePid(file, mark)).toBeUndefined();
  });
});

describe('endProcess', () => {
  it('ends it with SIGTERM and removes the file', async () => {
    await writePidFile(file, await start(['engine', '/data-7']));
    const exit = once(children[0] as ChildProcess, 'exit');
    await endProcess({ file, mark }, { clock, deadlineMs: 10_000 });
    expect(await exit).toEqual([null, 'SIGTERM']);
    await expect(readFile(file)).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it('kills a deaf one after the deadline', async () => {
    const deaf = `process.on('SIGTERM', () => 0)`;
    await writePidFile(file, await start(['engine', '/data-7'], deaf));
    const exit = once(children[0] as ChildProcess, 'exit');
    await endProcess({ file, mark }, { clock, deadlineMs: 50 });
    expect(await exit).toEqual([null, 'SIGKILL']);
  });

  it('leaves a stranger alone and removes the stale file', async () => {
    const pid = await start(['something-else']);
    await writePidFile(file, pid);
    await endProcess({ file, mark }, { clock, deadlineMs: 50 });
    expect(() => process.kill(pid, 0)).not.toThrow();
    await expect(readFile(file)).rejects.toMatchObject({ code: 'ENOENT' });
  });
});
