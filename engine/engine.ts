/**
 * One engine: an opened volume with its links, and what keeps it going (deadlines, cleaning,
 * membership).
 *
 * Everything here is wiring; the decisions are in `core/` and `standalone/open-plan.ts`.
 */
import type { BufferPool } from '../common/block-device.js';
import type { Timer } from '../common/clock.js';
import { StorageError } from '../common/errors.js';
import { Gate } from '../common/gate.js';
import { MIB } from '../common/units.js';
import { crc32cBlocks, crc32cVerify } from '../native/index.js';
import type { EngineReplicaStatus, EngineStatus } from '../proto/control.js';
import { PROTOCOL_VERSION } from '../proto/io-codec.js';
import { BlockRepair } from './core/block-repair.js';
import { DirtyTracker } from './core/dirty-tracker.js';
import { Fanout } from './core/fanout.js';
import { MapReader } from './core/map-reader.js';
import { MembershipKeeper } from './core/membership-keeper.js';
import { RangeLock } from './core/range-lock.js';
import { ReadPath } from './core/read-path.js';
import { RegionCleaner } from './core/region-cleaner.js';
import { ReplicaLink } from './core/replica-link.js';
import { ReplicaSet } from './core/replica-set.js';
import { EngineVolume } from './core/volume.js';
import type { EngineConfig } from './engine-config.js';
import type { EngineEnvironment } from './engine-environment.js';
import {
  addEngineGauges,
  createEngineCounters,
  type EngineCounters,
  operationObservers,
} from './engine-metrics.js';
import {
  type OpenedMember,
  type OpenedVolume,
  openMembers,
  recover,
  storeRecord,
} from './standalone/open-volume.js';
import { ReplicaAuthority } from './standalone/replica-authority.js';

export interface EngineEvents {
  /** No in-sync member is left: nothing can be served any more. Called once. */
  onFaulted(reason: string): void;
}

/** Messages that arrive in pieces are put together here; past it ordinary memory is used. */
const RECEIVE_POOL_BYTES = 32 * MIB;
const TICK_MS = 1_000;
/** A tick this late means that this process did not run. */
const STALL_MS = 3 * TICK_MS;
const LAST_MEMBER_PATIENCE = 4;

export class Engine {
  readonly engineId: string;
  readonly volume: EngineVolume;
  readonly #config: EngineConfig;
  readonly #environment: EngineEnvironment;
  readonly #events: EngineEvents;
  readonly #counters: EngineCounters;
  readonly #members: readonly OpenedMember[];
  readonly #links: ReplicaLink[] = [];
  readonly #pool: BufferPool;
  readonly #set: ReplicaSet;
  readonly #keeper: MembershipKeeper;
  readonly #tracker = new DirtyTracker();
  #fanout!: Fanout;
  #cleaner!: RegionCleaner;
  #repair!: BlockRepair;
  readonly #background = new Gate('background work');
  #nextId = 0;
  #ticker: Timer | undefined;
  #lastTickMs = 0;
  /** From the first record of this tenure on: before it a lost member ends the start, it is not
   *  excluded. Its exclusion would end the in-flight windows of the others before they were made
   *  equal (P5). */
  #serving = false;
  #stopping = false;
  #faultedReason: string | undefined;

  /** Opens (or creates) the volume; resolves when it may serve: fenced, recovered, recorded.
   *  @throws StorageError why it may not be opened, see planOpen */
  static async start(
    config: EngineConfig,
    environment: EngineEnvironment,
    events: EngineEvents,
  ): Promise<Engine> {
    const engineId = environment.randomId('e');
    const opened = await openMembers(config, engineId, environment);
    const engine = new Engine(config, environment, events, engineId, opened);
    try {
      await engine.#connect(opened);
    } catch (error) {
      engine.#dropLinks();
      throw error;
    }
    return engine;
  }

