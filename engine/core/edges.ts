/** Splits byte ranges at block and extent borders. */
import { BLOCK_SIZE, roundDown, roundUp } from '../../common/units.js';

/** Whole blocks that cover [offset, offset + length). */
export function coveringBlocks(
  offsetBytes: number,
  lengthBytes: number,
): { offsetBytes: number; lengthBytes: number } {
  const start = roundDown(offsetBytes, BLOCK_SIZE);
  return {
    offsetBytes: start,
    lengthBytes: roundUp(offsetBytes + lengthBytes, BLOCK_SIZE) - start,
  };
}

/** Whole blocks inside [offset, offset + length); length 0 if there are none. */
export function innerBlocks(
  offsetBytes: number,
  lengthBytes: number,
): { offsetBytes: number; lengthBytes: number } {
  const start = roundUp(offsetBytes, BLOCK_SIZE);
  const end = roundDown(offsetBytes + lengthBytes, BLOCK_SIZE);
  return { offsetBytes: start, lengthBytes: Math.max(0, end - start) };
}

/** The part [skip, skip + length) of a list of pieces, without copying. */
export function subpieces(pieces: readonly Buffer[], skip: number, length: number): Buffer[] {
  const out: Buffer[] = [];
  let from = skip;
  let left = length;
  for (const piece of pieces) {
    if (left === 0) break;
    if (from >= piece.length || piece.length === 0) {
      from -= piece.length;
      continue;
    }
    const take = Math.min(left, piece.length - from);
    out.push(piece.length === take ? piece : piece.subarray(from, from + take));
    from = 0;
    left -= take;
  }
  return out;
}
