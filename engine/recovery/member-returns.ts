/**
 * Brings members that are out back into the set, each on its own, for the life of a tenure (R6,
 * P6, P7).
 *
 * One attempt: find the replica -> open it with our epoch -> data stream -> from here on it gets
 * every change -> catch up what it missed -> flush -> promotion, durable. Whatever fails in between
 * leaves the member out, with what it still misses noted; the next attempt follows after a pause
 * that doubles (scenarios 8, 27), and starts anew once the member has been well for long.
 */
import { sleep } from '../../common/clock.js';
import { StorageError, toStorageError } from '../../common/errors.js';
import { REGION_SIZE } from '../../common/units.js';
import { crc32cVerify } from '../../native/index.js';
import type { OpenReplicaReply, ReplicaControl } from '../../proto/control.js';
import type { MembershipKeeper } from '../core/membership-keeper.js';
import type { ReplicaLink } from '../core/replica-link.js';
import { compareRecords } from '../core/replica-set.js';
import type { SlowWatch } from '../core/slow-watch.js';
import type { DataPath } from '../data-path.js';
import type { EngineConfig } from '../engine-config.js';
import type { EngineEnvironment } from '../engine-environment.js';
import type { EventLog } from '../events/event-log.js';
import { mayDial } from '../exposure.js';
import { connectMember } from '../standalone/connect-member.js';
import { CatchUp } from './catch-up.js';
import { findReplica, type Place } from './find-replica.js';
import { Progress, type ProgressView } from './progress.js';
import { RangeCopier } from './range-copier.js';

export interface MemberReturnsOptions {
  readonly config: EngineConfig;
  readonly environment: EngineEnvironment;
  readonly data: DataPath;
  readonly events: EventLog;
  readonly slow: SlowWatch;
  readonly engineId: string;
  readonly epoch: number;
  readonly keeper: MembershipKeeper;
  readonly signal: AbortSignal;
  /** members with a control connection; what this finds is added, and closed by the owner */
  readonly known: Map<string, { readonly address: string; readonly control: ReplicaControl }>;
  readonly onBroken: (link: ReplicaLink, error: StorageError) => void;
  readonly onHeard: () => void;
}

interface Candidate {
  running: boolean;
  attempts: number;
  lastInSyncMs: number;
  progress: Progress | undefined;
  reason: string;
  /** when the next attempt begins; undefined: under way, or none is due */
  nextTryMs: number | undefined;
  /** aborted: nobody wants it back */
  abort: AbortController;
  ended: Promise<void>;
}

/** How the return of one member stands. */
export interface Trial {
  /** since it was last well */
  readonly attempts: number;
  /** why the last attempt failed; '' if none did */
  readonly reason: string;
  /** until the next attempt; undefined: under way, or none is due */
  readonly nextTryMs: number | undefined;
  /** of the attempt under way */
  readonly progress: ProgressView | undefined;
}

interface Found extends Place {
  readonly replicaId: string;
}

const FIRST_PAUSE_MS = 500;
const PAUSE_MAX_MS = 30_000;
/** In-sync for so long: whatever was wrong is over. */
const WELL_MS = 60_000;
const LIST_REGIONS = 1024;

/** Reasons to have left that say nothing about what is on the member's disk. */
const LINK_REASONS = new Set(['UNAVAILABLE', 'DEADLINE', 'CLOSED', 'ABORTED', 'PROTOCOL_ERROR']);

export class MemberReturns {
  readonly #options: MemberReturnsOptions;
  readonly #candidates = new Map<string, Candidate>();

  constructor(options: MemberReturnsOptions) {
    this.#options = options;
  }

  /** Undefined: the member never was out in this tenure. */
  trialOf(replicaId: string): Trial | undefined {
    const candidate = this.#candidates.get(replicaId);
    if (candidate === undefined) return undefined;
    const { attempts, reason, progress, nextTryMs } = candidate;
    const nowMs = this.#options.environment.clock.nowMs();
    const leftMs = nextTryMs === undefined ? undefined : Math.max(0, nextTryMs - nowMs);
    return { attempts, reason, progress: progress?.view(), nextTryMs: leftMs };
  }

