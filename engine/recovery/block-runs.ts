/** Runs of blocks: where two members differ, and how to ask for scattered blocks with few
 *  requests. Pure. */
import { BLOCK_SIZE } from '../../common/units.js';
import { HASH_BYTES } from '../../proto/io-codec.js';
import type { BlockRun } from '../core/missed-writes.js';
import type { ByteRange } from './member-io.js';

/** Runs of blocks whose hashes differ. */
export function differingRuns(a: Buffer, b: Buffer): BlockRun[] {
  const blocks = a.length / HASH_BYTES;
  const runs: BlockRun[] = [];
  let first = -1;
  for (let block = 0; block <= blocks; block += 1) {
    const at = block * HASH_BYTES;
    const differs = block < blocks && a.compare(b, at, at + HASH_BYTES, at, at + HASH_BYTES) !== 0;
    if (differs && first < 0) first = block;
    if (!differs && first >= 0) {
      runs.push({ first, count: block - first });
      first = -1;
    }
  }
  return runs;
}

/** A request costs about as much as copying so many blocks. */
export const GAP_BLOCKS = 8;

/** Joins runs with small gaps: a request costs about as much as `gapMax` blocks. Both members are
 *  equal in the gaps, or may be made so. */
export function joinRuns(runs: readonly BlockRun[], gapMax: number): BlockRun[] {
  const joined: Array<{ first: number; count: number }> = [];
  for (const { first, count } of runs) {
    const last = joined.at(-1);
    if (last !== undefined && first - (last.first + last.count) <= gapMax) {
      last.count = first + count - last.first;
    } else joined.push({ first, count });
  }
  return joined;
}

export function bytesOf(runs: readonly BlockRun[]): number {
  return runs.reduce((sum, run) => sum + run.count, 0) * BLOCK_SIZE;
}

/** The bytes of a run in an extent that begins at `extentOffset`, cut at the end of the volume. */
export function runRange(run: BlockRun, extentOffset: number, volumeBytes: number): ByteRange {
  const offsetBytes = extentOffset + run.first * BLOCK_SIZE;
  const end = Math.min(offsetBytes + run.count * BLOCK_SIZE, volumeBytes);
  return { offsetBytes, lengthBytes: Math.max(0, end - offsetBytes) };
}
