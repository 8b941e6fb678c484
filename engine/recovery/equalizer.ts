/**
 * Makes extents equal on all in-sync members from one source (R1, R2, P5, P10).
 *
 * Contents are compared as they are on the devices: after an unclean stop stored checksums prove
 * nothing in these places. What was made equal is flushed on every member before anybody sees it,
 * so that it stays whichever source a later start chooses.
 */
import { type ErrorCode, StorageError, toStorageError } from '../../common/errors.js';
import { EXTENT_SIZE } from '../../common/units.js';
import { isRefusal } from '../core/fanout-op.js';
import type { LinkTable } from '../core/link-table.js';
import type { VerifyBlocks } from '../core/read-path.js';
import type { ReplicaLink } from '../core/replica-link.js';
import { differingRuns, GAP_BLOCKS, joinRuns, runRange } from './block-runs.js';
import {
  type ByteRange,
  flushMember,
  hashRange,
  type RangeHashes,
  readImage,
  replaceRange,
} from './member-io.js';

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

const LOSSY = 2;
const NO_SOURCE = 3;

/** How good a source a member is; the smallest number is best. */
function rank(facts: SourceFacts): number {
  if (facts.lossy) return LOSSY;
  return facts.restartedDirty ? 1 : 0;
}

/** D3, P8: a member that cannot do its part leaves; what it only refuses is tried again.
 *  @param fatal  refusals that will not change: they would hold up all others */
async function orLeaves<T>(
  link: ReplicaLink,
  work: Promise<T>,
  fatal: readonly ErrorCode[] = [],
): Promise<T> {
  try {
    return await work;
  } catch (cause) {
    const error = toStorageError(cause, `make replica ${link.replicaId} equal`);
    if (!isRefusal(error) || fatal.includes(error.code)) link.break(error);
    throw error;
  }
}

export class Equalizer {
  readonly #options: EqualizerOptions;

  constructor(options: EqualizerOptions) {
    this.#options = options;
  }

  /** The member whose content counts: the same one as long as it is in-sync. */
  source(): ReplicaLink | undefined {
    const [best] = this.#ranked();
    return best !== undefined && this.#rankOf(best) <= LOSSY ? best : undefined;
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
   *  @throws StorageError CORRUPT_BLOCK: no source can read all of them | of the member that
   *  failed:   unless it only refused it has left */
  async equalize(extents: readonly number[]): Promise<void> {
    const ranges = extents.flatMap((extent) => this.#rangeOf(extent));
    await this.equalizeRanges(ranges);
  }

  /** As `equalize`, for any ranges of whole blocks that each lie in one extent. */
  async equalizeRanges(ranges: readonly ByteRange[]): Promise<void> {
    const links = this.#ranked();
    if (ranges.length === 0 || links.length < 2) return;
    if (this.source() === undefined) throw new StorageError('NO_REPLICA', 'no member to read from');
    const todo = [...ranges];
    const worker = async (): Promise<void> => {
      for (let range = todo.shift(); range !== undefined; range = todo.shift()) {
        await this.#equalizeOne(links, range);
      }
    };
    const outcomes = await Promise.allSettled(Array.from({ length: PARALLEL }, worker));
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
    await Promise.all(links.map((link) => orLeaves(link, flushMember(link))));
  }

  /** In-sync members, the best source first; those that came back since the start come last. */
  #ranked(): ReplicaLink[] {
    return [...this.#options.table.inSync].sort((a, b) => this.#rankOf(a) - this.#rankOf(b));
  }

  #rankOf({ replicaId }: ReplicaLink): number {
    const facts = this.#options.members.find((m) => m.replicaId === replicaId);
    return facts === undefined ? NO_SOURCE : rank(facts);
  }

  #rangeOf(extent: number): ByteRange[] {
    const offsetBytes = extent * EXTENT_SIZE;
    const lengthBytes = Math.min(EXTENT_SIZE, this.#options.volumeBytes() - offsetBytes);
    return lengthBytes > 0 ? [{ offsetBytes, lengthBytes }] : [];
  }

  async #equalizeOne(links: readonly ReplicaLink[], range: ByteRange): Promise<void> {
    const asked = links.map((link) => orLeaves(link, hashRange(link, range, { raw: true })));
    const hashes = await Promise.all(asked);
    const at = this.#truthAt(links, hashes);
    const source = links[at];
    const truth = hashes[at];
    if (source === undefined || truth === undefined) {
      const text = `no source can read all blocks of [${range.offsetBytes}, +${range.lengthBytes})`;
      throw new StorageError('CORRUPT_BLOCK', text, { ...range });
    }
    for (const [index, target] of links.entries()) {
      const copy = hashes[index];
      if (target === source || copy === undefined) continue;
      const runs = joinRuns(differingRuns(truth.hashes, copy.hashes), GAP_BLOCKS);
      for (const run of runs) {
        const end = range.offsetBytes + range.lengthBytes;
        await this.#copy(source, target, runRange(run, range.offsetBytes, end));
      }
    }
  }

  /** P10, scenario 43: the best source that can read the range, of those that hold every
   *  acknowledged write (or of all, if none does). */
  #truthAt(links: readonly ReplicaLink[], hashes: readonly RangeHashes[]): number {
    const best = links[0];
    const worst = best !== undefined && this.#rankOf(best) === LOSSY ? LOSSY : LOSSY - 1;
    return links.findIndex(
      (link, index) => this.#rankOf(link) <= worst && hashes[index]?.badCount === 0,
    );
  }

  async #copy(source: ReplicaLink, target: ReplicaLink, range: ByteRange): Promise<void> {
    const { verifyBlocks, onCopied } = this.#options;
    const image = await readImage(source, range, { raw: true, verifyBlocks });
    try {
      await orLeaves(target, replaceRange(target, range, image), ['NO_SPACE']);
    } finally {
      image.release();
    }
    onCopied(range.lengthBytes);
  }
}