  /** The member is out: tries to bring it back until it is in-sync or the tenure ends. */
  start(replicaId: string, firstPauseMs = FIRST_PAUSE_MS): void {
    const candidate = this.#candidateOf(replicaId);
    if (candidate.running || !this.#isWanted(candidate)) return;
    candidate.ended = this.#run(replicaId, candidate, firstPauseMs);
  }

  /** The member is about to be taken off: no attempt begins any more. Resolves when none is under
   *  way; one that has attached the member ends with its link. */
  release(replicaId: string): Promise<void> {
    const candidate = this.#candidateOf(replicaId);
    candidate.abort.abort(new StorageError('ABORTED', 'the member is taken off'));
    return candidate.ended;
  }

  /** It was not taken off after all. */
  want(replicaId: string): void {
    this.#candidateOf(replicaId).abort = new AbortController();
    if (this.#options.keeper.set.roleOf(replicaId) === 'out') this.start(replicaId);
  }

  forget(replicaId: string): void {
    this.#candidates.delete(replicaId);
  }

  /** Makes a new member on the daemon at `address`; it is filled in the background. Whether it can
   *  be made there was looked at before.
   *  @throws StorageError why it could not be recorded */
  async join(address: string): Promise<string> {
    const { environment, keeper, data, events } = this.#options;
    const replicaId = environment.randomId('r');
    keeper.set.join(replicaId, address);
    await keeper.changed();
    data.table.addAway(replicaId);
    events.add('joined', `new member on ${address}`, { replica: replicaId });
    this.start(replicaId, 0);
    return replicaId;
  }

  async #run(replicaId: string, candidate: Candidate, firstPauseMs: number): Promise<void> {
    const { clock } = this.#options.environment;
    const signal = AbortSignal.any([this.#options.signal, candidate.abort.signal]);
    candidate.running = true;
    try {
      if (clock.nowMs() - candidate.lastInSyncMs > WELL_MS) candidate.attempts = 0;
      let pauseMs = candidate.attempts === 0 ? firstPauseMs : this.#pauseMs(candidate);
      while (this.#isOut(replicaId, candidate)) {
        await this.#pause(replicaId, candidate, { pauseMs, signal });
        if (!this.#isOut(replicaId, candidate)) break;
        candidate.attempts += 1;
        const done = await this.#attempt(replicaId, candidate, signal);
        candidate.progress = undefined;
        if (done) candidate.lastInSyncMs = clock.nowMs();
        pauseMs = this.#pauseMs(candidate);
      }
    } finally {
      // In the very step that found it not to be out: whoever finds it out later starts this anew.
      candidate.running = false;
    }
  }

  #isWanted(candidate: Candidate): boolean {
    return !candidate.abort.signal.aborted && !this.#options.signal.aborted;
  }

  /** False also while its exclusion is not stored: it may have been named in-sync by a record. */
  #isOut(replicaId: string, candidate: Candidate): boolean {
    return this.#isWanted(candidate) && this.#options.keeper.set.roleOf(replicaId) === 'out';
  }

  async #pause(
    replicaId: string,
    candidate: Candidate,
    { pauseMs, signal }: { readonly pauseMs: number; readonly signal: AbortSignal },
  ): Promise<void> {
    const { slow, environment } = this.#options;
    const { clock } = environment;
    const waitMs = Math.max(pauseMs, slow.backOffMs(replicaId, clock.nowMs()));
    candidate.nextTryMs = clock.nowMs() + waitMs;
    await sleep(clock, waitMs, signal).catch(() => undefined);
    candidate.nextTryMs = undefined;
  }

  #pauseMs(candidate: Candidate): number {
    return Math.min(PAUSE_MAX_MS, FIRST_PAUSE_MS * 2 ** Math.min(candidate.attempts, 10));
  }

