/** Reads every cell: unread loss is invisible. */
import type { CellLayout } from '../../support/cell-stamp.js';
import type { PlannedOperation } from './plan.js';

const CELLS_MAX = 64;

export function sweepOperations(layout: CellLayout): PlannedOperation[] {
  const operations: PlannedOperation[] = [];
  for (let first = 0; first < layout.cells; ) {
    const count = Math.min(CELLS_MAX, layout.roomAt(first));
    const flags = { place: 0, fua: false, noHole: false, gapMs: 0 };
    operations.push({ kind: 'R', client: 0, first, count, ...flags });
    first += count;
  }
  return operations;
}
