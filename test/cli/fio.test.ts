import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { access, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { renderResults } from '../../cli/bench-command.js';
import { type FioJob, fioArguments, parseFioReport, runFio } from '../../cli/fio.js';

const job: FioJob = { name: 'w', kind: 'randwrite', blockBytes: 4096, depth: 16 };
const percentile = { '50.000000': 1500, '99.000000': 2000, '99.900000': 1_000_000 };
const side = { iops: 1234.5, bw_bytes: 5_000_000, clat_ns: { percentile } };

describe('fio', () => {
  it('is asked for the nbd engine, a time and JSON', () => {
    const args = fioArguments(
      { ...job, flush: true },
      { uri: 'nbd://h/v', seconds: 3, report: '/r' },
    );
    for (const arg of ['--ioengine=nbd', '--uri=nbd://h/v', '--fsync=1', '--runtime=3']) {
      expect(args).toContain(arg);
    }
    expect(args.filter((arg) => !arg.startsWith('--'))).toEqual([]);
  });

  it('is read after its remark, from the side that was measured', () => {
    const text = `fio: connected to NBD server\n${JSON.stringify({ jobs: [{ write: side }] })}`;
    expect(parseFioReport(job, text)).toEqual({
      name: 'w',
      iops: 1234.5,
      bytesPerSecond: 5_000_000,
      p50Us: 1.5,
      p99Us: 2,
      p999Us: 1000,
    });
  });

  it.each([
    ['no jobs', { jobs: [] }],
    ['the other side only', { jobs: [{ read: side }] }],
    ['no percentiles', { jobs: [{ write: { ...side, clat_ns: {} } }] }],
    ['text for a number', { jobs: [{ write: { ...side, iops: '7' } }] }],
  ])('is refused with %s', (_name, report) => {
    expect(() => parseFioReport(job, JSON.stringify(report))).toThrow(
      expect.objectContaining({ code: 'PROTOCOL_ERROR' }),
    );
  });

  it('is named when it is not installed', async () => {
    const options = { uri: 'nbd://h/v', seconds: 1, program: '/nonexistent/fio' };
    await expect(runFio(job, options)).rejects.toMatchObject({ code: 'UNSUPPORTED' });
  });

  it('is shown as a table', () => {
    const row = { name: 'w', iops: 1234.5, bytesPerSecond: 5 * 1024 * 1024 };
    const text = renderResults([{ ...row, p50Us: 1.5, p99Us: 20, p999Us: 1000 }]);
    expect(text.split('\n')).toHaveLength(2);
    expect(text).toMatch(/w +1235 +5MiB\/s +1\.5us +20us +1000us/);
  });
});

const tools = ['fio', 'nbdkit'].every((tool) => {
  try {
    return execFileSync('which', [tool]).length > 0;
  } catch {
    return false;
  }
});

describe.skipIf(!tools)('fio against a real NBD server (needs fio and nbdkit)', () => {
  let dir: string;
  let server: ChildProcess;
  beforeEach(async () => {
    dir = await mkdtemp(path.join(tmpdir(), 'aurochs-fio-test-'));
  });
  afterEach(async () => {
    server?.kill('SIGKILL');
    await rm(dir, { recursive: true });
  });

  it('measures', async () => {
    const socket = path.join(dir, 's.sock');
    const pidFile = path.join(dir, 'pid');
    server = spawn('nbdkit', ['-f', '-U', socket, '-P', pidFile, 'memory', '64M']);
    while (
      !(await access(pidFile).then(
        () => true,
        () => false,
      ))
    ) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    const result = await runFio(job, { uri: `nbd+unix:///?socket=${socket}`, seconds: 1 });
    expect(result.iops).toBeGreaterThan(1);
    expect(result.p99Us).toBeGreaterThanOrEqual(result.p50Us);
  });

  it('says why it failed', async () => {
    const uri = `nbd+unix:///?socket=${path.join(dir, 'nobody.sock')}`;
    await expect(runFio(job, { uri, seconds: 1 })).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  });
});