  /** True: in-sync. */
  async #attempt(replicaId: string, candidate: Candidate, signal: AbortSignal): Promise<boolean> {
    const { events } = this.#options;
    candidate.progress = new Progress(this.#options.environment.clock);
    try {
      const found = await this.#find(replicaId, signal);
      const opened = await this.#open(found);
      signal.throwIfAborted();
      const link = await this.#connect(found, opened);
      await this.#catchUp(link, opened, { progress: candidate.progress, signal });
      return true;
    } catch (cause) {
      if (signal.aborted) return false;
      const error = toStorageError(cause, `bring replica ${replicaId} back`);
      candidate.reason = `${error.code}: ${error.message}`;
      events.add('absent', `not back: ${error.message}`, { replica: replicaId, code: error.code });
      return false;
    }
  }

  async #find(replicaId: string, signal: AbortSignal): Promise<Found> {
    const { config, environment, keeper, known } = this.#options;
    const recorded = keeper.set.record.members.find((m) => m.replicaId === replicaId);
    const { network } = environment;
    const { volume, tuning, replicas } = config;
    // The record may come from an engine that was allowed more than this one.
    const where = recorded?.address ?? '';
    const may = replicas.includes(where) || mayDial(where, config);
    const member = recorded === undefined || may ? recorded : { ...recorded, address: '' };
    const place = await findReplica({
      ...{ volume, replicaId, member, addresses: replicas },
      dial: (address) => network.control(address, tuning.controlDeadlineMs),
      sizeBytes: this.#options.data.volume.sizeBytes,
      record: keeper.set.record,
    });
    if (signal.aborted) {
      place.control.close();
      throw signal.reason;
    }
    known.get(replicaId)?.control.close();
    known.set(replicaId, place);
    if (!this.#isAsItLeft(replicaId, place)) this.#options.data.table.away.get(replicaId)?.forget();
    return { replicaId, ...place };
  }

