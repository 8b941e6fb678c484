/** Finds zeroes in read data, so that they travel as a hole of 32 bytes. Costs next to nothing
 *  where there are none. */
import { BLOCK_SIZE, KIB } from '../../common/units.js';

const PIECE_BYTES = 64 * KIB;
const ZEROES = Buffer.alloc(PIECE_BYTES);

function isZero(chunk: Buffer, start: number, end: number): boolean {
  // first and last byte decide nearly always
  if (chunk[start] !== 0 || chunk[end - 1] !== 0) return false;
  return chunk.compare(ZEROES, 0, end - start, start, end) === 0;
}

/** Lengths of data and zeroes in turn, data first (perhaps 0), together `lengthBytes`. Undefined:
 *  no zeroes found. Looks at pieces of 64 KiB and at what is left of a chunk, not below one
 *  block. */
export function zeroRuns(chunks: readonly Buffer[], lengthBytes: number): number[] | undefined {
  if (lengthBytes < BLOCK_SIZE) return undefined;
  let runs: number[] | undefined;
  let position = 0;
  for (const chunk of chunks) {
    for (let start = 0; start < chunk.length; start += PIECE_BYTES) {
      const end = Math.min(start + PIECE_BYTES, chunk.length);
      const zero = end - start >= BLOCK_SIZE && isZero(chunk, start, end);
      if (zero) runs ??= [position];
      if (runs !== undefined) addRun(runs, zero, end - start);
      position += end - start;
    }
  }
  return runs;
}

function addRun(runs: number[], zero: boolean, lengthBytes: number): void {
  const last = runs.length - 1;
  if ((last % 2 === 1) === zero) runs[last] = (runs[last] ?? 0) + lengthBytes;
  else runs.push(lengthBytes);
}
