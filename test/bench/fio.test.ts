import { describe, expect, it } from 'vitest';
import { BENCH_CASES, type BenchCase } from '../../bench/cases.js';
import { fioArguments, parseFioReport } from '../../bench/fio.js';

function benchCase(name: string): BenchCase {
  const found = BENCH_CASES.find((one) => one.name === name);
  if (found === undefined) throw new Error(`no case ${name}`);
  return found;
}

function latency(p50: number): object {
  const percentile = { '50.000000': p50, '99.000000': p50 * 2, '99.900000': p50 * 3 };
  return { mean: p50 + 1000, percentile };
}

/** What fio 3.33 prints for one group, cut to what is read. */
function report(job: object = {}): string {
  const idle = { total_ios: 0, iops: 0, bw_bytes: 0, clat_ns: { mean: 0 } };
  const busy = { total_ios: 5000, iops: 2000.5, bw_bytes: 8_194_048, clat_ns: latency(40_000) };
  return JSON.stringify({
    'fio version': 'fio-3.33',
    jobs: [
      {
        ...{
          jobname: 'volume',
          error: 0,
          read: idle,
          write: busy,
          sync: { lat_ns: latency(9000) },
        },
        ...{ job_runtime: 40_000, usr_cpu: 2.5, sys_cpu: 7.5 },
        ...job,
      },
    ],
  });
}

describe('fio report', () => {
  it('is read behind the banner of the nbd engine', () => {
    const text = `fio: connected to NBD server\n${report()}`;
    expect(parseFioReport(text, benchCase('randwrite-4k-qd64'))).toEqual({
      iops: 2000.5,
      bytesPerSecond: 8_194_048,
      ios: 5000,
      latencyUs: { mean: 41, p50: 40, p99: 80, p999: 120 },
      flushLatencyUs: undefined,
      cpuSeconds: 4,
    });
  });

  it('gives the latency of the flush apart from that of the write', () => {
    const result = parseFioReport(report(), benchCase('flush-4k-x16'));
    expect(result.flushLatencyUs).toEqual({ mean: 10, p50: 9, p99: 18, p999: 27 });
    expect(result.latencyUs.p50).toBe(40);
  });

  const bad: ReadonlyArray<{ name: string; text: string; says: RegExp }> = [
    { name: 'empty', text: '', says: /no JSON/ },
    { name: 'cut off', text: report().slice(0, 80), says: /report of fio/ },
    { name: 'a job error', text: report({ error: 5 }), says: /error 5/ },
    { name: 'two groups', text: '{"jobs":[{},{}]}', says: /one group/ },
    { name: 'no percentiles', text: report({ write: { total_ios: 1 } }), says: /"iops"/ },
    { name: 'nothing done', text: report({ write: { total_ios: 0 } }), says: /no request/ },
  ];
  it.each(bad)('is refused: $name', ({ text, says }) => {
    expect(() => parseFioReport(text, benchCase('randwrite-4k-qd1'))).toThrow(says);
  });
});

describe('fio arguments', () => {
  const nbd = { kind: 'nbd', uri: 'nbd+unix:///?socket=/s' } as const;
  const files = { kind: 'files', paths: ['/a', '/b'] } as const;

  it('name the engine before its uri, since fio refuses the other order', () => {
    const run = { benchCase: benchCase('randread-4k-qd16'), sizeBytes: 4096, runMs: 250, seed: 7 };
    const args = fioArguments({ ...run, endpoint: nbd });
    expect(args.indexOf('--ioengine=nbd')).toBeLessThan(args.indexOf(`--uri=${nbd.uri}`));
    expect(args).toEqual(
      expect.arrayContaining(['--rw=randread', '--iodepth=16', '--runtime=250ms', '--randseed=7']),
    );
  });

  it('D1: flush-per-write is one flushing client per unit of depth, on every target', () => {
    const run = { benchCase: benchCase('flush-4k-x16'), sizeBytes: 4096, runMs: 250, seed: 7 };
    const clients = ['--iodepth=1', '--numjobs=16'];
    expect(fioArguments({ ...run, endpoint: nbd })).toEqual(
      expect.arrayContaining([...clients, '--fsync=1']),
    );
    expect(fioArguments({ ...run, endpoint: files })).toEqual(
      expect.arrayContaining([...clients, '--fdatasync=1', '--direct=1', '--filename=/b']),
    );
  });

  it('precondition covers the volume once instead of running for a time', () => {
    const run = { benchCase: benchCase('seqwrite-1m-qd4'), sizeBytes: 4096, seed: 7 };
    const args = fioArguments({ ...run, endpoint: nbd, runMs: undefined });
    expect(args.some((arg) => arg.startsWith('--runtime') || arg === '--time_based')).toBe(false);
  });
});
