/**
 * A run before it runs: topology, operations of the clients, faults. Made from a seed; a list that
 * somebody shortened is a plan, too.
 */
import { BLOCK_SIZE, EXTENT_SIZE, MIB, REGION_SIZE } from '../../../common/units.js';
import type { EngineTuning } from '../../../engine/engine-config.js';
import { DEFAULT_TUNING } from '../../../engine/engine-config.js';
import type { CellWindow } from '../../support/cell-stamp.js';
import type { OperationKind } from '../../support/history.js';
import type { Fault } from '../faults/fault.js';
import { type Mix, planFaults } from '../faults/mixes.js';
import { Random } from '../kernel/random.js';
import { GOOD_QUALITY, type LinkQuality } from '../network/link.js';
import { planOperations } from './plan-operations.js';

export interface PlannedOperation {
  /** its place in the whole plan: faults are tied to it, also when others are left out */
  readonly place: number;
  readonly kind: OperationKind;
  readonly client: number;
  readonly first: number;
  readonly count: number;
  readonly fua: boolean;
  /** of zeroes: keep the space */
  readonly noHole: boolean;
  /** since the client's operation before */
  readonly gapMs: number;
}

export interface Topology {
  readonly replicas: number;
  /** hosts that an engine may run on; the first ones are those of the replicas if `shared` */
  readonly engineHosts: number;
  readonly shared: boolean;
  readonly volumeBytes: number;
  /** by replica */
  readonly diskBytes: readonly number[];
  /** one of them at least */
  readonly tooSmall: boolean;
  readonly windows: readonly CellWindow[];
  readonly cuts: readonly number[];
  readonly clients: number;
  /** operations that one client has in flight */
  readonly depth: number;
  readonly quantumMs: number;
  readonly quality: LinkQuality;
  readonly times: { readonly readMs: number; readonly writeMs: number; readonly flushMs: number };
  readonly tuning: EngineTuning;
  /** operations stay in one place for long */
  readonly quiet: boolean;
}

export interface RunPlan {
  readonly seed: number;
  readonly mix: string;
  readonly topology: Topology;
  readonly operations: readonly PlannedOperation[];
  readonly faults: readonly Fault[];
}

/** A plan as a file holds it. */
export function planText(plan: RunPlan): string {
  return JSON.stringify(plan);
}

export function parsePlan(text: string): RunPlan {
  return JSON.parse(text, revive) as RunPlan;
}

/** JSON has no Infinity. */
function revive(key: string, value: unknown): unknown {
  return key === 'bytesPerMs' && value === null ? Number.POSITIVE_INFINITY : value;
}

export interface PlanOptions {
  readonly operations: number;
}

export function makePlan(seed: number, mix: Mix, options: PlanOptions): RunPlan {
  const random = new Random(seed).fork(`plan ${mix.name}`);
  const topology = planTopology(random.fork('topology'), mix);
  const operations = planOperations(random.fork('operations'), topology, options.operations);
  const faults = planFaults(random.fork('faults'), mix, {
    replicas: topology.replicas,
    operations: operations.length,
  });
  return { seed, mix: mix.name, topology, operations, faults };
}

function planTopology(random: Random, mix: Mix): Topology {
  const replicas = mix.replicas ?? random.pick([1, 2, 3, 3, 3, 3]);
  const quiet = mix.quiet === true;
  const regions = quiet ? 4 : random.pick([0, 0, 1, 4]);
  const volumeBytes =
    regions * REGION_SIZE + random.pick([4, 6, 9]) * MIB + random.int(8) * BLOCK_SIZE;
  const windows = planWindows(random, volumeBytes);
  const extents = new Set(
    windows.map(({ firstBlock }) => Math.floor((firstBlock * BLOCK_SIZE) / MIB)),
  );
  let tooSmall = false;
  const diskBytes = Array.from({ length: replicas }, () => {
    // A margin for the windows that reach into the next extent; or not enough, where that is
    // wanted.
    const small = random.chance(mix.smallDisks ?? 0);
    const spare = small ? -2 : 8;
    tooSmall ||= small;
    return (Math.max(8, 2 * extents.size + spare) + 1) * MIB;
  });
  return {
    replicas,
    engineHosts: 2,
    shared: random.chance(0.4),
    ...{ volumeBytes, diskBytes, tooSmall, windows },
    cuts: random.pick(CUTS),
    clients: 2 + random.int(3),
    depth: random.pick([1, 4, 8, 16]),
    quantumMs: random.pick([0, 0.02, 0.1, 0.5]),
    quality: {
      ...GOOD_QUALITY,
      delayMs: random.pick([0.03, 0.1, 0.5]),
      jitterMs: random.pick([0.02, 0.1, 1]),
    },
    times: {
      readMs: random.pick([0.05, 0.1, 1]),
      writeMs: random.pick([0.03, 0.1, 1]),
      flushMs: random.pick([0.2, 1, 5]),
    },
    tuning: planTuning(random, quiet),
    quiet,
  };
}

/** Whole blocks mostly; else cells that meet neither blocks nor sectors. */
const CUTS: ReadonlyArray<readonly number[]> = [
  [0],
  [0],
  [0],
  [0, 2048],
  [0, 512, 1024, 2048, 3584],
  [0, 1000, 2345, 4000],
];

/** Few blocks, where something begins or ends: volume, extent, region. */
function planWindows(random: Random, volumeBytes: number): CellWindow[] {
  const blocks = Math.floor(volumeBytes / BLOCK_SIZE);
  const perExtent = EXTENT_SIZE / BLOCK_SIZE;
  const perRegion = REGION_SIZE / BLOCK_SIZE;
  const middles = [perExtent, 2 * perExtent, 3 * perExtent + 128];
  for (let region = 1; region * perRegion < blocks; region += 1) middles.push(region * perRegion);
  const half = random.pick(middles.length > 4 ? [10, 30] : [20, 40, 70]);
  const wanted = [0, ...middles, blocks].map((middle) => ({
    from: Math.max(0, middle - half),
    to: Math.min(blocks, middle + half),
  }));
  const windows: CellWindow[] = [];
  let done = 0;
  for (const { from, to } of wanted.sort((a, b) => a.from - b.from)) {
    const firstBlock = Math.max(from, done);
    if (to > firstBlock) windows.push({ firstBlock, blocks: to - firstBlock });
    done = Math.max(done, to);
  }
  return windows;
}

function planTuning(random: Random, quiet: boolean): EngineTuning {
  const opDeadlineMs = random.pick([1_500, 3_000, 8_000]);
  const leaseMs = random.pick([500, 1_500, 5_000]);
  return {
    ...DEFAULT_TUNING,
    opDeadlineMs,
    controlDeadlineMs: random.pick([800, 2_000, 5_000]),
    keepaliveMs: Math.min(leaseMs / 3, random.pick([200, 1_000])),
    pingDeadlineMs: random.pick([1_000, 3_000, 6_000]),
    leaseMs,
    lostDeadlineMs: random.pick([2_000, 10_000, 60_000]),
    settleDeadlineMs: random.pick([3_000, 30_000]),
    cleanIdleMs: quiet ? 200 : random.pick([200, 1_000, 10_000]),
    cleanIntervalMs: quiet ? 100 : random.pick([100, 500, 2_000]),
    slow: { ...DEFAULT_TUNING.slow, forMs: random.pick([3_000, 10_000]), backOffMs: 5_000 },
  };
}
