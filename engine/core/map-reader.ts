/** Allocation of the volume at block precision, asked of one member (they are equal): NBD block
 *  status, sparse copies. */
import { StorageError } from '../../common/errors.js';
import { BLOCK_SIZE } from '../../common/units.js';
import type { StatusRun } from '../block-volume.js';
import { coveringBlocks } from './edges.js';
import type { ReadPath } from './read-path.js';

export class MapReader {
  constructor(readonly reads: ReadPath) {}

  /** Runs that cover a prefix of [offset, offset + length), merged, at most `runsMax`. The caller
   *  holds the range lock.
   *  @throws StorageError NO_REPLICA | PROTOCOL_ERROR */
  async status(offsetBytes: number, lengthBytes: number, runsMax: number): Promise<StatusRun[]> {
    const whole = coveringBlocks(offsetBytes, lengthBytes);
    const answer = await this.reads.map(whole.offsetBytes, whole.lengthBytes, runsMax);
    try {
      const payload = Buffer.concat(answer.chunks);
      return cut(payload, offsetBytes - whole.offsetBytes, lengthBytes, runsMax);
    } finally {
      answer.release();
    }
  }
}
/** Decodes {u32 blocks, u32 state} runs, drops `skip` bytes at the front, ends after
 *  `lengthBytes`. */
function cut(payload: Buffer, skip: number, lengthBytes: number, runsMax: number): StatusRun[] {
  const runs: StatusRun[] = [];
  let left = lengthBytes;
  let drop = skip;
  for (let at = 0; at + 8 <= payload.length && left > 0; at += 8) {
    const bytes = payload.readUInt32LE(at) * BLOCK_SIZE;
    const hole = payload.readUInt32LE(at + 4) === 1;
    const dropped = Math.min(drop, bytes);
    drop -= dropped;
    const take = Math.min(left, bytes - dropped);
    if (take === 0) continue;
    left -= take;
    const previous = runs[runs.length - 1];
    if (previous !== undefined && previous.hole === hole) {
      runs[runs.length - 1] = { lengthBytes: previous.lengthBytes + take, hole };
    } else if (runs.length < runsMax) {
      runs.push({ lengthBytes: take, hole });
    } else break;
  }
  if (runs.length === 0) throw new StorageError('PROTOCOL_ERROR', 'replica answered an empty map');
  return runs;
}
