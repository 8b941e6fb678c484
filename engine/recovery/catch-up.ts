/**
 * Makes one member that was away equal to the in-sync ones while the volume serves (R6, P6).
 *
 * The member already receives every change when this begins. What it lacks is known in one of two
 * ways: block by block, because this engine has noted everything since the member left; or by
 * dirty regions and tags, which need no memory of anybody (P2). A new member is the second case
 * with nothing in it: every allocated extent is copied.
 *
 * In the second case each region that is done, and clean on the source, is cleaned on the member
 * with the source's own tags: so a copy that is interrupted goes on where it was.
 */
import assert from 'node:assert';
import type { Clock } from '../../common/clock.js';
import { StorageError, toStorageError } from '../../common/errors.js';
import type { Logger } from '../../common/log.js';
import { BLOCK_SIZE, EXTENT_SIZE, REGION_SIZE } from '../../common/units.js';
import type { CleanRegionRequest, RegionInfo, ReplicaControl, Tag } from '../../proto/control.js';
import { isRefusal } from '../core/fanout-op.js';
import type { LinkTable } from '../core/link-table.js';
import type { MissedWrites } from '../core/missed-writes.js';
import type { RangeLock } from '../core/range-lock.js';
import type { ReplicaLink } from '../core/replica-link.js';
import { bytesOf, GAP_BLOCKS, joinRuns } from './block-runs.js';
import { type ExtentWork, extentsToVisit, regionsToVisit } from './catch-up-plan.js';
import { type ByteRange, flushMember } from './member-io.js';
import type { Pacer } from './pacer.js';
import type { Progress } from './progress.js';
import type { RangeCopier } from './range-copier.js';

/** How to ask the daemon of a member about its regions. */
export interface RegionTeller {
  readonly replicaId: string;
  readonly control: ReplicaControl;
}

export interface CatchUpOptions {
  readonly volume: string;
  readonly epoch: number;
  readonly target: ReplicaLink;
  readonly targetTeller: RegionTeller;
  /** of the member, or undefined if it is not in-sync any more */
  readonly tellerOf: (replicaId: string) => RegionTeller | undefined;
  /** what the target has missed; overflowed: not known */
  readonly missed: MissedWrites;
  /** regions of the target whose content is in doubt although they were not missed */
  readonly suspectRegions: readonly number[];
  readonly table: LinkTable;
  /** resolves when every change that was sent before has its outcome */
  readonly whenSettled: () => Promise<void>;
  /** resolves when the in-sync members are equal among themselves */
  readonly whenEqual: () => Promise<void>;
  readonly lock: RangeLock;
  readonly copier: RangeCopier;
  readonly pacer: Pacer;
  readonly progress: Progress;
  readonly volumeBytes: () => number;
  readonly clock: Clock;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

const LIST_REGIONS = 1024;

export class CatchUp {
  readonly #options: CatchUpOptions;
  #adoption: Promise<void> = Promise.resolve();

  constructor(options: CatchUpOptions) {
    this.#options = options;
  }

  /** Resolves when the member has everything, flushed: it may be promoted.
   *  @throws StorageError why not; what is done stays done */
  async run(): Promise<void> {
    const { missed, progress, suspectRegions, target } = this.#options;
    if (missed.overflowed) await this.#byTags();
    else {
      await this.#byMissed();
      if (suspectRegions.length > 0) await this.#bySuspicion();
    }
    progress.phase('flushing');
    await flushMember(target);
  }

