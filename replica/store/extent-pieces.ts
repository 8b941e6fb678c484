/**
 * The parts of a request in its extents, and what of them is to be read from the device.
 *
 * Dense patterns are read in one go: a gap between two runs of present blocks is read over when it
 * is at most three times as long as the shorter of what it joins, so that at least a quarter of
 * each span is present. What the device holds in the gaps is never looked at.
 */
import { forEachRun } from '../../common/bitmap.js';
import { BLOCK_SIZE, BLOCKS_PER_EXTENT } from '../../common/units.js';
import { PHYSICAL_AT, PRESENT_AT, SLOT_BYTES } from './extent-record.js';
import type { StoreContext } from './store-context.js';

/** The part of a request that lies in one extent. */
export interface Piece {
  readonly extent: number;
  /** first block in the extent, and in the request */
  readonly first: number;
  readonly at: number;
  readonly count: number;
  /** pinned; undefined: all absent */
  slot: number | undefined;
}

/** Present blocks that follow each other in the request and on the device. */
export interface Run {
  /** first block in the request */
  readonly at: number;
  readonly count: number;
  /** where the first one is on the device, in bytes */
  readonly place: number;
}

/** One operation of the device: runs, and the gaps between them. */
export interface Span extends Run {
  readonly runs: readonly Run[];
}

const GAP_FACTOR = 3;

export function piecesOf(offsetBytes: number, blocks: number): Piece[] {
  const pieces: Piece[] = [];
  for (let at = 0; at < blocks; ) {
    const block = offsetBytes / BLOCK_SIZE + at;
    const extent = Math.floor(block / BLOCKS_PER_EXTENT);
    const first = block - extent * BLOCKS_PER_EXTENT;
    const count = Math.min(blocks - at, BLOCKS_PER_EXTENT - first);
    pieces.push({ extent, first, at, count, slot: undefined });
    at += count;
  }
  return pieces;
}

/** The present blocks, ascending. */
export function presentRuns(context: StoreContext, pieces: readonly Piece[]): Run[] {
  const { slab } = context.disk.cache;
  const runs: Run[] = [];
  for (const { slot, first, at, count } of pieces) {
    if (slot === undefined) continue;
    const physical = slab.readUInt32LE(slot * SLOT_BYTES + PHYSICAL_AT);
    const range = { first, count, value: true };
    forEachRun(slab, slot * SLOT_BYTES + PRESENT_AT, range, (run, length) => {
      const place = context.deviceOffset(physical, run);
      pushRun(runs, { at: at + run - first, count: length, place });
    });
  }
  return runs;
}

/** Groups ascending runs into operations. */
export function spansOf(runs: readonly Run[]): Span[] {
  const spans: Array<{ at: number; count: number; place: number; runs: Run[] }> = [];
  let present = 0;
  for (const run of runs) {
    const last = spans.at(-1);
    if (last !== undefined && joins(last, present, run)) {
      last.count = run.at + run.count - last.at;
      last.runs.push(run);
      present += run.count;
    } else {
      spans.push({ ...run, runs: [run] });
      present = run.count;
    }
  }
  return spans;
}

/** Calls back for what is between the runs of a span. */
export function forEachGap(span: Span, callback: (at: number, count: number) => void): void {
  let end = span.at;
  for (const run of span.runs) {
    if (run.at > end) callback(end, run.at - end);
    end = run.at + run.count;
  }
}

function joins(last: Run, present: number, next: Run): boolean {
  const gap = next.at - last.at - last.count;
  if (gap > GAP_FACTOR * Math.min(present, next.count)) return false;
  return next.place - last.place === (next.at - last.at) * BLOCK_SIZE;
}

/** Runs that follow each other both in the request and on the device are one. */
function pushRun(runs: Run[], run: Run): void {
  const last = runs.at(-1);
  const follows =
    last !== undefined &&
    last.at + last.count === run.at &&
    last.place + last.count * BLOCK_SIZE === run.place;
  if (last !== undefined && follows) {
    runs[runs.length - 1] = { ...last, count: last.count + run.count };
  } else runs.push(run);
}
