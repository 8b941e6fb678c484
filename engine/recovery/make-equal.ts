/**
 * Makes ranges equal on all members from one source (R1, P5): after an engine or a daemon died,
 * writes that were in flight or only in dirty regions may be on some members and not on others.
 *
 * Reads the contents as they are (RAW: stored checksums prove nothing there), compares block by
 * block, copies what differs, then flushes every member, so that what is served afterwards stays
 * whichever source a later start chooses (R2).
 */
import { StorageError } from '../../common/errors.js';
import { BLOCK_SIZE, EXTENT_SIZE } from '../../common/units.js';
import { IO_FLAG, IO_OP } from '../../proto/io-codec.js';
import type { ReplicaLink } from '../core/replica-link.js';
import { UnaryOp } from '../core/unary-op.js';

export interface ByteRange {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

export interface MakeEqualOptions {
  readonly source: ReplicaLink;
  readonly targets: readonly ReplicaLink[];
  readonly ranges: readonly ByteRange[];
  readonly volumeBytes: number;
  readonly onProgress?: (comparedBytes: number, totalBytes: number) => void;
}

export interface MakeEqualReport {
  readonly comparedBytes: number;
  readonly copiedBytes: number;
}

/** Pieces compared at a time; each holds up to one extent per member in memory. */
const PARALLEL = 4;
const ZERO_EXTENT = Buffer.alloc(EXTENT_SIZE);

/** Sorted, merged, cut to the volume and split at extent borders. */
export function planPieces(ranges: readonly ByteRange[], volumeBytes: number): ByteRange[] {
  const sorted = ranges
    .map((r) => ({
      start: r.offsetBytes,
      end: Math.min(r.offsetBytes + r.lengthBytes, volumeBytes),
    }))
    .filter((r) => r.end > r.start)
    .sort((a, b) => a.start - b.start);
  const pieces: ByteRange[] = [];
  let done = 0;
  for (const range of sorted) {
    for (let at = Math.max(range.start, done); at < range.end; ) {
      const end = Math.min(range.end, at - (at % EXTENT_SIZE) + EXTENT_SIZE);
      pieces.push({ offsetBytes: at, lengthBytes: end - at });
      at = end;
    }
    done = Math.max(done, range.end);
  }
  return pieces;
}

/** Runs of blocks where `a` and `b` differ, as byte ranges inside them. */
export function differingRuns(a: Buffer, b: Buffer): ByteRange[] {
  const runs: ByteRange[] = [];
  let start = -1;
  for (let at = 0; at <= a.length; at += BLOCK_SIZE) {
    const end = at + BLOCK_SIZE;
    const differs = at < a.length && a.compare(b, at, end, at, end) !== 0;
    if (differs && start < 0) start = at;
    if (!differs && start >= 0) {
      runs.push({ offsetBytes: start, lengthBytes: at - start });
      start = -1;
    }
  }
  return runs;
}

async function readRaw(link: ReplicaLink, piece: ByteRange): Promise<Buffer> {
  const op = new UnaryOp();
  link.request(op, { op: IO_OP.READ, flags: IO_FLAG.RAW, ...piece });
  const bytes = await op.done;
  if (bytes.length === 0) return ZERO_EXTENT.subarray(0, piece.lengthBytes);
  if (bytes.length === piece.lengthBytes) return bytes;
  throw new StorageError(
    'PROTOCOL_ERROR',
    `replica ${link.replicaId} answered ${bytes.length} bytes`,
  );
}

async function copyRun(target: ReplicaLink, offsetBytes: number, bytes: Buffer): Promise<void> {
  const op = new UnaryOp();
  if (bytes.equals(ZERO_EXTENT.subarray(0, bytes.length))) {
    const fields = { flags: 0, offsetBytes, lengthBytes: bytes.length };
    target.request(op, { op: IO_OP.TRIM, ...fields });
  } else {
    target.requestWrite(op, offsetBytes, bytes);
  }
  await op.done;
}

async function equalize(options: MakeEqualOptions, piece: ByteRange): Promise<number> {
  const { source, targets } = options;
  const [truth, ...copies] = await Promise.all([source, ...targets].map((l) => readRaw(l, piece)));
  let copied = 0;
  for (const [index, target] of targets.entries()) {
    const copy = copies[index];
    if (truth === undefined || copy === undefined) continue;
    for (const run of differingRuns(truth, copy)) {
      const end = run.offsetBytes + run.lengthBytes;
      const bytes = truth.subarray(run.offsetBytes, end);
      await copyRun(target, piece.offsetBytes + run.offsetBytes, bytes);
      copied += run.lengthBytes;
    }
  }
  return copied;
}

/** Resolves when all ranges are equal and flushed on source and targets. Idempotent: safe to repeat
 *  after any crash.
 *  @throws StorageError of the member that failed; ranges done so far stay equal */
export async function makeEqual(options: MakeEqualOptions): Promise<MakeEqualReport> {
  const pieces = planPieces(options.ranges, options.volumeBytes);
  const totalBytes = pieces.reduce((sum, piece) => sum + piece.lengthBytes, 0);
  let comparedBytes = 0;
  let copiedBytes = 0;
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let piece = pieces[next]; piece !== undefined; piece = pieces[next]) {
      next += 1;
      const copied = await equalize(options, piece);
      copiedBytes += copied;
      comparedBytes += piece.lengthBytes;
      options.onProgress?.(comparedBytes, totalBytes);
    }
  };
  await Promise.all(Array.from({ length: PARALLEL }, worker));
  if (pieces.length > 0) {
    const flushes = [options.source, ...options.targets].map((link) => {
      const op = new UnaryOp();
      link.request(op, { op: IO_OP.FLUSH, flags: 0, offsetBytes: 0, lengthBytes: 0 });
      return op.done;
    });
    await Promise.all(flushes);
  }
  return { comparedBytes, copiedBytes };
}