  private constructor(
    config: EngineConfig,
    environment: EngineEnvironment,
    events: EngineEvents,
    engineId: string,
    opened: OpenedVolume,
  ) {
    this.#config = config;
    this.#environment = environment;
    this.#events = events;
    this.engineId = engineId;
    this.#members = opened.members;
    this.#pool = environment.createPool(RECEIVE_POOL_BYTES);
    this.#counters = createEngineCounters(environment.registry);
    this.#set = new ReplicaSet(opened.plan.record);
    const controls = new Map(opened.members.map((m) => [m.replicaId, m.control]));
    const deadlineMs = config.tuning.controlDeadlineMs;
    const authority = new ReplicaAuthority(config.volume, controls, deadlineMs);
    this.#keeper = new MembershipKeeper(this.#set, authority, {
      onFailed: (replicaId, reason) => this.#onFailed(replicaId, reason),
      onRecord: (record) => this.#environment.log.warn({ record }, 'membership changed'),
      onFaulted: (reason) => this.#onFaulted(reason),
    });
    this.volume = this.#build(opened.plan.sizeBytes);
    addEngineGauges(environment.registry, {
      volume: config.volume,
      sizeBytes: () => this.volume.sizeBytes,
      inFlight: () => this.volume.inFlight,
      dirtyRegions: () => this.#tracker.count,
      members: () => this.#replicaStatus(),
    });
  }

  #build(sizeBytes: number): EngineVolume {
    const { clock, log, registry, endOfTurn } = this.#environment;
    const { tuning, volume: name } = this.#config;
    const lock = new RangeLock();
    const links = (): readonly ReplicaLink[] => this.#links;
    const fanout = new Fanout({
      links,
      keeper: this.#keeper,
      clock,
      endOfTurn,
      nextId: () => this.#drawId(),
      checksumBlocks: crc32cBlocks,
      windowBytes: 16 * MIB,
      windowRequests: 1024,
    });
    const reads = new ReadPath({
      links,
      clock,
      verifyBlocks: crc32cVerify,
      onBadCopy: (link, error, offsetBytes) => this.#onBadCopy(link, error, offsetBytes),
    });
    this.#repair = new BlockRepair({
      lock,
      reads,
      gate: this.#background,
      log,
      onTouched: (offset, length) => this.#tracker.touch(offset, length, clock.nowMs()),
      onRepaired: (link) => this.#counters.repairs.inc({ volume: name, replica: link.replicaId }),
    });
    const maps = new MapReader(reads, clock, () => this.#links.length);
    this.#fanout = fanout;
    this.#cleaner = new RegionCleaner({
      tracker: this.#tracker,
      lock,
      fanout,
      clock,
      log,
      volumeBytes: () => this.volume.sizeBytes,
      idleMs: tuning.cleanIdleMs,
      intervalMs: tuning.cleanIntervalMs,
    });
    const observe = operationObservers(registry, name);
    const tracker = this.#tracker;
    return new EngineVolume({
      name,
      sizeBytes,
      lock,
      fanout,
      reads,
      maps,
      tracker,
      clock,
      observe,
    });
  }

  #drawId(): number {
    this.#nextId += 1;
    return this.#nextId;
  }

  async #connect(opened: OpenedVolume): Promise<void> {
    const { clock, log } = this.#environment;
    const links = await Promise.all(opened.members.map((m, index) => this.#link(m, index)));
    this.#links.push(...links);
    await recover(opened.members, links, opened.plan.sizeBytes, log);
    await storeRecord(this.#config, opened.members, opened.plan.record);
    this.#serving = true;
    for (const link of links) if (link.broken !== undefined) this.#onBroken(link, link.broken);
    const now = clock.nowMs();
    for (const member of opened.members) {
      for (const region of member.opened.dirtyRegions) this.#tracker.add(region, now);
    }
    this.#cleaner.start();
    this.#lastTickMs = now;
    this.#tick();
    const record = opened.plan.record;
    log.info({ volume: this.#config.volume, engineId: this.engineId, record }, 'volume opened');
  }

  async #link(member: OpenedMember, index: number): Promise<ReplicaLink> {
    const { clock, endOfTurn, network } = this.#environment;
    const { tuning } = this.#config;
    const { replicaId, address } = member;
    const link = new ReplicaLink({
      index,
      replicaId,
      address,
      local: network.isLocal(address),
      clock,
      endOfTurn,
      nextId: () => this.#drawId(),
      ackedThrough: () => this.#fanout.ackedThrough,
      checksumBlocks: crc32cBlocks,
      opDeadlineMs: tuning.opDeadlineMs,
      keepaliveMs: tuning.keepaliveMs,
      onBroken: (broken, error) => this.#onBroken(broken, error),
    });
    const stream = await network.connectIo({
      address,
      acquire: (lengthBytes) => this.#pool.acquire(lengthBytes),
      handlers: {
        onMessage: (message) => link.onMessage(message),
        onDrain: () => undefined,
        onClose: (error) => link.onClose(error),
      },
      deadlineMs: tuning.controlDeadlineMs,
    });
    const reply = await link.attach(stream, {
      protocolVersion: PROTOCOL_VERSION,
      volume: this.#config.volume,
      replicaId,
      epoch: member.opened.info.epoch,
      engineId: this.engineId,
    });
    if (reply.incarnation !== member.opened.incarnation) {
      const text = `replica daemon at ${address} restarted while the volume was being opened`;
      throw new StorageError('UNAVAILABLE', text, { hint: 'start the engine again' });
    }
    return link;
  }

  #onBroken(link: ReplicaLink, error: StorageError): void {
    const index = this.#links.indexOf(link);
    if (index >= 0) this.#links.splice(index, 1);
    if (this.#serving && !this.#stopping)
      this.#keeper.fail(link.replicaId, `${error.code}: ${error.message}`);
  }

  #onFailed(replicaId: string, reason: string): void {
    const { volume } = this.#config;
    this.#counters.replicaFailures.inc({ volume, replica: replicaId });
    this.#environment.log.error({ volume, replica: replicaId, reason }, 'replica failed');
    const link = this.#links.find((l) => l.replicaId === replicaId);
    link?.break(new StorageError('REPLICA_FAILED', reason, { replica: replicaId }));
  }

  #onFaulted(reason: string): void {
    if (this.#faultedReason !== undefined) return;
    this.#faultedReason = reason;
    this.#environment.log.fatal({ volume: this.#config.volume, reason }, 'volume faulted');
    this.#events.onFaulted(reason);
  }

  #onBadCopy(link: ReplicaLink, error: StorageError, offsetBytes: number): void {
    const { volume } = this.#config;
    this.#counters.badCopies.inc({ volume, replica: link.replicaId, code: error.code });
    const facts = { volume, replica: link.replicaId, code: error.code, offsetBytes };
    this.#environment.log.warn(facts, `bad copy: ${error.message}`);
    const damaged = error.code === 'CORRUPT_BLOCK' || error.code === 'IO_ERROR';
    if (damaged && link.broken === undefined) {
      this.#repair.add(link, error.details.offsetBytes ?? offsetBytes);
    }
  }

  /** After a stall of our own (stopped process, long collection) answers may lie unread in the
   *  sockets: they are read first, and nobody is blamed (scenario 19). */
  #tick(): void {
    const now = this.#environment.clock.nowMs();
    const stalled = now - this.#lastTickMs > STALL_MS;
    this.#lastTickMs = now;
    if (!stalled) {
      for (const link of [...this.#links]) {
        link.tick(this.#links.length === 1 ? LAST_MEMBER_PATIENCE : 1);
      }
    }
    this.#ticker = this.#environment.clock.after(TICK_MS, () => this.#tick(), { background: true });
  }

  #replicaStatus(): EngineReplicaStatus[] {
    return this.#set.record.members.map((m) => {
      const link = this.#links.find((l) => l.replicaId === m.replicaId);
      const reason = this.#set.reasonOf(m.replicaId);
      const opened = this.#members.find((o) => o.replicaId === m.replicaId);
      return {
        replicaId: m.replicaId,
        address: opened?.address ?? m.address,
        state: reason === undefined ? m.state : 'failed',
        reason: reason ?? '',
        allocatedBytes: opened?.opened.info.allocatedBytes ?? 0,
        readLatencyMs: link?.readLatencyMs ?? 0,
        writeLatencyMs: link?.writeLatencyMs ?? 0,
        inFlight: link?.inFlight ?? 0,
        local: link?.local ?? false,
      };
    });
  }

  /** What the control socket and the CLI show. @param uris of the frontends, which the engine does
   *  not know */
  status(uris: readonly string[]): EngineStatus {
    const replicas = this.#replicaStatus();
    const degraded = replicas.some((r) => r.state !== 'in-sync');
    const state = this.#set.faulted ? 'faulted' : degraded ? 'degraded' : 'healthy';
    const failed = replicas.find((r) => r.reason !== '');
    return {
      volume: this.#config.volume,
      sizeBytes: this.volume.sizeBytes,
      epoch: this.#set.record.epoch,
      generation: this.#set.record.generation,
      state,
      reason: this.#faultedReason ?? failed?.reason ?? '',
      replicas,
      uris,
      engineId: this.engineId,
    };
  }

  /** Finishes what is under way, flushes, cleans the dirty regions so that the next start compares
   *  nothing, closes. Frontends must be closed first. Never throws: a stop that cannot clean is as
   *  safe as a crash. */
  async stop(): Promise<void> {
    await this.volume.close();
    await this.#cleaner.stop();
    await this.#background.close();
    try {
      if (!this.#set.faulted) {
        await this.#cleaner.clean(0);
        await this.#fanout.flush();
      }
    } catch (error) {
      this.#environment.log.warn({ err: error }, 'stop: regions stay dirty');
    }
    this.#stopping = true;
    this.#ticker?.cancel();
    this.#dropLinks();
  }

  #dropLinks(): void {
    this.#stopping = true;
    for (const link of [...this.#links]) link.close();
    for (const member of this.#members) member.control.close();
  }
}
