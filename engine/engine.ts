/**
 * One engine: a volume that serves, through one tenure after another.
 *
 * When the last in-sync member is lost, operations wait with their locks held while the engine
 * tries to open the volume again; past a deadline they fail, and the engine goes on trying. It ends
 * by itself in two cases only: another engine has the volume (fenced), or writes that it has
 * acknowledged may be lost (power failed on every copy).
 */
import { sleep } from '../common/clock.js';
import { StorageError, toStorageError } from '../common/errors.js';
import type { EngineStatus } from '../proto/control.js';
import { isFencing } from './core/fencing.js';
import type { ReplicaLink } from './core/replica-link.js';
import type { MembershipRecord } from './core/replica-set.js';
import { SlowWatch } from './core/slow-watch.js';
import type { EngineVolume } from './core/volume.js';
import { DataPath } from './data-path.js';
import type { EngineConfig } from './engine-config.js';
import type { EngineEnvironment } from './engine-environment.js';
import { addEngineGauges } from './engine-gauges.js';
import { engineIdOf } from './engine-life.js';
import { createEngineCounters, type EngineCounters } from './engine-metrics.js';
import { EngineView, type LostState } from './engine-view.js';
import { EventLog, type VolumeEvent } from './events/event-log.js';
import { StandaloneOpener, type VolumeOpener } from './opener.js';
import type { MemberChanges } from './recovery/member-changes.js';
import { Pacer } from './recovery/pacer.js';
import { Scrub, type ScrubStore } from './scrub/scrub.js';
import { ScrubSchedule } from './scrub/scrub-schedule.js';
import type { OpenedVolume } from './standalone/open-volume.js';
import { Tenure } from './tenure.js';

export interface EngineHooks {
  /** The engine serves no more and never will: fenced, or acknowledged writes may be lost. Called
   *  once. */
  onEnded(error: StorageError): void;
  onEvent?(event: VolumeEvent): void;
  /** events of earlier engines, oldest first */
  readonly history?: readonly VolumeEvent[];
  /** default: standalone */
  readonly opener?: VolumeOpener;
  /** keeps the position of the scrub; default: nowhere */
  readonly scrubStore?: ScrubStore;
}

const STOPPING = new StorageError('CLOSED', 'the engine stops');
/** A scrub that begins anew with each engine. */
const FORGETFUL: ScrubStore = { load: async () => undefined, save: async () => undefined };
const REOPEN_PAUSE_MS = 250;
const REOPEN_PAUSE_MAX_MS = 5_000;

export class Engine {
  readonly engineId: string;
  readonly events: EventLog;
  readonly scrub: Scrub;
  readonly #config: EngineConfig;
  readonly #environment: EngineEnvironment;
  readonly #told: EngineHooks;
  readonly #opener: VolumeOpener;
  readonly #counters: EngineCounters;
  readonly #slow: SlowWatch;
  readonly #data: DataPath;
  readonly #view: EngineView;
  readonly #schedule: ScrubSchedule;
  readonly #abort = new AbortController();
  #tenure: Tenure | undefined;
  /** record of the newest tenure that served */
  #served: MembershipRecord | undefined;
  /** what that tenure may have stored, whether or not it heard of it */
  #generationMax = 0;
  #era = 0;
  /** no tenure serves, since when and why */
  #lost: LostState | undefined;
  #refusing = false;
  #stopping = false;
  #ended: StorageError | undefined;

  /** Opens (or creates) the volume; resolves when it serves: fenced, recovered, recorded.
   *  @throws StorageError why it may not be opened, see planOpen */
  static async start(
    config: EngineConfig,
    environment: EngineEnvironment,
    events: EngineHooks,
  ): Promise<Engine> {
    const { processes, randomId } = environment;
    const engineId = engineIdOf(randomId('e'), processes);
    const opener = events.opener ?? new StandaloneOpener(config, environment);
    const opened = await opener.open(engineId, undefined);
    const parts = { environment, events, engineId, opener };
    const engine = new Engine(config, parts, opened.plan.sizeBytes);
    try {
      await engine.scrub.load();
      await engine.#begin(opened, false);
      engine.#schedule.start();
    } catch (error) {
      engine.#schedule.stop();
      engine.#dropTenure(toStorageError(error, 'open the volume'));
      throw error;
    }
    return engine;
  }

