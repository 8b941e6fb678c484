import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir, readdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { writePidFile } from '../../cli/pid-file.js';
import { Up, type UpOptions } from '../../cli/up.js';
import { mergeConfig } from '../../cli/up-config.js';
import { FakeInstallation, HastyClock, Notes } from './fake-installation.js';

let fake: FakeInstallation;
let notes: Notes;
let dataDir: string;
const started: Up[] = [];
const strangers: ChildProcess[] = [];

beforeEach(async () => {
  fake = await FakeInstallation.create();
  notes = new Notes();
  dataDir = path.join(fake.dir, 'data');
});

afterEach(async () => {
  for (const up of started.splice(0)) await up.stop();
  for (const stranger of strangers.splice(0)) stranger.kill('SIGKILL');
  await fake.remove();
});

function createUp(
  script: Record<string, readonly string[]> = {},
  device: UpOptions['device'] = 'no',
  engineFlags: readonly string[] = [],
): Up {
  const up = new Up({
    dataDir,
    config: mergeConfig(undefined, {}),
    program: fake.program(script),
    ...{ device, engineFlags },
    clock: new HastyClock(10),
    note: notes.note,
  });
  started.push(up);
  return up;
}

const run = (file: string): string => path.join(dataDir, 'run', file);

async function pidIn(file: string): Promise<number> {
  return Number(await readFile(run(file), 'utf8'));
}

