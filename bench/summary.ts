/** From single runs to the numbers of the tables. Pure: no clock, no files. */
import { MIB } from '../common/units.js';
import type { BenchCase } from './cases.js';
import type { FioResult } from './fio.js';
import { median, type Spread, spread } from './statistics.js';

/** One run of one case on one target. Rates are the client's: three copies written count once. */
export interface Sample {
  readonly caseName: string;
  readonly target: string;
  readonly repetition: number;
  readonly fio: FioResult;
  /** by role: fio, engine, replica1 … */
  readonly cpuSeconds: Readonly<Record<string, number>>;
}

export interface PercentilesUs {
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
}

export interface CaseSummary {
  readonly caseName: string;
  readonly target: string;
  readonly runs: number;
  readonly iops: Spread;
  readonly mibPerSecond: Spread;
  /** medians over the runs; of the write or read alone */
  readonly latencyUs: PercentilesUs;
  /** of the flush alone; undefined where the case has none */
  readonly flushLatencyUs: PercentilesUs | undefined;
  /** medians over the runs, by role */
  readonly cpuSecondsPer100k: Readonly<Record<string, number>>;
}

/** Peak resident memory of one process over the whole benchmark. */
export interface MemoryPeak {
  readonly target: string;
  readonly role: string;
  readonly bytes: number;
}

/** CPU use of one process while its volume was idle, as a share of one core. */
export interface IdleUse {
  readonly target: string;
  readonly role: string;
  readonly coreShare: number;
}

/** fio's result as the client of `fioCopies` copies sees it: it wrote that many times as much. */
export function perClient(result: FioResult, fioCopies: number): FioResult {
  return {
    ...result,
    iops: result.iops / fioCopies,
    bytesPerSecond: result.bytesPerSecond / fioCopies,
    ios: result.ios / fioCopies,
  };
}

/** @returns undefined when there is no sample of that case and target */
export function summarize(
  samples: readonly Sample[],
  of: { benchCase: BenchCase; target: string },
): CaseSummary | undefined {
  const own = samples.filter((s) => s.caseName === of.benchCase.name && s.target === of.target);
  const first = own[0];
  if (first === undefined) return undefined;
  const percentiles = (pick: (fio: FioResult) => PercentilesUs | undefined): PercentilesUs => {
    const all = own.map((sample) => pick(sample.fio)).filter((found) => found !== undefined);
    return {
      p50: median(all.map((one) => one.p50)),
      p99: median(all.map((one) => one.p99)),
      p999: median(all.map((one) => one.p999)),
    };
  };
  const cpu: Record<string, number> = {};
  for (const role of Object.keys(first.cpuSeconds)) {
    cpu[role] = median(own.map((s) => ((s.cpuSeconds[role] ?? 0) / s.fio.ios) * 100_000));
  }
  return {
    caseName: of.benchCase.name,
    target: of.target,
    runs: own.length,
    iops: spread(own.map((sample) => sample.fio.iops)),
    mibPerSecond: spread(own.map((sample) => sample.fio.bytesPerSecond / MIB)),
    latencyUs: percentiles((fio) => fio.latencyUs),
    flushLatencyUs: of.benchCase.flushEach ? percentiles((fio) => fio.flushLatencyUs) : undefined,
    cpuSecondsPer100k: cpu,
  };
}

/** IOPS of one target as a fraction of another's; undefined when one was not measured. */
export function ratio(
  summaries: readonly CaseSummary[],
  of: { caseName: string; target: string; reference: string },
): number | undefined {
  const find = (target: string): number | undefined =>
    summaries.find((s) => s.caseName === of.caseName && s.target === target)?.iops.median;
  const own = find(of.target);
  const other = find(of.reference);
  return own === undefined || other === undefined || other === 0 ? undefined : own / other;
}
