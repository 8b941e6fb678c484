/**
 * Makes extents equal on all in-sync members from one source (R1, R2, P5, P10).
 *
 * Contents are compared as they are on the devices: after an unclean stop stored checksums prove
 * nothing in these places. What was made equal is flushed on every member before anybody sees it,
 * so that it stays whichever source a later start chooses.
 */
import { StorageError } from '../../common/errors.js';
import { EXTENT_SIZE } from '../../common/units.js';
import type { LinkTable } from '../core/link-table.js';
import type { VerifyBlocks } from '../core/read-path.js';
import type { ReplicaLink } from '../core/replica-link.js';
import { differingRuns, joinRuns, runRange } from './block-runs.js';
import { type ByteRange, flushMember, hashRange, readImage, replaceRange } from './member-io.js';

/** A member as a source: what its daemon said when it was opened. */
export interface SourceFacts {
  readonly replicaId: string;
  /** power was lost while regions were dirty */
  readonly lossy: boolean;
  /** the daemon restarted with regions dirty */
  readonly restartedDirty: boolean;
}

export interface EqualizerOptions {
  readonly table: LinkTable;
  readonly members: readonly SourceFacts[];
  readonly volumeBytes: () => number;
  readonly verifyBlocks: VerifyBlocks;
  readonly onCopied: (bytes: number) => void;
}

/** Extents compared at a time; each has one piece in memory per difference. */
const PARALLEL = 4;
const GAP_BLOCKS = 8;

/** How good a source a member is; the smallest number is best. */
function rank(facts: SourceFacts): number {
  if (facts.lossy) return 2;
  return facts.restartedDirty ? 1 : 0;
}

export class Equalizer {
  readonly #options: EqualizerOptions;

  constructor(options: EqualizerOptions) {
    this.#options = options;
  }

  /** The member whose content counts: the same one as long as it is in-sync. */
  source(): ReplicaLink | undefined {
    const { table, members } = this.#options;
    const ranked = [...members].sort((a, b) => rank(a) - rank(b));
    for (const { replicaId } of ranked) {
      const link = table.inSync.find((l) => l.replicaId === replicaId);
      if (link !== undefined) return link;
    }
    return undefined;
  }

  /** P10: true if without this member only members that may lack acknowledged writes are left. */
  needs(replicaId: string): boolean {
    const { table, members } = this.#options;
    const inSync = members.filter((m) => table.inSync.some((l) => l.replicaId === m.replicaId));
    const others = inSync.filter((m) => m.replicaId !== replicaId);
    const own = members.find((m) => m.replicaId === replicaId);
    return own?.lossy === false && others.length > 0 && others.every((m) => m.lossy);
  }

  /** Resolves when the extents are equal on, and flushed on, every in-sync member. Idempotent.
   *  @throws StorageError of the member that failed */
  async equalize(extents: readonly number[]): Promise<void> {
    const ranges = extents.flatMap((extent) => this.#rangeOf(extent));
    await this.equalizeRanges(ranges);
  }

  /** As `equalize`, for any ranges of whole blocks that each lie in one extent. */
  async equalizeRanges(ranges: readonly ByteRange[]): Promise<void> {
    const { table } = this.#options;
    if (ranges.length === 0 || table.inSync.length < 2) return;
    const source = this.source();
    if (source === undefined) throw new StorageError('NO_REPLICA', 'no member to read from');
    const targets = table.inSync.filter((link) => link !== source);
    const todo = [...ranges];
    const worker = async (): Promise<void> => {
      for (let range = todo.shift(); range !== undefined; range = todo.shift()) {
        await this.#equalizeOne(source, targets, range);
      }
    };
    const outcomes = await Promise.allSettled(Array.from({ length: PARALLEL }, worker));
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
    await Promise.all([source, ...targets].map(flushMember));
  }

  #rangeOf(extent: number): ByteRange[] {
    const offsetBytes = extent * EXTENT_SIZE;
    const lengthBytes = Math.min(EXTENT_SIZE, this.#options.volumeBytes() - offsetBytes);
    return lengthBytes > 0 ? [{ offsetBytes, lengthBytes }] : [];
  }

  async #equalizeOne(
    source: ReplicaLink,
    targets: readonly ReplicaLink[],
    range: ByteRange,
  ): Promise<void> {
    const asked = [source, ...targets].map((link) => hashRange(link, range, { raw: true }));
    const [truth, ...copies] = await Promise.all(asked);
    if (truth === undefined) return;
    if (truth.badCount > 0) {
      const text = `replica ${source.replicaId} cannot read a block at ${range.offsetBytes}`;
      throw new StorageError('IO_ERROR', text, { replica: source.replicaId, ...range });
    }
    for (const [index, target] of targets.entries()) {
      const copy = copies[index];
      if (copy === undefined) continue;
      const runs = joinRuns(differingRuns(truth.hashes, copy.hashes), GAP_BLOCKS);
      for (const run of runs) {
        const end = range.offsetBytes + range.lengthBytes;
        await this.#copy(source, target, runRange(run, range.offsetBytes, end));
      }
    }
  }

  async #copy(source: ReplicaLink, target: ReplicaLink, range: ByteRange): Promise<void> {
    const { verifyBlocks, onCopied } = this.#options;
    const image = await readImage(source, range, { raw: true, verifyBlocks });
    try {
      await replaceRange(target, range, image);
    } finally {
      image.release();
    }
    onCopied(range.lengthBytes);
  }
}