describe('aurochs up', () => {
  it('starts the replicas, then the engine, and writes a pid file for each', async () => {
    const state = await createUp().start();
    expect(state.uri).toBe('nbd+unix:///demo?socket=/s');
    expect(state.nodes.map((node) => node.name)).toEqual(['node1', 'node2', 'node3']);
    expect((await readdir(path.join(dataDir, 'run'))).sort()).toEqual([
      'demo.engine.pid',
      'node1.replica.pid',
      'node2.replica.pid',
      'node3.replica.pid',
      'up.pid',
    ]);
    const record = await fake.record();
    const lastReplica = Math.max(...[1, 2, 3].map((n) => record.indexOf(`ready node${n}`)));
    expect(record.indexOf('start engine')).toBeGreaterThan(lastReplica);
  });

  it('hands the options of the engine on', async () => {
    await createUp({}, 'no', ['--io-timeout', '5']).start();
    const pid = await pidIn('demo.engine.pid');
    const argv = (await readFile(`/proc/${pid}/cmdline`, 'utf8')).split('\0');
    expect(argv.slice(argv.indexOf('--io-timeout'))).toEqual(['--io-timeout', '5', '']);
  });

  it('gives the sockets to nobody else', async () => {
    await createUp().start();
    expect((await stat(path.join(dataDir, 'run'))).mode & 0o777).toBe(0o700);
  });

  it('stops the engine before the first replica, and leaves no pid file', async () => {
    const up = createUp();
    await up.start();
    await up.stop();
    const record = await fake.record();
    const stops = record.filter((line) => line.startsWith('stop'));
    expect(stops[0]).toBe('stop engine');
    expect(stops.slice(1).sort()).toEqual(['stop node1', 'stop node2', 'stop node3']);
    expect(await readdir(path.join(dataDir, 'run'))).toEqual([]);
  });

  it('runs again over the same folder', async () => {
    const first = createUp();
    await first.start();
    await first.stop();
    const state = await createUp().start();
    expect(state.nodes).toHaveLength(3);
  });

  it('starts a killed replica again and says that it was excluded', async () => {
    await createUp().start();
    process.kill(await pidIn('node2.replica.pid'), 'SIGKILL');
    expect(await notes.seen(/node2\.replica ended \(SIGKILL\)/)).toMatch(/excluded/);
    await notes.seen(/node2\.replica is back/);
    expect((await fake.record()).filter((line) => line === 'start node2')).toHaveLength(2);
  });

  it('starts a killed engine again while the replicas run on', async () => {
    await createUp().start();
    const replica = await pidIn('node1.replica.pid');
    process.kill(await pidIn('demo.engine.pid'), 'SIGKILL');
    await notes.seen(/demo\.engine is back/);
    expect(await pidIn('node1.replica.pid')).toBe(replica);
  });

  it.each(['try', 'require'] as const)('tells the device of the engine (%s)', async (device) => {
    const state = await createUp({ engine: ['device'] }, device).start();
    expect(state.device).toBe('/dev/loop77');
  });

  it.each(['ok', 'nodevice'])('serves without a device that does not come (%s)', async (life) => {
    const up = createUp({ engine: [life, 'ok'] }, 'try');
    expect(await up.start()).toMatchObject({
      device: undefined,
      uri: 'nbd+unix:///demo?socket=/s',
    });
    expect(notes.all.join('\n')).toMatch(/no block device: .*; serving without/);
    expect((await fake.record()).filter((line) => line === 'start engine')).toHaveLength(2);
  });

  it('a device that is required and cannot be made ends the start', async () => {
    const up = createUp({ engine: ['nodevice'] }, 'require');
    await expect(up.start()).rejects.toMatchObject({ code: 'UNSUPPORTED' });
    expect(await readdir(path.join(dataDir, 'run'))).toEqual([]);
  });

  it('sends one SIGTERM only, however often it is stopped', async () => {
    const up = createUp();
    await up.start();
    await Promise.all([up.stop(), up.stop()]);
    await up.stop();
    const stops = (await fake.record()).filter((line) => line.startsWith('stop'));
    expect(stops).toHaveLength(4);
  });

  it('a replica that cannot start stops everything, with its own error', async () => {
    const up = createUp({ node2: ['fail'] });
    await expect(up.start()).rejects.toMatchObject({ code: 'DISK_LOCKED' });
    expect(await readdir(path.join(dataDir, 'run'))).toEqual([]);
    expect(await fake.record()).not.toContain('start engine');
  });

  it('an engine that cannot start stops the replicas', async () => {
    const up = createUp({ engine: ['fail'] });
    await expect(up.start()).rejects.toMatchObject({ code: 'DISK_LOCKED' });
    const record = await fake.record();
    expect(record.filter((line) => line.startsWith('stop node'))).toHaveLength(3);
  });

  it('stopped while it starts leaves nothing running', async () => {
    const up = createUp({ node3: ['silent'] });
    const starting = up.start().catch((error: unknown) => error);
    await new Promise<void>((resolve, reject) => {
      const look = async (): Promise<void> => {
        if ((await fake.record()).includes('start node3')) resolve();
        else setImmediate(() => look().catch(reject));
      };
      look().catch(reject);
    });
    await up.stop();
    await starting;
    expect(await readdir(path.join(dataDir, 'run'))).toEqual([]);
    expect(await fake.record()).not.toContain('start engine');
  });

  it('refuses a folder that another one runs over', async () => {
    await mkdir(path.join(dataDir, 'run'), { recursive: true });
    const other = spawn(process.execPath, ['-e', 'setInterval(() => 0, 1e9)', '--', 'up']);
    strangers.push(other);
    await writePidFile(run('up.pid'), other.pid ?? 0);
    await expect(createUp().start()).rejects.toMatchObject({ code: 'CONFLICT' });
    expect(await pidIn('up.pid')).toBe(other.pid);
    started.length = 0;
  });

  it('takes over after a killed one: ends what it left behind, then starts', async () => {
    await mkdir(path.join(dataDir, 'run'), { recursive: true });
    await writePidFile(run('up.pid'), 999_999_999);
    const left = spawn(process.execPath, [
      ...['-e', 'setInterval(() => 0, 1e9)', '--', 'replica'],
      ...['--data', path.join(dataDir, 'node1')],
    ]);
    strangers.push(left);
    const gone = new Promise((resolve) => left.once('exit', (_code, signal) => resolve(signal)));
    await writePidFile(run('node1.replica.pid'), left.pid ?? 0);
    await createUp().start();
    expect(await gone).toBe('SIGTERM');
    expect(notes.all.join('\n')).toContain(`stopping node1.replica (pid ${left.pid})`);
    expect(await pidIn('up.pid')).toBe(process.pid);
  });

  it('refuses a folder whose sockets would have too long a path', async () => {
    dataDir = path.join(fake.dir, 'x'.repeat(90));
    await expect(createUp().start()).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    started.length = 0;
  });
});