  async #byMissed(): Promise<void> {
    const { missed, progress, copier } = this.#options;
    const extents = missed.extents();
    progress.begin('copying', missed.blockCount() * BLOCK_SIZE);
    await this.#each(extents, async (extent) => {
      const runs = missed.runs(extent);
      const joined = joinRuns(runs, GAP_BLOCKS);
      const range = this.#extentRange(extent);
      await this.#paced(bytesOf(joined), () => copier.copyRuns(joined, range));
      missed.caughtUp(extent);
      progress.advance(bytesOf(runs));
    });
  }

  async #bySuspicion(): Promise<void> {
    const { suspectRegions, progress } = this.#options;
    progress.begin('comparing', suspectRegions.length * REGION_SIZE);
    for (const region of suspectRegions) await this.#visit(region, REGION_SIZE);
    await this.#adoption;
  }

  async #byTags(): Promise<void> {
    const { progress, volumeBytes, signal } = this.#options;
    progress.phase('listing');
    // A source that is made equal itself may hold something else then, under the same tags (P10).
    await this.#options.whenEqual();
    // A change that was under way when the member was attached never goes to it, and may not have
    // marked its region on the source yet.
    await this.#options.whenSettled();
    signal.throwIfAborted();
    const regions = Math.ceil(volumeBytes() / REGION_SIZE);
    const todo: Array<{ region: number; bytes: number }> = [];
    for (let first = 0; first < regions; first += LIST_REGIONS) {
      todo.push(...(await this.#listDifferent(first)));
    }
    progress.begin(
      'copying',
      todo.reduce((sum, { bytes }) => sum + bytes, 0),
    );
    for (const { region, bytes } of todo) await this.#visit(region, bytes);
    await this.#adoption;
  }

  async #listDifferent(first: number): Promise<Array<{ region: number; bytes: number }>> {
    const source = await this.#listRegions(this.#sourceTeller(), first);
    const target = await this.#listRegions(this.#options.targetTeller, first);
    const extents = new Map<number, number>();
    for (const { number, allocatedExtents } of [...source, ...target]) {
      extents.set(number, Math.max(allocatedExtents, extents.get(number) ?? 0));
    }
    return regionsToVisit(source, target).map((region) => ({
      region,
      bytes: (extents.get(region) ?? 0) * EXTENT_SIZE,
    }));
  }

  async #listRegions(teller: RegionTeller, firstRegion: number): Promise<readonly RegionInfo[]> {
    const request = { ...this.#ask(teller), firstRegion, count: LIST_REGIONS };
    return (await teller.control.listRegions(request)).regions;
  }

  #ask(teller: RegionTeller): { volume: string; replicaId: string; epoch: number } {
    const { volume, epoch } = this.#options;
    return { volume, replicaId: teller.replicaId, epoch };
  }

  /** Any in-sync member: they are equal, but their tags may not be. */
  #sourceTeller(): RegionTeller {
    const { table, tellerOf } = this.#options;
    for (const link of table.inSync) {
      const teller = tellerOf(link.replicaId);
      if (teller !== undefined) return teller;
    }
    throw new StorageError('NO_REPLICA', 'no in-sync replica can be asked');
  }

  #isInSync({ replicaId }: RegionTeller): boolean {
    return this.#options.table.inSync.some((link) => link.replicaId === replicaId);
  }

  /** @param bytes  what the progress counts for the region */
  async #visit(region: number, bytes: number): Promise<void> {
    const { targetTeller, progress, signal } = this.#options;
    signal.throwIfAborted();
    const teller = this.#sourceTeller();
    const [source, target] = await Promise.all(
      [teller, targetTeller].map(async (t) => {
        const reply = await t.control.listExtents({ ...this.#ask(t), region });
        return reply.extents;
      }),
    );
    assert(source !== undefined && target !== undefined);
    const works = extentsToVisit(source, target);
    const share = works.length === 0 ? 0 : bytes / works.length;
    await this.#each(works, async (work) => {
      await this.#paced(EXTENT_SIZE, () => this.#work(work));
      progress.advance(share);
    });
    if (works.length === 0) progress.advance(bytes);
    // The next region is copied meanwhile; one adoption at a time.
    await this.#adoption;
    this.#adoption = this.#adopt(region, teller);
  }

  #work({ extent, kind }: ExtentWork): Promise<void> {
    const { copier } = this.#options;
    const range = this.#extentRange(extent);
    if (range.lengthBytes === 0) return Promise.resolve();
    return kind === 'copy' ? copier.copy(range) : copier.compare(range);
  }

  #extentRange(extent: number): ByteRange {
    const offsetBytes = extent * EXTENT_SIZE;
    const lengthBytes = Math.max(
      0,
      Math.min(EXTENT_SIZE, this.#options.volumeBytes() - offsetBytes),
    );
    return { offsetBytes, lengthBytes };
  }

  /** The region is equal now. Where it is clean on the source, the member takes over its tags;
   *  where it is not, it stays dirty on both until the engine cleans it. What is not taken over
   *  fails nothing: only a later catch-up has more to compare. */
  async #adopt(region: number, teller: RegionTeller): Promise<void> {
    const { lock, log, volumeBytes } = this.#options;
    try {
      if (!(await this.#isClean(region, teller))) return;
      const start = region * REGION_SIZE;
      const hold = lock.lock(start, Math.min(REGION_SIZE, volumeBytes() - start), false);
      try {
        if (hold.ready !== undefined) await hold.ready;
        const tag = await this.#cleanTag(region, teller);
        if (tag === undefined) return;
        const request = { ...this.#ask(teller), region };
        const { extents } = await teller.control.listExtents(request);
        const extentTags = extents
          .filter((extent) => extent.allocated)
          .map(({ number, tag: own }) => ({ extent: number, tag: own }));
        // One that has left has missed what the member has, and calls it by the old names.
        if (!this.#isInSync(teller)) return;
        await this.#cleanAs({ region, tag, extentTags });
      } finally {
        lock.unlock(hold);
      }
    } catch (cause) {
      const { code, message } = toStorageError(cause, 'adopt tags');
      log.debug({ region, code }, `tags are not taken over: ${message}`);
    }
  }

  /** P2: the member may still clean when its answer is late, and a write would have come before it.
   *  It is given up then, so that no write does. */
  async #cleanAs(names: Pick<CleanRegionRequest, 'region' | 'tag' | 'extentTags'>): Promise<void> {
    const { target, targetTeller } = this.#options;
    if (target.broken !== undefined) throw target.broken;
    try {
      await targetTeller.control.cleanRegion({ ...this.#ask(targetTeller), ...names });
    } catch (cause) {
      const error = toStorageError(cause, 'take over tags');
      if (!isRefusal(error)) target.break(error);
      throw error;
    }
  }

  async #isClean(region: number, teller: RegionTeller): Promise<boolean> {
    return (await this.#cleanTag(region, teller)) !== undefined;
  }

  /** Tag of a region that is clean on the source. */
  async #cleanTag(region: number, teller: RegionTeller): Promise<Tag | undefined> {
    const request = { ...this.#ask(teller), firstRegion: region, count: 1 };
    const [found] = (await teller.control.listRegions(request)).regions;
    return found === undefined || found.dirty ? undefined : found.tag;
  }

  #paced<T>(bytes: number, work: () => Promise<T>): Promise<T> {
    return this.#options.pacer.run(bytes, this.#options.signal, work);
  }

  /** Runs `work` on each item, as many at a time as the pacer lets through. Stops at the first
   *  failure, after what was begun has ended. */
  async #each<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
    const todo = [...items].reverse();
    let failure: unknown;
    const worker = async (): Promise<void> => {
      for (let item = todo.pop(); item !== undefined && failure === undefined; item = todo.pop()) {
        try {
          await work(item);
        } catch (error) {
          failure ??= error;
        }
      }
    };
    await Promise.all(Array.from({ length: this.#options.pacer.policy.idle.pieces }, worker));
    if (failure !== undefined) throw failure;
  }
}
