import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { createProgram, main } from '../../cli/main.js';
import { renderReplicas } from '../../cli/replica-text.js';
import { describeError } from '../../cli/report.js';
import { absoluteAddress, openVolume, withVolume } from '../../cli/volume-client.js';
import { renderVolume } from '../../cli/volume-text.js';
import { ERROR_CODES, StorageError } from '../../common/errors.js';
import { FakeVolume, replicaWith, statusWith } from './volume-facts.js';

let stdout = '';
let stderr = '';

beforeEach(() => {
  stdout = '';
  stderr = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    stdout += text;
    return true;
  });
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
    stderr += text;
    return true;
  });
});
afterEach(() => vi.restoreAllMocks());

describe('aurochs: exit codes and errors', () => {
  it.each([
    [['--help'], 0],
    [['--version'], 0],
    [['up', '--help'], 0],
    [['help', 'doctor'], 0],
    [[], 2],
    [['volume'], 2],
    [['nonsense'], 2],
    [['volume', 'nonsense'], 2],
    [['doctor', '--nonsense'], 2],
    [['doctor', '-o', 'yaml'], 2],
    [['up'], 2],
    [['up', '--data', '/tmp/x', '--size', '10GB'], 2],
    [['up', '--data', '/tmp/x', '--size', '0'], 2],
    [['up', '--data', '/tmp/x', '--nodes', '0'], 2],
    [['up', '--data', '/tmp/x', '--volume', '../etc'], 2],
    [['up', '--data', '/tmp/x', '--io-timeout', 'long'], 2],
    [['up', '--data', '/tmp/x', '--rebuild-rate', '10MB'], 2],
    [['up', '--data', '/tmp/x', '--scrub-interval', '-1'], 2],
    [['volume', 'show', 'demo'], 2],
    [['volume', 'show', 'Demo'], 2],
    [['replica', 'ls', '--engine', 'unix:/x'], 2],
    [['replica', 'add', 'demo', 'nowhere', '--engine', 'unix:/x'], 2],
    [['replica', 'add', 'demo', '10.0.0.1:9601'], 2],
    [['replica', 'remove', 'demo', '--engine', 'unix:/x'], 2],
    [['replica', 'replace', 'demo', 'r-1', '--engine', 'unix:/x'], 2],
    [['explain', 'demo'], 2],
    [['explain', 'demo', '--since', '1 hour', '--engine', 'unix:/x'], 2],
    [['explain', 'demo', '--engine', 'unix:/nobody/listens'], 5],
    [['events', 'demo', '-n', '0', '--engine', 'unix:/x'], 2],
    [['scrub', 'begin', 'demo', '--engine', 'unix:/x'], 2],
    [['scrub', 'status', 'demo'], 2],
    [['bench', 'http://x'], 2],
  ])('%j ends with %i', async (argv, exitCode) => {
    expect(await main(argv)).toBe(exitCode);
    if (exitCode === 0) expect([stdout === '', stderr]).toEqual([false, '']);
    else expect(stderr).not.toBe('');
    if (exitCode === 2 && argv.length > 1) expect(stderr).toMatch(/^error INVALID_ARGUMENT: .+\n/);
  });

  it('prints the error as JSON with -o json', async () => {
    expect(await main(['volume', 'show', 'demo', '-o', 'json'])).toBe(2);
    expect(JSON.parse(stderr)).toMatchObject({
      error: { code: 'INVALID_ARGUMENT', exitCode: 2, hint: expect.stringContaining('--engine') },
    });
    expect(stdout).toBe('');
  });

  it('shows examples in the help of every command that does something', () => {
    const program = createProgram(() => undefined);
    const leaves = program.commands.flatMap((one) =>
      one.commands.length > 0 ? one.commands : [one],
    );
    for (const command of leaves.filter((one) => one.name() !== 'engine')) {
      stdout = '';
      command.outputHelp();
      expect(stdout, command.name()).toMatch(/Examples?:\n/);
      expect(stdout, command.name()).toContain('--output <format>');
    }
  });

  it.each(Object.entries(ERROR_CODES))('%s maps to its exit code', (code, { exit }) => {
    const error = new StorageError(code as keyof typeof ERROR_CODES, 'it failed', { hint: 'try' });
    const described = describeError(error, { json: false });
    expect(described.exitCode).toBe(exit);
    expect(described.text.split('\n').slice(0, 2)).toEqual([
      `error ${code}: it failed`,
      'hint: try',
    ]);
  });

  it('shows the stack of a programmer error, and ends with 1', () => {
    const { text, exitCode } = describeError(new TypeError('oops'), { json: false });
    expect(exitCode).toBe(1);
    expect(text).toMatch(/^error INTERNAL: unexpected: oops\nTypeError: oops\n {4}at /);
  });
});

