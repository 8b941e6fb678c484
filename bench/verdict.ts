/** The targets that the project set itself, each with what was measured against it. Pure. */
import { MIB } from '../common/units.js';
import { BENCH_CASES } from './cases.js';
import { type CaseSummary, type IdleUse, type MemoryPeak, ratio } from './summary.js';

export interface Verdict {
  readonly target: string;
  readonly measured: string;
  readonly outcome: 'PASS' | 'FALL SHORT' | 'NOT MEASURED';
}

export interface Measured {
  readonly summaries: readonly CaseSummary[];
  readonly memory: readonly MemoryPeak[];
  readonly idle: readonly IdleUse[];
}

/** Of either daemon; what a replica daemon may use per TiB is below 1 MiB at these sizes. */
const RSS_BYTES_MAX = 150 * MIB;
const IDLE_CORE_SHARE_MAX = 0.01;
const LATENCY_ABOVE_FLOOR_US_MAX = 60;
const OURS = 'aurochs-3';

export function verdicts(measured: Measured): Verdict[] {
  const { summaries } = measured;
  return [
    atLeast(summaries, {
      caseName: 'randwrite-4k-qd64',
      target: OURS,
      reference: 'floor-3',
      min: 0.7,
    }),
    writeLatency(summaries),
    atLeast(summaries, {
      caseName: 'randread-4k-qd64',
      target: OURS,
      reference: 'raw',
      min: 0.5,
    }),
    atLeast(summaries, {
      caseName: 'seqwrite-1m-qd4',
      target: OURS,
      reference: 'floor-3',
      min: 0.6,
    }),
    aheadOfQuorum(summaries),
    idleUse(measured.idle),
    memoryPeak(measured.memory, 'engine'),
    memoryPeak(measured.memory, 'replica'),
  ];
}

function verdict(target: string, ok: boolean | undefined, measured: string): Verdict {
  if (ok === undefined) return { target, measured, outcome: 'NOT MEASURED' };
  return { target, measured, outcome: ok ? 'PASS' : 'FALL SHORT' };
}

function atLeast(
  summaries: readonly CaseSummary[],
  want: { caseName: string; target: string; reference: string; min: number },
): Verdict {
  const name = `${want.caseName}: ${want.target} >= ${want.min} of ${want.reference}`;
  const got = ratio(summaries, want);
  return verdict(name, got === undefined ? undefined : got >= want.min, ratioText(got));
}

function writeLatency(summaries: readonly CaseSummary[]): Verdict {
  const p50 = (target: string): number | undefined =>
    summaries.find((s) => s.caseName === 'randwrite-4k-qd1' && s.target === target)?.latencyUs.p50;
  const name = `randwrite-4k-qd1: p50 of ${OURS} <= floor-3 + ${LATENCY_ABOVE_FLOOR_US_MAX} us`;
  const own = p50(OURS);
  const floor = p50('floor-3');
  if (own === undefined || floor === undefined) return verdict(name, undefined, '-');
  const above = own - floor;
  const text = `${own.toFixed(0)} us, floor ${floor.toFixed(0)} us, +${above.toFixed(0)} us`;
  return verdict(name, above <= LATENCY_ABOVE_FLOOR_US_MAX, text);
}

function aheadOfQuorum(summaries: readonly CaseSummary[]): Verdict {
  const name = `every case: IOPS of ${OURS} above qemu-quorum-3`;
  const ratios = BENCH_CASES.flatMap((benchCase) => {
    const got = ratio(summaries, {
      caseName: benchCase.name,
      target: OURS,
      reference: 'qemu-quorum-3',
    });
    return got === undefined ? [] : [{ caseName: benchCase.name, got }];
  });
  if (ratios.length === 0) return verdict(name, undefined, '-');
  const short = ratios.filter((one) => one.got <= 1);
  const lowest = ratios.reduce((low, one) => (one.got < low.got ? one : low));
  const text =
    short.length === 0
      ? `lowest ${ratioText(lowest.got)} (${lowest.caseName}) of ${ratios.length} cases`
      : short.map((one) => `${one.caseName} ${ratioText(one.got)}`).join(', ');
  return verdict(name, short.length === 0, text);
}

function idleUse(idle: readonly IdleUse[]): Verdict {
  const name = 'idle volume, engine and daemons together < 1 % of a core';
  const own = idle.filter((one) => one.target === OURS);
  if (own.length === 0) return verdict(name, undefined, '-');
  const share = own.reduce((sum, one) => sum + one.coreShare, 0);
  return verdict(name, share < IDLE_CORE_SHARE_MAX, `${(share * 100).toFixed(2)} %`);
}

function memoryPeak(memory: readonly MemoryPeak[], role: string): Verdict {
  const name = `peak RSS of ${role === 'engine' ? 'the engine' : 'a replica daemon'} < 150 MiB`;
  const own = memory.filter((one) => one.target === OURS && one.role.startsWith(role));
  if (own.length === 0) return verdict(name, undefined, '-');
  const peak = Math.max(...own.map((one) => one.bytes));
  return verdict(name, peak < RSS_BYTES_MAX, `${(peak / MIB).toFixed(0)} MiB`);
}

function ratioText(got: number | undefined): string {
  return got === undefined ? '-' : got.toFixed(2);
}
