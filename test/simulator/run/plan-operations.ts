/** What the clients of a run ask for: overlapping on purpose, much of it in few places, the same
 *  cell read again and again. */

import { CellLayout } from '../../support/cell-stamp.js';
import type { OperationKind } from '../../support/history.js';
import type { Random } from '../kernel/random.js';
import type { PlannedOperation, Topology } from './plan.js';

/** Of a hundred operations. */
interface Weights {
  readonly W: number;
  readonly R: number;
  readonly F: number;
  readonly T: number;
  readonly Z: number;
}

const WEIGHTS: readonly Weights[] = [
  { W: 50, R: 38, F: 5, T: 4, Z: 3 },
  { W: 30, R: 58, F: 8, T: 2, Z: 2 },
  { W: 80, R: 15, F: 5, T: 0, Z: 0 },
  { W: 45, R: 30, F: 1, T: 14, Z: 10 },
];

const BLOCKS_MAX = 64;

export function planOperations(
  random: Random,
  topology: Topology,
  count: number,
): PlannedOperation[] {
  const layout = new CellLayout(topology.windows, topology.cuts);
  const weights = random.pick(WEIGHTS);
  const fuaRate = random.pick([0, 0.05, 0.3]);
  const hot = Math.max(1, Math.ceil(layout.cells / 100));
  const hotFirst = random.int(layout.cells - hot);
  const pace = random.pick([0.2, 1, 4]);
  const operations: PlannedOperation[] = [];
  while (operations.length < count) {
    const kind = drawKind(random, weights);
    const client = random.int(topology.clients);
    const range = random.chance(0.3)
      ? clamp(layout, hotFirst + random.int(hot), drawCount(random, topology) >> 3)
      : clamp(layout, random.int(layout.cells), drawCount(random, topology));
    const fua = kind !== 'R' && kind !== 'F' && random.chance(fuaRate);
    const repeat = kind === 'R' && random.chance(0.2) ? 2 + random.int(3) : 1;
    for (let n = 0; n < repeat; n += 1) {
      const gapMs = n === 0 ? drawGap(random, pace) : 0;
      const noHole = random.chance(0.5);
      operations.push({ place: operations.length, kind, client, ...range, fua, noHole, gapMs });
    }
  }
  return operations.slice(0, count);
}

function drawKind(random: Random, weights: Weights): OperationKind {
  let dice = random.int(100);
  for (const kind of ['W', 'R', 'F', 'T', 'Z'] as const) {
    dice -= weights[kind];
    if (dice < 0) return kind;
  }
  return 'R';
}

/** Cells: 1 to 64 blocks, small ones mostly. */
function drawCount(random: Random, topology: Topology): number {
  const blocks = random.chance(0.6) ? 1 : Math.ceil(random.next() ** 3 * BLOCKS_MAX);
  const cells = blocks * topology.cuts.length;
  return Math.max(1, cells - random.int(topology.cuts.length));
}

function clamp(layout: CellLayout, first: number, count: number) {
  return { first, count: Math.max(1, Math.min(count, layout.roomAt(first))) };
}

/** Bursts, pauses in which regions are cleaned, and now and then a long one. */
function drawGap(random: Random, pace: number): number {
  if (random.chance(0.5)) return 0;
  if (random.chance(0.01)) return random.between(200, 4_000);
  return random.exponential(pace);
}