describe('aurochs up: a folder made otherwise', () => {
  it('is refused with CONFLICT before anything starts', async () => {
    const dir = await mkdtemp(path.join(tmpdir(), 'aurochs-main-'));
    try {
      const { mergeConfig, writeConfig } = await import('../../cli/up-config.js');
      await writeConfig(dir, mergeConfig(undefined, { nodes: 2 }));
      expect(await main(['up', '--data', dir, '--nodes', '3'])).toBe(4);
      expect(stderr).toMatch(/^error CONFLICT: .*--nodes 2, not 3/);
    } finally {
      await rm(dir, { recursive: true });
    }
  });
});

const status = statusWith({
  state: 'degraded',
  generation: 3,
  epoch: 7,
  reason: 'one copy is excluded',
  uris: ['nbd+unix:///demo?socket=/s'],
  replicas: [
    replicaWith({
      ...{ replicaId: 'r-1', address: 'unix:/a', allocatedBytes: 1024 ** 2, local: true },
      ...{ readLatencyMs: 0.123, writeLatencyMs: 1, inFlight: 4 },
    }),
    replicaWith({
      ...{ replicaId: 'r-2', address: '10.0.0.2:9501', state: 'failed', recordedState: 'failed' },
      reason: 'connection lost',
    }),
  ],
});

describe('volume show and replica ls', () => {
  let closed = 0;
  const connect = (): FakeVolume =>
    new FakeVolume({
      status: () => status,
      onClose: () => {
        closed += 1;
      },
    });

  it('ask the engine and close the connection', async () => {
    closed = 0;
    const access = { engine: 'unix:/x', connect };
    expect(await withVolume('demo', access, (client) => client.status())).toBe(status);
    expect(closed).toBe(1);
  });

  it('take a socket path from the working directory', () => {
    expect(absoluteAddress('unix:run/x.sock')).toBe(`unix:${process.cwd()}/run/x.sock`);
    expect(absoluteAddress('unix:/run/x.sock')).toBe('unix:/run/x.sock');
    expect(absoluteAddress('10.0.0.1:9501')).toBe('10.0.0.1:9501');
  });

  it('refuse an engine that serves another volume, and close', async () => {
    closed = 0;
    const opened = openVolume('pg', { engine: 'unix:/x', connect });
    await expect(opened).rejects.toMatchObject({ code: 'NOT_FOUND' });
    expect(closed).toBe(1);
  });

  it('show what matters', () => {
    expect(renderVolume(status)).toMatch(/state +degraded: one copy is excluded/);
    expect(renderVolume(status)).toMatch(/copies +1 of 2 in sync/);
    const lines = renderReplicas(status.replicas).split('\n');
    expect(lines).toHaveLength(3);
    expect(lines[1]).toMatch(/^r-1 +in-sync +1MiB +0\.12ms +1\.00ms +4 +unix:\/a \(local\)$/);
    expect(lines[2]).toMatch(/^r-2 +failed: connection lost +0B/);
  });
});
