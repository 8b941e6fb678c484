/** How an engine opens its volume, and opens it again: with the record on the replicas alone, or in
 *  an authority. Remembers the highest epoch that it has tried, also when the attempt failed. */
import type { MembershipAuthority } from './core/membership-authority.js';
import type { MembershipRecord } from './core/replica-set.js';
import type { EngineConfig } from './engine-config.js';
import type { EngineEnvironment } from './engine-environment.js';
import { openManaged } from './managed/open-managed.js';
import { type OpenedVolume, openMembers } from './standalone/open-volume.js';

export interface VolumeOpener {
  /** @param lost  record of the tenure that was lost; undefined: the first time
   *  @throws StorageError why not; STALE_EPOCH: another engine has the volume */
  open(engineId: string, lost: MembershipRecord | undefined): Promise<OpenedVolume>;
}

export class StandaloneOpener implements VolumeOpener {
  readonly #config: EngineConfig;
  readonly #environment: EngineEnvironment;
  #epoch = 0;

  constructor(config: EngineConfig, environment: EngineEnvironment) {
    this.#config = config;
    this.#environment = environment;
  }

  open(engineId: string, lost: MembershipRecord | undefined): Promise<OpenedVolume> {
    const again = lost !== undefined;
    const wish = {
      engineId,
      sizeBytes: again ? undefined : this.#config.sizeBytes,
      salvage: !again && this.#config.salvage,
      ...(again ? { own: { epoch: this.#epoch, members: lost.members } } : {}),
      // Members that open it hold it against us, whether or not the others do.
      onEpoch: (epoch: number): void => {
        this.#epoch = epoch;
      },
    };
    return openMembers(this.#config, wish, this.#environment);
  }
}

export class ManagedOpener implements VolumeOpener {
  readonly #config: EngineConfig;
  readonly #environment: EngineEnvironment;
  readonly #authority: MembershipAuthority;
  readonly #sizeBytes: number;
  #epoch: number;

  /** @param given  what the manager attached this engine with */
  constructor(
    config: EngineConfig,
    environment: EngineEnvironment,
    given: {
      readonly authority: MembershipAuthority;
      readonly epoch: number;
      readonly sizeBytes: number;
    },
  ) {
    this.#config = config;
    this.#environment = environment;
    this.#authority = given.authority;
    this.#sizeBytes = given.sizeBytes;
    this.#epoch = given.epoch;
  }

  open(engineId: string, lost: MembershipRecord | undefined): Promise<OpenedVolume> {
    const { volume, tuning } = this.#config;
    const wish = {
      ...{ volume, engineId, epoch: this.#epoch, sizeBytes: this.#sizeBytes },
      lostGeneration: lost?.generation,
      controlDeadlineMs: tuning.controlDeadlineMs,
      onEpoch: (epoch: number): void => {
        this.#epoch = epoch;
      },
    };
    return openManaged(this.#authority, wish, this.#environment);
  }
}