  private constructor(
    config: EngineConfig,
    parts: {
      readonly environment: EngineEnvironment;
      readonly events: EngineHooks;
      readonly engineId: string;
      readonly opener: VolumeOpener;
    },
    sizeBytes: number,
  ) {
    const { environment, events, engineId, opener } = parts;
    const { clock, registry } = environment;
    this.#config = config;
    this.#environment = environment;
    this.#told = events;
    this.engineId = engineId;
    this.#opener = opener;
    this.events = new EventLog(clock, {
      onEvent: (event) => this.#onEvent(event),
      history: events.history ?? [],
    });
    this.#counters = createEngineCounters(registry);
    this.#slow = new SlowWatch(config.tuning.slow);
    this.#data = new DataPath(
      {
        ...{ config, environment, events: this.events },
        onBadCopy: (link, error, offsetBytes) => this.#onBadCopy(link, error, offsetBytes),
        onRepaired: (link, offsetBytes) => this.#onRepaired(link, offsetBytes),
      },
      sizeBytes,
    );
    this.scrub = this.#makeScrub(events.scrubStore);
    this.#view = new EngineView({
      ...{ config, engineId, clock, data: this.#data },
      situation: () => ({
        ...{ tenure: this.#tenure, lost: this.#lost, ended: this.#ended },
        ...{ refusing: this.#refusing, served: this.#served },
      }),
    });
    this.#schedule = new ScrubSchedule({
      ...{ everyMs: config.tuning.scrubEveryMs, clock, scrub: this.scrub },
      serving: () => this.#lost === undefined && this.#ended === undefined,
    });
    const { volume } = config;
    addEngineGauges(registry, { volume, view: this.#view, data: this.#data, scrub: this.scrub });
  }

  #onEvent(event: VolumeEvent): void {
    this.#counters.events.inc({ volume: this.#config.volume, kind: event.kind });
    this.#view.note();
    this.#told.onEvent?.(event);
  }

  #makeScrub(store: ScrubStore = FORGETFUL): Scrub {
    const { clock, log } = this.#environment;
    const { table, lock, unequal, repair, volume } = this.#data;
    return new Scrub({
      ...{ table, lock, gate: unequal, clock, log, events: this.events, store },
      pacer: new Pacer({
        ...{ clock, policy: this.#config.tuning.scrubPacer },
        lastClientMs: () => volume.lastOperationMs,
      }),
      volumeBytes: () => volume.sizeBytes,
      allocatedExtents: (from) => this.#serving().allocatedExtents(from),
      mend: (link, offsetBytes, avoid) => repair.mend(link, offsetBytes, avoid),
    });
  }

  get volume(): EngineVolume {
    return this.#data.volume;
  }

  async #begin(opened: OpenedVolume, again: boolean): Promise<void> {
    const { plan } = opened;
    if (this.#ended !== undefined) {
      for (const { control } of opened.members) control.close();
      throw this.#ended;
    }
    const tenure = new Tenure({
      ...{ config: this.#config, environment: this.#environment, data: this.#data },
      ...{ events: this.events, slow: this.#slow, engineId: this.engineId, opened, again },
      told: {
        onServing: () => {
          this.#lost = undefined;
          this.#refusing = false;
        },
        onFailed: (replicaId) => this.#onFailed(replicaId),
        onLost: (error) => this.#onLost(error),
        onFenced: (error) => this.#end('fenced', error),
      },
    });
    this.#tenure = tenure;
    for (const warning of plan.warnings) this.events.add('opened', warning);
    await tenure.start();
    this.#served = tenure.record;
    const { epoch, generation, members, era } = tenure.record;
    this.#era = era;
    const inSync = members.filter((m) => m.state === 'in-sync').length;
    const version = `epoch ${epoch}, generation ${generation}`;
    const text = `${again ? 'serving again' : 'opened'}: ${version}, ${inSync} in-sync members`;
    this.events.add(again ? 'back' : 'opened', text, { generation });
    const { log } = this.#environment;
    log.info({ volume: this.#config.volume, engineId: this.engineId, epoch, generation }, text);
  }

  #onFailed(replicaId: string): void {
    const { volume } = this.#config;
    this.#counters.replicaFailures.inc({ volume, replica: replicaId });
  }

  #onBadCopy(link: ReplicaLink, error: StorageError, offsetBytes: number): void {
    const { volume } = this.#config;
    const { code } = error;
    const replica = link.replicaId;
    this.#counters.badCopies.inc({ volume, replica, code });
    // P8: it serves nobody until it is opened again.
    if (code === 'REPLICA_FAILED') link.break(error);
    if (link.broken !== undefined || (code !== 'CORRUPT_BLOCK' && code !== 'IO_ERROR')) return;
    this.events.add('bad-block', error.message, { replica, code, errno: error.details.errno });
    this.#data.repair.add(link, error.details.offsetBytes ?? offsetBytes);
  }

  #onRepaired(link: ReplicaLink, offsetBytes: number): void {
    const { volume } = this.#config;
    const replica = link.replicaId;
    this.#counters.repairs.inc({ volume, replica });
    this.events.add('repaired', `block at ${offsetBytes} rewritten from a good copy`, { replica });
  }

  /** No in-sync member is left. Called in the middle of whatever noticed it. */
  #onLost(error: StorageError): void {
    if (this.#lost !== undefined || this.#ended !== undefined) return;
    const { clock } = this.#environment;
    this.#lost = { error, sinceMs: clock.nowMs(), latest: undefined };
    this.events.add('lost', `I/O waits: ${error.message}`, { code: error.code });
    this.#served = this.#tenure?.record ?? this.#served;
    this.#generationMax = this.#tenure?.generationMax ?? this.#generationMax;
    this.#data.suspend();
    this.#dropTenure(error);
    if (this.#stopping) this.#data.refuse(STOPPING);
    else void this.#reopen(this.#lost.sinceMs);
  }

  async #reopen(sinceMs: number): Promise<void> {
    const { clock } = this.#environment;
    const { lostDeadlineMs } = this.#config.tuning;
    const giveUp = clock.after(lostDeadlineMs, () => this.#refuse());
    for (let pauseMs = REOPEN_PAUSE_MS; ; pauseMs = Math.min(pauseMs * 2, REOPEN_PAUSE_MAX_MS)) {
      await sleep(clock, pauseMs, this.#abort.signal).catch(() => undefined);
      if (this.#ended !== undefined || this.#abort.signal.aborted) break;
      if (await this.#tryReopen(sinceMs)) break;
    }
    giveUp.cancel();
  }

  /** True: it serves again, or never will. */
  async #tryReopen(sinceMs: number): Promise<boolean> {
    const { clock } = this.#environment;
    // A member that is to be opened says STALE_EPOCH only for another engine.
    let epoch = Number.NEGATIVE_INFINITY;
    try {
      const lost = { members: this.#served?.members ?? [], generationMax: this.#generationMax };
      const opened = await this.#opener.open(this.engineId, lost);
      epoch = opened.plan.epoch;
      await this.#begin(opened, true);
    } catch (cause) {
      const error = toStorageError(cause, 'open the volume again');
      this.#data.suspend();
      this.#dropTenure(error);
      if (isFencing(error, epoch)) this.#end('fenced', error);
      else if (error.code === 'IO_INDETERMINATE') this.#end('lost', error);
      else this.#notYet(error);
      return this.#ended !== undefined;
    }
    const waitedMs = Math.round(clock.nowMs() - sinceMs);
    this.events.add('back', `I/O goes on after ${waitedMs} ms`);
    return true;
  }

  #notYet(error: StorageError): void {
    if (this.#lost !== undefined) this.#lost = { ...this.#lost, latest: error };
    this.events.add('lost', `cannot be opened yet: ${error.message}`, { code: error.code });
  }

  /** I/O has waited long enough (scenario 23): it fails until the members are back. */
  #refuse(): void {
    const lost = this.#lost;
    if (lost === undefined || this.#ended !== undefined) return;
    this.#refusing = true;
    const { lostDeadlineMs } = this.#config.tuning;
    const text = `no in-sync replica for ${lostDeadlineMs} ms: I/O fails until one is back`;
    this.events.add('refusing', text, { code: lost.error.code });
    this.#data.refuse(new StorageError('NO_REPLICA', text, { hint: lost.error.message }));
  }

  #end(kind: 'fenced' | 'lost', error: StorageError): void {
    if (this.#ended !== undefined) return;
    this.#ended = error;
    this.events.add(kind, `the engine ends: ${error.message}`, { code: error.code });
    const { log } = this.#environment;
    log.fatal({ volume: this.#config.volume, code: error.code }, error.message);
    this.#data.suspend();
    this.#dropTenure(error);
    this.#data.refuse(error);
    this.#abort.abort(error);
    this.#told.onEnded(error);
  }

  #dropTenure(error: StorageError): void {
    const tenure = this.#tenure;
    this.#tenure = undefined;
    tenure?.end(error);
  }

  /** What the control socket and the CLI show. @param uris of the frontends, which the engine does
   *  not know */
  status(uris: readonly string[]): Promise<EngineStatus> {
    return this.#view.status(uris);
  }

  /** Of the volume, the same for the life of the engine; see nbd/description.ts. */
  get era(): number {
    return this.#era;
  }

  /** True while no tenure serves. */
  get waiting(): boolean {
    return this.#lost !== undefined;
  }

  /** True while operations fail instead of waiting. */
  get refusing(): boolean {
    return this.#refusing;
  }

  /** Members added and taken off on request. @throws StorageError UNAVAILABLE: no tenure serves */
  get members(): MemberChanges {
    return this.#serving().changes;
  }

  #serving(): Tenure {
    if (this.#tenure !== undefined && this.#lost === undefined) return this.#tenure;
    throw new StorageError('UNAVAILABLE', 'the volume does not serve now', {
      volume: this.#config.volume,
    });
  }

  /** Finishes what is under way, flushes, cleans the dirty regions so that the next start compares
   *  nothing, closes. Frontends must be closed first. Never throws: a stop that cannot clean is as
   *  safe as a crash. */
  async stop(): Promise<void> {
    this.#stopping = true;
    // What waits for lost members will not be served by this engine.
    if (this.#lost !== undefined) this.#data.refuse(STOPPING);
    this.#schedule.stop();
    await this.scrub.interrupt();
    await this.volume.close();
    await this.#data.cleaner.stop();
    await this.#data.background.close();
    try {
      if (this.#lost === undefined && this.#ended === undefined) {
        await this.#data.cleaner.clean(0);
        await this.#data.fanout.flush();
      }
    } catch (error) {
      this.#environment.log.warn({ err: error }, 'stop: regions stay dirty');
    }
    this.#ended ??= STOPPING;
    this.#abort.abort(STOPPING);
    this.#data.suspend();
    this.#tenure?.close();
    this.#tenure = undefined;
    this.#data.refuse(STOPPING);
  }
}
