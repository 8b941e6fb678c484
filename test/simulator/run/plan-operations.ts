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
  const pace = topology.quiet
    ? { meanMs: 4, pauseRate: 0.03 }
    : { meanMs: random.pick([0.2, 1, 4]), pauseRate: random.pick([0.002, 0.01, 0.03]) };
  const operations: PlannedOperation[] = [];
  const places = new Places(random, layout, topology.quiet);
  while (operations.length < count) {
    const kind = drawKind(random, weights);
    const client = random.int(topology.clients);
    places.next();
    const range = random.chance(0.3)
      ? clamp(layout, hotFirst + random.int(hot), drawCount(random, topology) >> 3)
      : clamp(layout, places.cell(), drawCount(random, topology));
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

/** For a while most operations go to one window, then to another: some places are left alone for
 *  long, and are cleaned. */
class Places {
  readonly #starts: readonly number[];
  /** part of the operations that go anywhere */
  readonly #spread: number;
  #window = 0;
  #left = 0;

  constructor(
    readonly random: Random,
    readonly layout: CellLayout,
    quiet: boolean,
  ) {
    this.#starts = layout.windowStarts();
    this.#spread = quiet ? 0 : random.pick([0, 0.02, 0.2, 1]);
  }

  next(): void {
    this.#left -= 1;
    if (this.#left > 0) return;
    this.#left = 1 + this.random.int(200);
    this.#window = this.random.pick(this.#starts);
  }

  cell(): number {
    if (this.random.chance(this.#spread)) return this.random.int(this.layout.cells);
    return this.#window + this.random.int(this.layout.roomAt(this.#window));
  }
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
function drawGap(
  random: Random,
  pace: { readonly meanMs: number; readonly pauseRate: number },
): number {
  if (random.chance(pace.pauseRate)) return random.between(200, 4_000);
  return random.chance(0.5) ? 0 : random.exponential(pace.meanMs);
}
