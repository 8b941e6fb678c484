/** One engine process of a simulated cluster: the production engine, from its start to its end. */
import { toStorageError } from '../../../common/errors.js';
import { Registry } from '../../../common/metrics.js';
import type { BlockVolume } from '../../../engine/block-volume.js';
import { Engine } from '../../../engine/engine.js';
import type { EngineConfig } from '../../../engine/engine-config.js';
import type { EngineEnvironment } from '../../../engine/engine-environment.js';
import type { ReplicaControl } from '../../../proto/control.js';
import { SimBufferPool } from '../disk/sim-pool.js';
import type { Random } from '../kernel/random.js';
import type { SimHost, SimProcess } from '../kernel/sim-process.js';
import type { SimNetwork } from '../network/network.js';
import type { Plants } from './plants.js';
import type { Story } from './story.js';

export interface EngineNodeOptions {
  readonly host: SimHost;
  readonly number: number;
  readonly config: EngineConfig;
  readonly network: SimNetwork;
  readonly random: Random;
  readonly story: Story;
  readonly plants: Plants;
  /** it serves; called in a turn of the world */
  readonly onServe: (node: EngineNode) => void;
  /** it is gone, before or after it served */
  readonly onEnd: (node: EngineNode) => void;
}

/** Time between the fault of a volume and the end of its process. */
const EXIT_MS = 5;

export class EngineNode {
  readonly name: string;
  readonly process: SimProcess;
  /** the epoch; 0 before it serves */
  tenure = 0;
  /** what clients speak to; undefined before it serves */
  volume: BlockVolume | undefined;
  readonly #options: EngineNodeOptions;
  #engine: Engine | undefined;

  constructor(options: EngineNodeOptions) {
    const { host, number, story } = options;
    this.#options = options;
    this.name = `engine-${number}`;
    this.process = host.start(this.name);
    this.process.onDeath(() => options.onEnd(this));
    story.add(this.name, `starts on ${host.name}`);
    this.process.post(host.scheduler.nowMs, () => {
      this.#start().catch((error: unknown) => {
        const { code, message } = toStorageError(error, 'start');
        story.add(this.name, `does not start: ${code} ${message}`);
        this.process.die('exit');
      });
    });
  }

  get alive(): boolean {
    return this.process.alive;
  }

  get serving(): boolean {
    return this.volume !== undefined && this.alive;
  }

  kill(): void {
    this.#options.story.add(this.name, 'is killed');
    this.process.die('kill');
  }

  /** Ends in order; the process is gone afterwards. */
  stop(): void {
    this.#options.story.add(this.name, 'is told to stop');
    this.process.post(this.process.scheduler.nowMs, () => {
      if (this.#engine === undefined) this.process.die('exit');
      else void this.#engine.stop().then(() => this.process.die('exit'));
    });
  }

  async #start(): Promise<void> {
    const { config, plants, onServe, story } = this.#options;
    const { process } = this;
    const engine = await Engine.start(config, this.#environment(), {
      onFaulted: (reason) => {
        story.add(this.name, `faulted: ${reason}`);
        process.post(process.scheduler.nowMs + EXIT_MS, () => process.die('exit'));
      },
    });
    this.#engine = engine;
    this.tenure = engine.status([]).epoch;
    this.volume = plants.volume(engine.volume);
    story.add(this.name, `serves, epoch ${this.tenure}`);
    process.scheduler.after(0, () => {
      if (process.alive) onServe(this);
    });
  }

  #environment(): EngineEnvironment {
    const { network, plants, random, story } = this.#options;
    const { process } = this;
    return {
      clock: process.clock,
      log: story.logger(this.name),
      registry: new Registry(),
      network: {
        control: (address, deadlineMs) =>
          plants.control(address, network.control(process, address, deadlineMs)) as ReplicaControl,
        connectIo: (connection) => network.connect(process, connection),
        isLocal: (address) => network.hostOf(address) === process.host,
      },
      endOfTurn: process.endOfTurn,
      createPool: (limitBytes) => new SimBufferPool(limitBytes),
      randomId: (prefix) => `${prefix}-${random.hex(6)}`,
    };
  }
}
