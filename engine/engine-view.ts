/**
 * What an engine shows of itself: for the control socket, the command line and the metrics.
 *
 * Only looks; whatever it shows may be older by the time it is read. Between tenures the members
 * are shown as the last tenure left them, for that is what a person has to bring back (R4).
 */
import type { Clock } from '../common/clock.js';
import type { StorageError } from '../common/errors.js';
import type { EngineReplicaStatus, EngineStatus } from '../proto/control.js';
import type { RecordVersion } from './core/replica-set.js';
import type { DataPath } from './data-path.js';
import type { EngineConfig } from './engine-config.js';
import { StateTimes } from './state-times.js';
import type { Tenure } from './tenure.js';

/** No tenure serves. */
export interface LostState {
  readonly sinceMs: number;
  /** why it was lost */
  readonly error: StorageError;
  /** why the last attempt to open it again failed */
  readonly latest: StorageError | undefined;
}

export interface EngineSituation {
  readonly tenure: Tenure | undefined;
  readonly lost: LostState | undefined;
  readonly ended: StorageError | undefined;
  readonly refusing: boolean;
  /** of the newest tenure that served */
  readonly served: RecordVersion | undefined;
}

export interface EngineViewOptions {
  readonly config: EngineConfig;
  readonly engineId: string;
  readonly clock: Clock;
  readonly data: DataPath;
  readonly situation: () => EngineSituation;
}

/** Subject of StateTimes that is the volume itself; no replica has this name. */
export const VOLUME_SUBJECT = '';

const NO_RECORD: RecordVersion = { epoch: 0, generation: 0 };

export class EngineView {
  readonly #options: EngineViewOptions;
  readonly times = new StateTimes();
  /** of the newest look while a tenure served */
  #last: readonly EngineReplicaStatus[] = [];
  #allocated: ReadonlyMap<string, number> = new Map();

  constructor(options: EngineViewOptions) {
    this.#options = options;
  }

  /** To be called whenever something happened, and before `times` is read. */
  note(): void {
    const replicas = this.replicas();
    const states = new Map(replicas.map((r): [string, string] => [r.replicaId, r.state]));
    states.set(VOLUME_SUBJECT, this.#stateOf(replicas));
    this.times.note(this.#options.clock.nowMs(), states);
  }

  get state(): EngineStatus['state'] {
    return this.#stateOf(this.replicas());
  }

  #stateOf(replicas: readonly EngineReplicaStatus[]): EngineStatus['state'] {
    if (!this.#serving) return 'faulted';
    return replicas.some((r) => r.state !== 'in-sync') ? 'degraded' : 'healthy';
  }

  get #serving(): boolean {
    const { tenure, lost, ended } = this.#options.situation();
    return tenure !== undefined && lost === undefined && ended === undefined;
  }

  get refusing(): boolean {
    return this.#options.situation().refusing;
  }

  get record(): RecordVersion {
    const { tenure, served } = this.#options.situation();
    return (this.#serving ? tenure?.record : undefined) ?? served ?? NO_RECORD;
  }

  /** Operations that wait for an in-sync replica or the read lease. */
  get parkedOperations(): number {
    const { fanout, reads } = this.#options.data;
    return fanout.parked + reads.waiting;
  }

  replicas(): readonly EngineReplicaStatus[] {
    const { tenure } = this.#options.situation();
    if (!this.#serving || tenure === undefined) return this.#last.map((r) => this.#away(r));
    const members = tenure.record.members.map((member): EngineReplicaStatus => {
      const { replicaId } = member;
      return {
        ...this.#memberOf(tenure, replicaId),
        address: tenure.addressOf(replicaId) ?? member.address,
        allocatedBytes: this.#allocated.get(replicaId) ?? 0,
        recordedState: member.state,
      };
    });
    this.#last = members;
    return members;
  }

  #memberOf(
    tenure: Tenure,
    replicaId: string,
  ): Omit<EngineReplicaStatus, 'address' | 'allocatedBytes' | 'recordedState'> {
    const { data, clock } = this.#options;
    const link = data.table.find(replicaId);
    const role = tenure.roleOf(replicaId);
    const attached = role === 'rebuilding' || role === 'promoting';
    const working = role === 'in-sync' || attached;
    const trial = tenure.returns?.trialOf(replicaId);
    const reason = trial?.reason || tenure.reasonOf(replicaId);
    const progress = trial?.progress;
    return {
      replicaId,
      state: attached ? 'rebuilding' : role === 'in-sync' ? 'in-sync' : 'failed',
      reason: working ? '' : (reason ?? ''),
      readLatencyMs: link?.readLatencyMs ?? 0,
      writeLatencyMs: link?.writeLatencyMs ?? 0,
      inFlight: link?.inFlight ?? 0,
      local: link?.local ?? false,
      stateMs: Math.round(this.times.presentMs(replicaId, clock.nowMs())),
      attempts: role === 'in-sync' ? 0 : (trial?.attempts ?? 0),
      nextTryMs: Math.round(trial?.nextTryMs ?? 0),
      ...(progress === undefined ? {} : { progress }),
    };
  }

  /** A member while no tenure serves: none is used, whatever it could do. */
  #away(member: EngineReplicaStatus): EngineReplicaStatus {
    const { progress: _, ...kept } = member;
    const nowMs = this.#options.clock.nowMs();
    return {
      ...kept,
      state: 'failed',
      readLatencyMs: 0,
      writeLatencyMs: 0,
      inFlight: 0,
      stateMs: Math.round(this.times.presentMs(member.replicaId, nowMs)),
      nextTryMs: 0,
    };
  }

  /** @param uris of the frontends, which the engine does not know */
  async status(uris: readonly string[]): Promise<EngineStatus> {
    const { config, data, clock, engineId, situation } = this.#options;
    this.#allocated = (await situation().tenure?.allocatedBytes()) ?? this.#allocated;
    const { lost, ended, refusing } = situation();
    const replicas = this.replicas();
    const { epoch, generation } = this.record;
    const failed = replicas.find((r) => r.reason !== '');
    const error = ended ?? lost?.latest ?? lost?.error;
    return {
      ...{ volume: config.volume, engineId, epoch, generation, replicas, uris, refusing },
      sizeBytes: data.volume.sizeBytes,
      state: this.#stateOf(replicas),
      reason: error?.message ?? failed?.reason ?? '',
      wallMs: Math.round(clock.wallMs()),
      stateMs: Math.round(this.times.presentMs(VOLUME_SUBJECT, clock.nowMs())),
      parkedOperations: this.parkedOperations,
      ioTimeoutMs: config.tuning.lostDeadlineMs,
      unequalExtents: data.unequal.progress.left,
    };
  }
}
