/**
 * One engine's hold on a volume under one epoch: from fencing the members to losing them.
 *
 * Order of the start: the members are opened with the new epoch, which fences every older one (P4)
 * -> data streams -> what was in flight when the last tenure ended is made equal (P5) -> if the
 * engine that had the volume before is not proved dead, one read lease is waited (P13, R5) -> the
 * first record of the epoch is stored on every member, which also ends their old in-flight windows
 * -> the volume serves, while suspect regions are made equal behind a gate (R1).
 *
 * During the start nobody is excluded: a member that fails then ends it, for an exclusion would end
 * the in-flight windows of the others before they were equal. Afterwards a member that fails is
 * excluded, and comes back by itself (member-returns.ts).
 */
import { sleep, type Timer } from '../common/clock.js';
import { StorageError, toStorageError } from '../common/errors.js';
import { crc32cVerify } from '../native/index.js';
import type { ReplicaControl } from '../proto/control.js';
import { MembershipKeeper } from './core/membership-keeper.js';
import type { LeaseMember } from './core/read-lease.js';
import type { ReplicaLink } from './core/replica-link.js';
import {
  type MemberRole,
  type MembershipChange,
  type MembershipRecord,
  ReplicaSet,
} from './core/replica-set.js';
import type { SlowWatch } from './core/slow-watch.js';
import type { DataPath } from './data-path.js';
import type { EngineConfig } from './engine-config.js';
import type { EngineEnvironment } from './engine-environment.js';
import { isProvedDead } from './engine-life.js';
import type { EventLog } from './events/event-log.js';
import { allocatedExtents } from './recovery/allocated-extents.js';
import type { RegionTeller } from './recovery/catch-up.js';
import { Equalizer } from './recovery/equalizer.js';
import { MemberChanges } from './recovery/member-changes.js';
import { MemberReturns } from './recovery/member-returns.js';
import { planPieces, suspectRegions, windowRanges } from './recovery/suspect-ranges.js';
import { connectMember } from './standalone/connect-member.js';
import type { OpenedMember } from './standalone/open-member.js';
import type { OpenedVolume } from './standalone/open-volume.js';
import { ControlCopies } from './standalone/record-copies.js';

export interface TenureEvents {
  /** It serves from this step on. */
  onServing(): void;
  /** A member left; `error` says why. */
  onFailed(replicaId: string, error: StorageError): void;
  /** No in-sync member is left: the tenure is over, the volume may be opened again. */
  onLost(error: StorageError): void;
  /** Another engine has the volume. */
  onFenced(error: StorageError): void;
}

export interface TenureOptions {
  readonly config: EngineConfig;
  readonly environment: EngineEnvironment;
  readonly data: DataPath;
  readonly events: EventLog;
  readonly slow: SlowWatch;
  readonly engineId: string;
  readonly opened: OpenedVolume;
  /** this engine served the volume before: writes that it acknowledged must not be lost silently */
  readonly again: boolean;
  readonly told: TenureEvents;
}

/** A member of which this engine has a control connection. */
interface KnownMember {
  readonly address: string;
  readonly control: ReplicaControl;
}

const STATUS_DEADLINE_MS = 1_000;
const TICK_MS = 1_000;
/** A tick this late means that this process did not run. */
const STALL_MS = 3 * TICK_MS;
const LAST_MEMBER_PATIENCE = 4;
/** Clocks of two machines do not run equally fast. */
const LEASE_MARGIN = 1.1;

export class Tenure {
  readonly #options: TenureOptions;
  readonly #abort = new AbortController();
  readonly #known = new Map<string, KnownMember>();
  readonly #equalizer: Equalizer;
  readonly #openedMs: number;
  readonly #copies: ControlCopies;
  #record: MembershipRecord;
  #keeper: MembershipKeeper | undefined;
  #returns: MemberReturns | undefined;
  #changes: MemberChanges | undefined;
  #ticker: Timer | undefined;
  #lastTickMs = 0;
  #copiedBytes = 0;

