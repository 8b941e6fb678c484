import { describe, expect, it } from 'vitest';
import { BENCH_CASES, type BenchCase } from '../../bench/cases.js';
import { summarizeProfile } from '../../bench/cpu-profile.js';
import { parseBenchOptions } from '../../bench/options.js';
import {
  parseMachineCpu,
  parsePeakRss,
  parseProcessStat,
  parseReapedCpu,
} from '../../bench/process-usage.js';
import { median, rotated, spread } from '../../bench/statistics.js';
import { perClient, ratio, type Sample, summarize } from '../../bench/summary.js';
import { verdicts } from '../../bench/verdict.js';

const QD64 = BENCH_CASES.find((one) => one.name === 'randwrite-4k-qd64') as BenchCase;

function sample(target: string, iops: number, benchCase = QD64): Sample {
  const latencyUs = { mean: 1, p50: 100_000 / iops, p99: 2, p999: 3 };
  return {
    ...{ caseName: benchCase.name, target, repetition: 0 },
    fio: {
      ...{ iops, bytesPerSecond: iops * 4096, ios: iops * 2, latencyUs, cpuSeconds: 1 },
      flushLatencyUs: undefined,
    },
    cpuSeconds: { fio: 1, engine: iops / 10_000 },
  };
}

describe('statistics', () => {
  const medians: ReadonlyArray<{ values: number[]; want: number }> = [
    { values: [5], want: 5 },
    { values: [9, 1], want: 5 },
    { values: [10, 9, 100], want: 10 },
    { values: [4, 1, 3, 2], want: 2.5 },
  ];
  it.each(medians)('median of $values is $want', ({ values, want }) => {
    expect(median(values)).toBe(want);
  });

  it('spread leaves its input as it was', () => {
    const values = [3, 1, 2];
    expect(spread(values)).toEqual({ median: 2, min: 1, max: 3 });
    expect(values).toEqual([3, 1, 2]);
  });

  it('rotation lets every target start once', () => {
    const firsts = [0, 1, 2, 3].map((by) => rotated(['a', 'b', 'c'], by)[0]);
    expect(firsts).toEqual(['a', 'b', 'c', 'a']);
  });
});

describe('summary', () => {
  it('takes medians over the runs of one case and target only', () => {
    const samples = [sample('x', 100), sample('x', 300), sample('x', 200), sample('y', 1)];
    const summary = summarize(samples, { benchCase: QD64, target: 'x' });
    expect(summary?.iops).toEqual({ median: 200, min: 100, max: 300 });
    expect(summary?.runs).toBe(3);
    expect(summary?.cpuSecondsPer100k['engine']).toBeCloseTo(5);
    expect(summarize(samples, { benchCase: QD64, target: 'z' })).toBeUndefined();
  });

  it('three copies written by fio count once for the client', () => {
    const scaled = perClient(sample('raw-x3', 300).fio, 3);
    expect([scaled.iops, scaled.ios, scaled.latencyUs.p50]).toEqual([100, 200, 100_000 / 300]);
  });

  it('ratio is unknown without both sides', () => {
    const summaries = ['x', 'y'].flatMap((target, index) => {
      const found = summarize([sample(target, 100 * (index + 1))], { benchCase: QD64, target });
      return found === undefined ? [] : [found];
    });
    const of = { caseName: QD64.name, target: 'x' };
    expect(ratio(summaries, { ...of, reference: 'y' })).toBe(0.5);
    expect(ratio(summaries, { ...of, reference: 'z' })).toBeUndefined();
  });
});

