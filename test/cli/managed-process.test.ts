import { mkdir, readFile, stat, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ManagedProcess } from '../../cli/managed-process.js';
import { FakeInstallation, HastyClock, Notes } from './fake-installation.js';

let fake: FakeInstallation;
let notes: Notes;
const running: ManagedProcess[] = [];

beforeEach(async () => {
  fake = await FakeInstallation.create();
  notes = new Notes();
});

afterEach(async () => {
  for (const one of running.splice(0)) await one.stop(0);
  await fake.remove();
});

function managed(script: readonly string[], factor?: number): ManagedProcess {
  const one = new ManagedProcess(
    {
      name: 'demo.engine',
      argv: [...fake.program({ engine: script }), 'engine'],
      pidFile: path.join(fake.dir, 'engine.pid'),
      logFile: path.join(fake.dir, 'engine.log'),
    },
    {
      clock: new HastyClock(factor),
      listener: {
        onExit: (how, delayMs) => notes.note(`exit ${how} ${delayMs}`),
        onReadyAgain: () => notes.note('ready again'),
      },
    },
  );
  running.push(one);
  return one;
}

const LONG_MS = 1_000_000;

describe('ManagedProcess', () => {
  it('is ready, has a pid file, stops on SIGTERM and removes it', async () => {
    const one = managed(['ok']);
    expect(await one.start(LONG_MS)).toBe('nbd+unix:///demo?socket=/s');
    expect(await readFile(one.spec.pidFile, 'utf8')).toBe(`${one.pid}\n`);
    expect(await one.stop(LONG_MS)).toBe(true);
    expect(await fake.record()).toEqual(['start engine', 'ready engine', 'stop engine']);
    await expect(stat(one.spec.pidFile)).rejects.toMatchObject({ code: 'ENOENT' });
    expect(await one.stop(LONG_MS)).toBe(true);
  });

  it('starts again after a kill -9, with a new pid in the file', async () => {
    const one = managed(['ok']);
    await one.start(LONG_MS);
    const first = one.pid ?? 0;
    process.kill(first, 'SIGKILL');
    expect(await notes.seen(/^exit/)).toBe('exit SIGKILL 250');
    await notes.seen(/ready again/);
    expect(one.pid).not.toBe(first);
    expect(await readFile(one.spec.pidFile, 'utf8')).toBe(`${one.pid}\n`);
    expect(one.restarts).toBe(1);
  });

  it('backs off in a crash loop (scenario 8)', async () => {
    const one = managed(['ok', 'die', 'die', 'fail', 'ok']);
    await one.start(LONG_MS);
    process.kill(one.pid ?? 0, 'SIGKILL');
    await notes.seen(/exit exit status 4 2000/);
    const exits = notes.all.filter((text) => text.startsWith('exit'));
    expect(exits).toEqual([
      'exit SIGKILL 250',
      'exit exit status 1 500',
      'exit exit status 1 1000',
      'exit exit status 4 2000',
    ]);
  });

  it('does not start again when it never was ready: its last words are the error', async () => {
    const one = managed(['fail']);
    await expect(one.start(LONG_MS)).rejects.toMatchObject({
      code: 'DISK_LOCKED',
      message: 'demo.engine: disk is in use',
      details: { hint: 'stop the other one' },
    });
    expect(await fake.record()).toEqual(['start engine']);
    expect(notes.all).toEqual([]);
  });

  it('does not take the words of an earlier run for its own', async () => {
    const log = path.join(fake.dir, 'engine.log');
    await writeFile(log, 'error NO_SPACE: long ago\n');
    await expect(managed(['fail']).start(LONG_MS)).rejects.toMatchObject({ code: 'DISK_LOCKED' });
  });

  it('gives up on a silent one after the deadline and leaves nothing running', async () => {
    const one = managed(['silent'], 1);
    await expect(one.start(300)).rejects.toMatchObject({ code: 'DEADLINE' });
    expect(one.pid).toBeUndefined();
  });

  it('says when the program does not exist', async () => {
    const one = new ManagedProcess(
      { ...managed(['ok']).spec, argv: ['/nonexistent/aurochs'] },
      { clock: new HastyClock(), listener: { onExit: notes.note, onReadyAgain: () => undefined } },
    );
    await expect(one.start(LONG_MS)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  });

  it('kills a deaf one after the deadline, and says so', async () => {
    const one = managed(['deaf'], 1);
    await one.start(LONG_MS);
    expect(await one.stop(50)).toBe(false);
    expect(one.pid).toBeUndefined();
  });

  it('a stop during the back-off prevents the next start', async () => {
    const one = managed(['ok'], 1);
    await one.start(LONG_MS);
    process.kill(one.pid ?? 0, 'SIGKILL');
    await notes.seen(/^exit/);
    await one.stop(LONG_MS);
    expect((await fake.record()).filter((line) => line === 'start engine')).toHaveLength(1);
  });

  it('waits for a line, and not longer than asked or than it lives', async () => {
    const one = managed(['device']);
    await one.start(LONG_MS);
    expect(await one.waitLine('device', LONG_MS)).toBe('/dev/loop77');
    expect(await one.waitLine('nothing', 1_000)).toBeUndefined();
    const waiting = one.waitLine('nothing', LONG_MS);
    await one.stop(LONG_MS);
    expect(await waiting).toBeUndefined();
  });

  it('sets a large log file aside before it starts', async () => {
    const log = path.join(fake.dir, 'engine.log');
    await writeFile(log, '');
    await truncate(log, 17 * 1024 * 1024);
    await managed(['ok']).start(LONG_MS);
    expect((await stat(`${log}.1`)).size).toBe(17 * 1024 * 1024);
    expect((await stat(log)).size).toBeLessThan(4096);
  });

  it('a full disk under the pid file stops the start, not the process table', async () => {
    const one = managed(['ok']);
    await mkdir(one.spec.pidFile);
    await expect(one.start(LONG_MS)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    expect(one.pid).toBeUndefined();
  });
});