  constructor(options: TenureOptions) {
    const { config, environment, data, opened } = options;
    this.#options = options;
    this.#openedMs = environment.clock.nowMs();
    this.#record = opened.plan.record;
    for (const member of opened.members) this.#known.set(member.replicaId, member);
    this.#copies = new ControlCopies(
      config.volume,
      (replicaId) => this.#known.get(replicaId)?.control,
      config.tuning.controlDeadlineMs,
    );
    this.#equalizer = new Equalizer({
      table: data.table,
      members: opened.members.map((m) => ({
        replicaId: m.replicaId,
        lossy: m.opened.lossy,
        restartedDirty: m.opened.restartedDirty,
      })),
      volumeBytes: () => data.volume.sizeBytes,
      verifyBlocks: crc32cVerify,
      onCopied: (bytes) => {
        this.#copiedBytes += bytes;
      },
    });
  }

  get record(): MembershipRecord {
    return this.#keeper?.set.record ?? this.#record;
  }

  get epoch(): number {
    return this.#record.epoch;
  }

  get returns(): MemberReturns | undefined {
    return this.#returns;
  }

  roleOf(replicaId: string): MemberRole | undefined {
    return this.#keeper?.set.roleOf(replicaId);
  }

  reasonOf(replicaId: string): string | undefined {
    return this.#keeper?.set.reasonOf(replicaId);
  }

  addressOf(replicaId: string): string | undefined {
    return this.#known.get(replicaId)?.address;
  }

  /** Bytes that each member has allocated, as its daemon says now; members that do not answer are
   *  left out. */
  async allocatedBytes(): Promise<ReadonlyMap<string, number>> {
    const { volume } = this.#options.config;
    const found = new Map<string, number>();
    const asked = [...this.#known].map(async ([replicaId, { control }]) => {
      const { replicas } = await control.identify({ volume }, { deadlineMs: STATUS_DEADLINE_MS });
      const own = replicas.find((r) => r.replicaId === replicaId);
      if (own !== undefined) found.set(replicaId, own.allocatedBytes);
    });
    await Promise.allSettled(asked);
    return found;
  }

  /** Extents from `from` on that an in-sync member has allocated. @throws StorageError when no
   *  member can be asked */
  allocatedExtents(from: number): AsyncIterable<number> {
    const { config, data } = this.#options;
    const tellers = (): RegionTeller[] =>
      data.table.inSync.flatMap(({ replicaId }) => {
        const control = this.#known.get(replicaId)?.control;
        return control === undefined ? [] : [{ replicaId, control }];
      });
    const volumeBytes = data.volume.sizeBytes;
    return allocatedExtents(
      { volume: config.volume, epoch: this.epoch, tellers, volumeBytes },
      from,
    );
  }

  /** Everything up to service. @throws StorageError why the volume cannot be served; `end`
   *  follows */
  async start(): Promise<void> {
    const { data, opened, config } = this.#options;
    const members = opened.members.map((m) => m.opened);
    data.leaseMembers = () => undefined;
    const links = await this.#connectAll();
    for (const link of links) data.table.add(link, true);
    this.#refuseLoss();
    await this.#equalizeWindows(planPieces(windowRanges(members), data.volume.sizeBytes));
    await this.#awaitPrevious();
    await this.#commitRecord();
    const ids = opened.members.map((m) => m.replicaId);
    const failed = await this.#copies.store(this.#record, ids);
    for (const error of failed.values()) throw error;
    for (const link of links) if (link.broken !== undefined) throw link.broken;
    this.#serve(config, suspectRegions(members));
  }

  /** The first record of the tenure, in the authority. An unknown outcome ends the start; the next
   *  one looks what it was. */
  async #commitRecord(): Promise<void> {
    const { authority, recorded } = this.#options.opened;
    const outcome = await authority.commit(recorded, this.#record);
    if (outcome.kind === 'stored') return;
    const { epoch, generation } = outcome.record;
    const text = `the membership changed while the volume was opened: epoch ${epoch}`;
    throw new StorageError('STALE_EPOCH', `${text}, generation ${generation}`, { epoch });
  }

  /** The volume serves from now on. In one step: no member can fail unseen in between. */
  #serve(config: EngineConfig, regions: readonly number[]): void {
    const { data, opened, environment, events, told } = this.#options;
    const { clock } = environment;
    const set = new ReplicaSet(this.#record);
    const keeper = this.#makeKeeper(set, config);
    this.#keeper = keeper;
    for (const id of set.withRole('out')) data.table.addAway(id);
    data.leaseMembers = () => this.#leaseMembers();
    const now = clock.nowMs();
    for (const member of opened.members) {
      for (const region of member.opened.dirtyRegions) data.tracker.add(region, now);
    }
    const unequal = data.table.inSync.length > 1 ? regions : [];
    if (unequal.length > 0) {
      const source = this.#equalizer.source()?.replicaId;
      const text = `${unequal.length} regions may differ after an unclean stop and are compared`;
      events.add('recovering', text, { source });
    }
    const equalize = (extents: readonly number[]): Promise<void> =>
      this.#equalizer.equalize(extents);
    data.onEqual = () => this.#noteComplete();
    data.unequal.begin(unequal, equalize, this.#abort.signal);
    data.cleaner.beginEpoch();
    this.#returns = this.#makeReturns(keeper);
    this.#changes = new MemberChanges({
      ...{ config, environment, data, events, keeper, epoch: this.epoch, known: this.#known },
      returns: this.#returns,
    });
    told.onServing();
    data.resume(keeper);
    data.cleaner.start();
    this.#lastTickMs = now;
    this.#tick();
    for (const id of set.withRole('out')) this.#returns.start(id, 0);
  }

  #makeKeeper(set: ReplicaSet, config: EngineConfig): MembershipKeeper {
    const { environment, events, told, opened } = this.#options;
    return new MembershipKeeper({
      ...{ set, copies: this.#copies, clock: environment.clock },
      authority: opened.authority,
      settleDeadlineMs: config.tuning.settleDeadlineMs,
      events: {
        onFailed: (replicaId, error) => this.#onFailed(replicaId, error),
        onStored: (change) => this.#onStored(change),
        onStalled: (error) => events.add('stalled', `changes of membership wait: ${error.message}`),
        onFaulted: (error) => told.onLost(error),
        onFenced: (error) => told.onFenced(error),
      },
    });
  }

  #makeReturns(keeper: MembershipKeeper): MemberReturns {
    const { config, environment, data, events, slow, engineId } = this.#options;
    return new MemberReturns({
      ...{ config, environment, data, events, slow, engineId, keeper, epoch: this.epoch },
      signal: this.#abort.signal,
      known: this.#known,
      onBroken: (link, error) => this.#onBroken(link, error),
      onHeard: this.#onHeard,
    });
  }

  /** All members or none: what nobody keeps is given up. */
  async #connectAll(): Promise<readonly ReplicaLink[]> {
    const { opened } = this.#options;
    const outcomes = await Promise.allSettled(opened.members.map((m) => this.#connect(m)));
    const links = outcomes.flatMap((o) => (o.status === 'fulfilled' ? [o.value] : []));
    try {
      for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
      for (const link of links) if (link.broken !== undefined) throw link.broken;
      this.#abort.signal.throwIfAborted();
    } catch (cause) {
      const error = toStorageError(cause, 'connect all members');
      for (const link of links) link.break(error);
      throw error;
    }
    return links;
  }

  async #connect(member: OpenedMember): Promise<ReplicaLink> {
    const { config, environment, data, engineId } = this.#options;
    const { replicaId, address, opened } = member;
    return connectMember({
      ...{ config, environment, data, engineId, replicaId, address, opened },
      onBroken: (link, error) => this.#onBroken(link, error),
      onHeard: this.#onHeard,
    });
  }

  /** P10: members that had lost something are as good as the source from now on. One that is not
   *  told stays lossy until its regions are cleaned. */
  #noteComplete(): void {
    const { opened, config, environment } = this.#options;
    for (const { replicaId, control, opened: member } of opened.members) {
      if (!member.lossy || this.roleOf(replicaId) !== 'in-sync') continue;
      const { incarnation } = member;
      const request = { volume: config.volume, replicaId, epoch: this.epoch, incarnation };
      const asked = control.noteComplete(request, { deadlineMs: config.tuning.controlDeadlineMs });
      asked.catch((error: unknown) => {
        environment.log.warn({ replica: replicaId, err: error }, 'not noted as complete');
      });
    }
  }

  readonly #onHeard = (): void => this.#options.data.reads.leaseChanged();

  /** P10, F3: power was lost on every copy. What was flushed is there; what was acknowledged and
   *  not flushed may be gone. A start says so in the record's era; an engine that has acknowledged
   *  such writes itself must not go on as if nothing had happened: the next flush would be a lie
   *  (D1). */
  #refuseLoss(): void {
    const { opened, again, events } = this.#options;
    if (!opened.members.every((m) => m.opened.lossy)) return;
    const text = 'power was lost on every copy: writes that were not flushed may be lost';
    if (again) {
      throw new StorageError('IO_INDETERMINATE', text, {
        hint: 'the engine has to be started anew, and its clients with it',
      });
    }
    events.add('recovering', text);
    this.#record = { ...this.#record, era: this.#record.era + 1 };
  }

  async #equalizeWindows(pieces: ReturnType<typeof planPieces>): Promise<void> {
    if (pieces.length === 0 || this.#options.data.table.inSync.length < 2) return;
    await this.#equalizer.equalizeRanges(pieces);
    const bytes = pieces.reduce((sum, piece) => sum + piece.lengthBytes, 0);
    const text = `writes in flight at the last stop are equal: ${bytes} bytes compared`;
    const source = this.#equalizer.source()?.replicaId;
    this.#options.events.add('recovered', text, { bytes: this.#copiedBytes, source });
  }

  /** R5: nothing is served while an engine that held the volume before may still answer reads under
   *  its lease. */
  async #awaitPrevious(): Promise<void> {
    const { opened, environment, config, events, engineId } = this.#options;
    const { clock, processes } = environment;
    const previous = opened.plan.previousEngineId;
    if (previous === '' || previous === engineId || isProvedDead(previous, processes)) return;
    const silentMs = Math.max(...opened.members.map((m) => m.opened.silentMs));
    const passedMs = clock.nowMs() - this.#openedMs;
    const leftMs = config.tuning.leaseMs * LEASE_MARGIN - silentMs - passedMs;
    if (leftMs <= 0) return;
    const text = `engine ${previous} may still run: waiting ${Math.ceil(leftMs)} ms`;
    events.add('recovering', `${text} for the end of its read lease`);
    await sleep(clock, leftMs, this.#abort.signal);
  }

  #leaseMembers(): readonly LeaseMember[] | undefined {
    return this.#keeper?.set.settled === true ? this.#options.data.table.inSync : undefined;
  }

  #onBroken(link: ReplicaLink, error: StorageError): void {
    const { data, told } = this.#options;
    if (!data.table.remove(link) || this.#abort.signal.aborted) return;
    // What is made equal without it is no write, and not noted: it is compared when it is back.
    if (data.unequal.active) data.table.away.get(link.replicaId)?.forget();
    const keeper = this.#keeper;
    if (keeper === undefined) return;
    if (data.unequal.active && this.#equalizer.needs(link.replicaId)) {
      const text = `replica ${link.replicaId} failed, and the others may lack acknowledged writes`;
      told.onLost(new StorageError('NO_REPLICA', `${text}: ${error.message}`));
      return;
    }
    keeper.fail(link.replicaId, error);
  }

  #onFailed(replicaId: string, error: StorageError): void {
    const { data, events, told } = this.#options;
    const errno = error.details.errno;
    events.add('failed', error.message, { replica: replicaId, code: error.code, errno });
    told.onFailed(replicaId, error);
    data.lease.reset();
    data.table.find(replicaId)?.break(error);
    if (this.roleOf(replicaId) === 'out') this.#returns?.start(replicaId);
  }

  #onStored(change: MembershipChange): void {
    const { data, events, environment } = this.#options;
    const { generation, members } = change.record;
    const left = members.filter((m) => m.state === 'in-sync').length;
    environment.log.warn({ record: change.record }, 'membership changed');
    for (const replica of change.excluded) {
      const text = `excluded: generation ${generation}, ${left} in-sync members are left`;
      events.add('excluded', text, { replica, generation });
    }
    for (const replica of change.promoted) {
      const link = data.table.find(replica);
      if (this.roleOf(replica) !== 'in-sync' || link === undefined) continue;
      data.table.promote(link);
      events.add('in-sync', `in-sync again: generation ${generation}`, { replica, generation });
    }
    data.lease.reset();
    data.reads.leaseChanged();
    for (const replica of change.excluded) this.#returns?.start(replica);
  }

  /** After a stall of our own (stopped process, long collection) answers may lie unread in the
   *  sockets: they are read first, and nobody is blamed (scenario 19). */
  #tick(): void {
    const { environment, data, slow } = this.#options;
    const { clock } = environment;
    const now = clock.nowMs();
    const stalled = now - this.#lastTickMs > STALL_MS;
    this.#lastTickMs = now;
    if (!stalled) {
      const alone = data.table.inSync.length === 1;
      for (const link of [...data.table.all]) {
        link.tick(alone && data.table.isInSync(link) ? LAST_MEMBER_PATIENCE : 1);
      }
      const verdict = slow.look(data.table.inSync, now);
      if (verdict !== undefined) this.#setAside(verdict.replicaId, verdict.text);
    }
    // The look may have found that the last member is lost.
    if (this.#abort.signal.aborted) return;
    this.#ticker = clock.after(TICK_MS, () => this.#tick(), { background: true });
  }

  #setAside(replicaId: string, text: string): void {
    this.#options.events.add('slow', text, { replica: replicaId });
    this.#keeper?.fail(replicaId, new StorageError('DEADLINE', text, { replica: replicaId }));
  }

  /** Ends it: links, calls and background work of this tenure. The data path must be suspended. */
  end(error: StorageError): void {
    if (this.#abort.signal.aborted) return;
    this.#abort.abort(error);
    this.#ticker?.cancel();
    this.#keeper?.stop();
    const { data } = this.#options;
    data.leaseMembers = () => undefined;
    data.onEqual = () => undefined;
    data.lease.reset();
    for (const link of [...data.table.all]) link.break(error);
    data.table.clear();
    for (const { control } of this.#known.values()) control.close();
  }

  /** After the last operation: streams end in order. */
  close(): void {
    this.#keeper?.stop();
    this.#ticker?.cancel();
    const { table } = this.#options.data;
    this.#abort.abort(new StorageError('CLOSED', 'the engine stops'));
    for (const link of [...table.all]) link.close();
    table.clear();
    for (const { control } of this.#known.values()) control.close();
  }

  /** Members added and taken off on request. @throws StorageError UNAVAILABLE (not yet) */
  get changes(): MemberChanges {
    if (this.#changes !== undefined) return this.#changes;
    throw new StorageError('UNAVAILABLE', 'the volume is being opened');
  }
}
