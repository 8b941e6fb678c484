/**
 * What a decoded request must satisfy before the store sees it. Its form (whole blocks, payload and
 * lengths that agree, sizes within the wire's limits) was checked by the decoder; here is what
 * depends on the volume.
 */
import { type ErrorCode, StorageError } from '../../common/errors.js';
import { REGION_SIZE } from '../../common/units.js';
import { IO_FLAG, IO_OP, type IoRequestView } from '../../proto/io-codec.js';
import type { ServiceOp } from './service-metrics.js';

/** Most runs in one MAP reply (8 bytes each). */
export const MAP_RUNS_MAX = 4096;

/** By op number. */
const OP_NAMES: readonly ServiceOp[] = [
  'other',
  'read',
  'write',
  'flush',
  'trim',
  'write_zeroes',
  'map',
  'clean',
  'other',
  'replace',
  'hash',
];

/** Flags that each operation takes, by op number; an operation without an entry is not known. */
const FLAGS_OF: ReadonlyArray<number | undefined> = [
  undefined,
  IO_FLAG.RAW | IO_FLAG.SPARSE, // READ
  IO_FLAG.FUA, // WRITE
  0, // FLUSH
  IO_FLAG.FUA, // TRIM
  IO_FLAG.FUA | IO_FLAG.NO_HOLE, // WRITE_ZEROES
  0, // MAP
  0, // CLEAN
  0, // PING
  0, // REPLACE
  IO_FLAG.RAW, // HASH
];

/** Label of an operation; `other` for ping and for what this version does not know. */
export function opName(op: number): ServiceOp {
  return OP_NAMES[op] ?? 'other';
}

/** Number of the region at the offset. */
export function regionOf(offsetBytes: number): number {
  return Math.floor(offsetBytes / REGION_SIZE);
}

/** Accepts a request that can run on a volume of `sizeBytes`.
 *  @throws StorageError UNSUPPORTED (op or flag not known) | OUT_OF_RANGE */
export function checkRequest(request: IoRequestView, sizeBytes: number): void {
  const { op, flags } = request;
  const flagsKnown = FLAGS_OF[op];
  if (flagsKnown === undefined) throw fault('UNSUPPORTED', request, `op ${op} is not known`);
  if ((flags & ~flagsKnown) !== 0) throw fault('UNSUPPORTED', request, `flags ${flags}`);
  if (op === IO_OP.FLUSH || op === IO_OP.PING) return;
  // A clean names its region by the first byte; the last region may be shorter than a whole one.
  const end = request.offsetBytes + (op === IO_OP.CLEAN ? 1 : request.lengthBytes);
  if (end > sizeBytes) throw fault('OUT_OF_RANGE', request, `ends past ${sizeBytes}`);
}

function fault(code: ErrorCode, request: IoRequestView, what: string): StorageError {
  const { offsetBytes, lengthBytes } = request;
  return new StorageError(
    code,
    `${opName(request.op)} [${offsetBytes}, ${offsetBytes + lengthBytes}): ${what}`,
    { offsetBytes, lengthBytes },
  );
}