  /** False: a list of what it missed since it left says too little. It has failed, with nobody to
   *  tell, and lost what was not flushed (D3), or its disk is an older one, from before this tenure
   *  or from before a record that it had stored (scenario 55). */
  #isAsItLeft(replicaId: string, { info }: Place): boolean {
    const { epoch, keeper } = this.#options;
    const stored = keeper.set.storedGeneration(replicaId);
    return (
      info !== undefined &&
      !info.failed &&
      info.epoch === epoch &&
      compareRecords(info.membership, { epoch, generation: stored }) >= 0
    );
  }

  async #open(found: Found): Promise<OpenReplicaReply> {
    const { config, epoch, engineId, data } = this.#options;
    const { volume } = config;
    const { replicaId, control } = found;
    const opened = await control.openReplica({ volume, replicaId, epoch, engineId });
    const { sizeBytes } = opened.info;
    if (sizeBytes !== data.volume.sizeBytes) {
      const text = `replica ${replicaId} has ${sizeBytes} bytes, not ${data.volume.sizeBytes}`;
      throw new StorageError('CONFLICT', text, { replica: replicaId });
    }
    return opened;
  }

  #connect(found: Found, opened: OpenReplicaReply): Promise<ReplicaLink> {
    const { config, environment, data, engineId, onBroken, onHeard } = this.#options;
    const { replicaId, address } = found;
    return connectMember({
      ...{ config, environment, data, engineId, replicaId, address, opened, onBroken, onHeard },
    });
  }

  async #catchUp(
    link: ReplicaLink,
    opened: OpenReplicaReply,
    { progress, signal }: { readonly progress: Progress; readonly signal: AbortSignal },
  ): Promise<void> {
    const { keeper, data, events } = this.#options;
    const { replicaId } = link;
    if (signal.aborted || link.broken !== undefined || keeper.set.roleOf(replicaId) !== 'out') {
      const error = link.broken ?? new StorageError('ABORTED', 'the member is not wanted now');
      link.break(error);
      throw error;
    }
    const suspect = this.#suspectRegions(replicaId, opened);
    // From this step on it gets every change; what it has missed until here is known or not.
    keeper.set.attach(replicaId);
    const missed = data.table.add(link, false);
    if (missed === undefined) throw new Error(`replica ${replicaId} was not away`);
    const how = missed.overflowed ? 'by dirty regions and tags' : `${missed.blockCount()} blocks`;
    events.add('rebuilding', `catching up: ${how}`, { replica: replicaId });
    try {
      await this.#makeCatchUp(link, { missed, suspect, progress, signal }).run();
      if (link.broken !== undefined) throw link.broken;
      await this.#noteDirty(replicaId);
      if (opened.lossy) await this.#noteComplete(replicaId, opened);
      await keeper.promote(replicaId);
    } catch (cause) {
      const error = toStorageError(cause, 'catch up');
      link.break(error);
      // What was not brought over is missed still.
      const away = data.table.away.get(replicaId);
      if (suspect.length > 0) away?.forget();
      else away?.add(missed);
      throw error;
    }
  }

  /** D3, P8, P10: after anything worse than a lost connection, what its dirty regions hold is
   *  compared. A daemon that only was killed has lost nothing that it acknowledged. */
  #suspectRegions(replicaId: string, opened: OpenReplicaReply): readonly number[] {
    const reason = this.#options.keeper.set.reasonOf(replicaId) ?? '';
    const linkOnly = LINK_REASONS.has(reason.split(':')[0] ?? '');
    return linkOnly && !opened.lossy ? [] : opened.dirtyRegions;
  }

  #makeCatchUp(
    target: ReplicaLink,
    state: Pick<ConstructorParameters<typeof CatchUp>[0], 'missed' | 'progress' | 'signal'> & {
      readonly suspect: readonly number[];
    },
  ): CatchUp {
    const { config, environment, data, epoch, known } = this.#options;
    const { clock, log } = environment;
    const { table, lock, pacer } = data;
    const copier = new RangeCopier({
      ...{ target, table, lock, gate: data.unequal, verifyBlocks: crc32cVerify },
      onBadCopy: (link, { code }, offsetBytes) => {
        if (code === 'CORRUPT_BLOCK' || code === 'IO_ERROR') data.repair.add(link, offsetBytes);
      },
    });
    const tellerOf = (replicaId: string) => {
      const member = known.get(replicaId);
      return member === undefined ? undefined : { replicaId, control: member.control };
    };
    const targetTeller = tellerOf(target.replicaId);
    if (targetTeller === undefined) throw new Error('a member that was opened is known');
    return new CatchUp({
      ...{ volume: config.volume, epoch, target, targetTeller, tellerOf, copier },
      ...{ missed: state.missed, progress: state.progress, suspectRegions: state.suspect },
      ...{ table, lock, pacer, clock, log, signal: state.signal },
      whenSettled: () => data.fanout.whenSettled(),
      whenEqual: () => data.unequal.whenEqual(),
      volumeBytes: () => data.volume.sizeBytes,
    });
  }

  /** Regions that are dirty on the member have to be cleaned on all members again. */
  async #noteDirty(replicaId: string): Promise<void> {
    const { known, config, epoch, data, environment } = this.#options;
    const control = known.get(replicaId)?.control;
    if (control === undefined) return;
    const now = environment.clock.nowMs();
    const regions = Math.ceil(data.volume.sizeBytes / REGION_SIZE);
    for (let firstRegion = 0; firstRegion < regions; firstRegion += LIST_REGIONS) {
      const request = { volume: config.volume, replicaId, epoch, firstRegion, count: LIST_REGIONS };
      const reply = await control.listRegions(request);
      for (const { number, dirty } of reply.regions) if (dirty) data.tracker.add(number, now);
    }
  }

  /** P10: it was caught up and flushed, so what it had lost is there again. */
  async #noteComplete(replicaId: string, { incarnation }: OpenReplicaReply): Promise<void> {
    const { known, config, epoch } = this.#options;
    const request = { volume: config.volume, replicaId, epoch, incarnation };
    await known.get(replicaId)?.control.noteComplete(request);
  }

  #candidateOf(replicaId: string): Candidate {
    let candidate = this.#candidates.get(replicaId);
    if (candidate === undefined) {
      const lastInSyncMs = this.#options.environment.clock.nowMs();
      candidate = {
        ...{ running: false, attempts: 0, lastInSyncMs, reason: '' },
        ...{ progress: undefined, nextTryMs: undefined },
        ...{ abort: new AbortController(), ended: Promise.resolve() },
      };
      this.#candidates.set(replicaId, candidate);
    }
    return candidate;
  }
}