describe('verdicts', () => {
  const of = (samples: readonly Sample[], idleShare: number, rssMib: number) => {
    const summaries = ['aurochs-3', 'floor-3', 'qemu-quorum-3'].flatMap(
      (target) => summarize(samples, { benchCase: QD64, target }) ?? [],
    );
    const idle = [{ target: 'aurochs-3', role: 'engine', coreShare: idleShare }];
    const memory = [{ target: 'aurochs-3', role: 'engine', bytes: rssMib * 1024 * 1024 }];
    return verdicts({ summaries, idle, memory }).map((one) => `${one.outcome}: ${one.target}`);
  };

  it('say what passes, what falls short and what was not measured', () => {
    const good = of([sample('aurochs-3', 71), sample('floor-3', 100)], 0.009, 149);
    expect(good).toContain('PASS: randwrite-4k-qd64: aurochs-3 >= 0.7 of floor-3');
    expect(good).toContain('NOT MEASURED: every case: IOPS of aurochs-3 above qemu-quorum-3');
    expect(good.filter((text) => text.startsWith('PASS'))).toHaveLength(3);
    const short = of(
      [sample('aurochs-3', 69), sample('floor-3', 100), sample('qemu-quorum-3', 69)],
      0.01,
      150,
    );
    expect(short.filter((text) => text.startsWith('FALL SHORT'))).toHaveLength(4);
  });
});

describe('/proc', () => {
  it('stat is read behind a name with blanks and parentheses', () => {
    const line = '4242 (node (x) y) S 17 4242 4242 0 -1 4194304 9 0 0 0 150 50 7 7 20 0 11 0 1 2 3';
    expect(parseProcessStat(line)).toEqual({ pid: 4242, parentPid: 17, cpuSeconds: 2 });
    expect(parseReapedCpu(line)).toBe(0.14);
    expect(parseProcessStat('')).toBeUndefined();
    expect(parseProcessStat('12 (cut')).toBeUndefined();
  });

  it('the machine is busy with all but idle and waiting for I/O', () => {
    expect(parseMachineCpu('cpu  100 1 200 7777 888 3 4 92 0 0\ncpu0 1 1\n')).toBe(4);
    expect(parseMachineCpu('intr 5')).toBeUndefined();
  });

  it('peak memory is VmHWM', () => {
    expect(parsePeakRss('VmPeak:\t 99 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 5 kB\n')).toBe(2_097_152);
    expect(parsePeakRss('VmRSS:\t 5 kB\n')).toBeUndefined();
  });
});

describe('CPU profile', () => {
  it('gives each function the time until the next sample, and idle apart', () => {
    const frame = (functionName: string, url: string) => ({ functionName, url, lineNumber: 9 });
    const profile = {
      nodes: [
        { id: 1, callFrame: frame('(idle)', '') },
        { id: 2, callFrame: frame('push', 'file:///x/dist/engine/write-path.js') },
        { id: 3, callFrame: frame('push', 'file:///x/dist/engine/write-path.js') },
      ],
      ...{ samples: [1, 2, 3, 1], timeDeltas: [0, 1_000_000, 250_000, 500_000] },
    };
    expect(summarizeProfile(JSON.stringify(profile))).toEqual({
      ...{ seconds: 1.75, busySeconds: 0.75 },
      selfTimes: [{ function: 'push engine/write-path.js:10', seconds: 0.75 }],
    });
    expect(() => summarizeProfile('{}')).toThrow(/lacks/);
  });
});

describe('options', () => {
  it('quick is shorter, and every number can be set', () => {
    const quick = parseBenchOptions(['--quick']);
    const full = parseBenchOptions(['--runs', '7', '--only', '/floor', '--size', '1GiB']);
    expect([quick.runs, quick.quick]).toEqual([1, true]);
    expect([full.runs, full.only?.test('a/floor-3'), full.sizeBytes]).toEqual([7, true, 2 ** 30]);
  });

  const bad = [['--runs', '0'], ['--runs', 'x'], ['--only', '('], ['--size', '1KiB'], ['--what']];
  it.each(bad.map((args) => ({ args })))('refused: $args', ({ args }) => {
    expect(() => parseBenchOptions(args)).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT' }),
    );
  });
});
