/**
 * Brings ranges of one member that is catching up to what the in-sync members hold.
 *
 * Each piece holds the range lock (shared) from the read to the write: clients' writes, which go to
 * the member as well, are before it or after it, on all members alike (R6). Sources take turns; one
 * that cannot serve a piece is replaced by the next, and only when none can the copy fails.
 */
import { bitIsSet } from '../../common/bitmap.js';
import { StorageError, toStorageError } from '../../common/errors.js';
import { Semaphore } from '../../common/semaphore.js';
import { BLOCK_SIZE, MIB } from '../../common/units.js';
import type { EqualGate } from '../core/equal-gate.js';
import type { LinkTable } from '../core/link-table.js';
import type { BlockRun } from '../core/missed-writes.js';
import type { RangeLock } from '../core/range-lock.js';
import type { VerifyBlocks } from '../core/read-path.js';
import type { ReplicaLink } from '../core/replica-link.js';
import { differingRuns, GAP_BLOCKS, joinRuns, runRange } from './block-runs.js';
import {
  type ByteRange,
  hashRange,
  type RangeHashes,
  type RangeImage,
  readImage,
  replaceRange,
} from './member-io.js';

export interface RangeCopierOptions {
  readonly target: ReplicaLink;
  readonly table: LinkTable;
  readonly lock: RangeLock;
  readonly gate: EqualGate;
  readonly verifyBlocks: VerifyBlocks;
  /** a source could not serve a block there */
  readonly onBadCopy: (link: ReplicaLink, error: StorageError, offsetBytes: number) => void;
}

/** A member ends the stream past the payload that it takes, 24 MiB; clients' changes may fill 16 of
 *  them, and single blocks are mended. */
const TARGET_BYTES = 6 * MIB;

export class RangeCopier {
  readonly #options: RangeCopierOptions;
  /** what may be on its way to the target */
  readonly #window = new Semaphore('copies to a member', TARGET_BYTES, 1 << 16);
  #turn = 0;
  copiedBytes = 0;

  constructor(options: RangeCopierOptions) {
    this.#options = options;
  }

  /** The range becomes what the sources hold, without looking at what is there.
   *  @throws StorageError why no source could serve, or the target take it */
  copy(range: ByteRange): Promise<void> {
    return this.#locked(range, () => this.#copyLocked(range));
  }

  /** Copies only what differs: both sides hash their content. */
  compare(range: ByteRange): Promise<void> {
    return this.#locked(range, async () => {
      const [truth, copy] = await Promise.all([
        this.#fromSources(range, (source) => goodHashes(source, range)),
        hashRange(this.#options.target, range, { raw: true }),
      ]);
      const differing = joinRuns(differingRuns(truth.hashes, copy.hashes), GAP_BLOCKS);
      await this.#copyRuns(differing, range);
    });
  }

  /** Runs of one extent that the target is known to have missed, joined. */
  copyRuns(runs: readonly BlockRun[], extent: ByteRange): Promise<void> {
    return this.#locked(extent, () => this.#copyRuns(runs, extent));
  }

  /** All at once; every one has ended when it returns or throws. */
  async #copyRuns(runs: readonly BlockRun[], within: ByteRange): Promise<void> {
    const end = within.offsetBytes + within.lengthBytes;
    const ranges = runs
      .map((run) => runRange(run, within.offsetBytes, end))
      .filter(({ lengthBytes }) => lengthBytes > 0);
    const outcomes = await Promise.allSettled(ranges.map((range) => this.#copyLocked(range)));
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
  }

  async #copyLocked(range: ByteRange): Promise<void> {
    await this.#window.acquire(range.lengthBytes);
    try {
      await this.#copyInWindow(range);
    } finally {
      this.#window.release(range.lengthBytes);
    }
  }

  async #copyInWindow(range: ByteRange): Promise<void> {
    const { target, verifyBlocks } = this.#options;
    if (target.broken !== undefined) throw target.broken;
    const image = await this.#fromSources<RangeImage>(range, (source) =>
      readImage(source, range, { raw: false, verifyBlocks }),
    );
    try {
      await replaceRange(target, range, image);
      this.copiedBytes += image.payload.length;
    } finally {
      image.release();
    }
  }

  /** Asks one source after the other until one can serve. */
  async #fromSources<T>(range: ByteRange, ask: (source: ReplicaLink) => Promise<T>): Promise<T> {
    const { table, onBadCopy } = this.#options;
    const sources = [...table.inSync];
    this.#turn += 1;
    // Other pieces take their turns meanwhile: each source is to be asked once.
    const turn = this.#turn;
    let last: StorageError | undefined;
    for (let n = 0; n < sources.length; n += 1) {
      const source = sources[(turn + n) % sources.length] as ReplicaLink;
      if (source.broken !== undefined) continue;
      try {
        return await this.#askTwice(source, ask);
      } catch (cause) {
        const error = toStorageError(cause, `read from replica ${source.replicaId}`);
        if (source.broken === undefined) onBadCopy(source, error, badOffset(range, error));
        if (last === undefined || error.code === 'CORRUPT_BLOCK') last = error;
      }
    }
    throw last ?? new StorageError('NO_REPLICA', 'no in-sync replica can be read');
  }

  /** What the way has damaged may come whole the next time. */
  async #askTwice<T>(source: ReplicaLink, ask: (source: ReplicaLink) => Promise<T>): Promise<T> {
    try {
      return await ask(source);
    } catch (cause) {
      const error = toStorageError(cause, `read from replica ${source.replicaId}`);
      if (error.code !== 'CORRUPT_MESSAGE' || source.broken !== undefined) throw error;
      return await ask(source);
    }
  }

  async #locked<T>(range: ByteRange, work: () => Promise<T>): Promise<T> {
    const { lock, gate, target } = this.#options;
    const hold = lock.lock(range.offsetBytes, range.lengthBytes, false);
    try {
      if (hold.ready !== undefined) await hold.ready;
      if (gate.active) await gate.pending(range.offsetBytes, range.lengthBytes);
      if (target.broken !== undefined) throw target.broken;
      return await work();
    } finally {
      lock.unlock(hold);
    }
  }
}

/** Where the first bad block is, as far as the source has said it. */
function badOffset(range: ByteRange, error: StorageError): number {
  const block = error.details['badBlock'];
  return range.offsetBytes + (typeof block === 'number' ? block * BLOCK_SIZE : 0);
}

async function goodHashes(source: ReplicaLink, range: ByteRange): Promise<RangeHashes> {
  const found = await hashRange(source, range, { raw: false });
  if (found.badCount === 0) return found;
  const text = `${found.badCount} blocks at ${range.offsetBytes} are bad`;
  let badBlock = 0;
  while (!bitIsSet(found.bad, 0, badBlock)) badBlock += 1;
  throw new StorageError('CORRUPT_BLOCK', text, { replica: source.replicaId, badBlock, ...range });
}
