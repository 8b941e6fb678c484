/** `bin/aurochs up` with the real daemons, from dist/ (npm run build:ts). */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { findInstallation } from '../../cli/installation.js';
import { Notes } from './fake-installation.js';

const run = promisify(execFile);
const MIB = 1024 * 1024;

class RunningUp {
  readonly lines = new Notes();
  readonly #child: ChildProcess;
  readonly exited: Promise<[number | null, NodeJS.Signals | null]>;

  constructor(dataDir: string, ...flags: readonly string[]) {
    const [command = '', ...args] = findInstallation().aurochs;
    const size = ['--size', '64MiB', '--disk-size', '512MiB'];
    const argv = [...args, 'up', '--data', dataDir, ...size, ...flags];
    const child = spawn(command, argv, { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child = child;
    this.exited = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on('line', this.lines.note);
    }
    void this.exited.then(([code]) => this.lines.note(`ready: never, exit ${code}`));
  }

  /** The URI. Throws what was printed if it ended instead. */
  async ready(): Promise<string> {
    const line = await this.lines.seen(/^ready/);
    const uri = /^ready (nbd\S+)$/.exec(line)?.[1];
    if (uri === undefined) throw new Error(this.lines.all.join('\n'));
    return uri;
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }
}

let dir: string;
let dataDir: string;
const ups: RunningUp[] = [];

beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'aurochs-up-'));
  dataDir = path.join(dir, 'data');
});

afterEach(async () => {
  for (const up of ups.splice(0)) {
    up.kill('SIGTERM');
    await up.exited;
  }
  // What a killed `up` left behind.
  for (const pid of await daemons()) process.kill(pid, 'SIGKILL');
  await rm(dir, { recursive: true, force: true });
});

function start(...flags: readonly string[]): RunningUp {
  const up = new RunningUp(dataDir, ...flags);
  ups.push(up);
  return up;
}

/** Pids of all processes that name the data folder in their command line. */
async function daemons(): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^[0-9]+$/.test(name));
  const named = await Promise.all(
    pids.map(async (pid) => {
      const argv = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
      return argv.includes(dataDir) ? [Number(pid)] : [];
    }),
  );
  return named.flat();
}

async function stop(up: RunningUp, signal: NodeJS.Signals): Promise<void> {
  up.kill(signal);
  expect(await up.exited).toEqual([0, null]);
  expect(await daemons()).toEqual([]);
  const left = (await readdir(path.join(dataDir, 'run'))).filter((name) => name.endsWith('.pid'));
  expect(left).toEqual([]);
}

async function put(uri: string, bytes: Buffer): Promise<void> {
  const file = path.join(dir, 'in');
  await writeFile(file, bytes);
  await run('nbdcopy', ['--flush', file, uri]);
}

async function get(uri: string, lengthBytes: number): Promise<Buffer> {
  const file = path.join(dir, 'out');
  await run('nbdcopy', [uri, file]);
  return (await readFile(file)).subarray(0, lengthBytes);
}

const hasTools = await run('nbdcopy', ['--version']).then(
  () => true,
  () => false,
);

describe.skipIf(!hasTools)('aurochs up, real daemons (needs nbdcopy)', () => {
  it('keeps the data over SIGTERM, SIGINT and a second start', { timeout: 90_000 }, async () => {
    const bytes = randomBytes(4 * MIB);
    const first = start();
    await put(await first.ready(), bytes);
    await stop(first, 'SIGTERM');
    const second = start();
    const same = (await get(await second.ready(), bytes.length)).equals(bytes);
    expect(same).toBe(true);
    await stop(second, 'SIGINT');
  });

  it('serves the data again after kill -9 of the engine', { timeout: 90_000 }, async () => {
    const bytes = randomBytes(MIB);
    const up = start();
    const uri = await up.ready();
    await put(uri, bytes);
    const pidFile = path.join(dataDir, 'run', 'demo.engine.pid');
    process.kill(Number(await readFile(pidFile, 'utf8')), 'SIGKILL');
    await up.lines.seen(/demo\.engine is back/);
    expect((await get(uri, bytes.length)).equals(bytes)).toBe(true);
    await stop(up, 'SIGTERM');
  });

  it('after kill -9 of up itself the next one takes over', { timeout: 90_000 }, async () => {
    const bytes = randomBytes(MIB);
    const killed = start();
    await put(await killed.ready(), bytes);
    killed.kill('SIGKILL');
    await killed.exited;
    expect(await daemons()).toHaveLength(4);
    const next = start();
    const uri = await next.ready();
    expect(await next.lines.seen(/^stopping demo\.engine/)).toContain('left behind');
    expect((await get(uri, bytes.length)).equals(bytes)).toBe(true);
    await stop(next, 'SIGTERM');
  });

  it('a second one on the same folder is refused with exit code 4', {
    timeout: 60_000,
  }, async () => {
    const first = start();
    await first.ready();
    const second = new RunningUp(dataDir);
    expect(await second.exited).toEqual([4, null]);
    expect(second.lines.all.join('\n')).toMatch(/error CONFLICT: aurochs up runs on/);
    await stop(first, 'SIGTERM');
  });

  it('answers volume show and replica ls, also as JSON', { timeout: 60_000 }, async () => {
    const up = start('--nodes', '2', '-o', 'json');
    await up.lines.seen(/^\{/);
    const [command = '', ...args] = findInstallation().aurochs;
    const control = `unix:${path.join(dataDir, 'run', 'demo.control.sock')}`;
    const ask = async (...words: readonly string[]): Promise<string> =>
      (await run(command, [...args, ...words, 'demo', '--engine', control])).stdout;
    expect(await ask('volume', 'show')).toMatch(/state +healthy\ncopies +2 of 2 in sync/);
    expect(JSON.parse(await ask('volume', 'show', '-o', 'json'))).toMatchObject({
      volume: 'demo',
      sizeBytes: 64 * MIB,
      state: 'healthy',
    });
    const replicas = JSON.parse(await ask('replica', 'ls', '-o', 'json'));
    expect(replicas.map((replica: { state: string }) => replica.state)).toEqual([
      'in-sync',
      'in-sync',
    ]);
    await stop(up, 'SIGTERM');
  });
});
