/** One engine process of a simulated cluster: the production engine, from its start to its end. */
import { toStorageError } from '../../../common/errors.js';
import { Registry } from '../../../common/metrics.js';
import type { BlockVolume } from '../../../engine/block-volume.js';
import { Engine } from '../../../engine/engine.js';
import type { EngineConfig } from '../../../engine/engine-config.js';
import type { EngineEnvironment } from '../../../engine/engine-environment.js';
import type { ProcessTable } from '../../../engine/engine-life.js';
import type { VolumeEvent } from '../../../engine/events/event-log.js';
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
  /** it serves; called in a turn of its own, before any client can be served */
  readonly onServe: (node: EngineNode) => void;
  readonly onEvent: (node: EngineNode, event: VolumeEvent) => void;
  /** it is gone, before or after it served */
  readonly onEnd: (node: EngineNode) => void;
}

/** Time between the fault of a volume and the end of its process. */
const EXIT_MS = 5;

export class EngineNode {
  readonly name: string;
  readonly process: SimProcess;
  /** grows with every engine that serves; 0 before */
  tenure = 0;
  /** of the record */
  era = 0;
  /** regions were suspect when it began to serve */
  suspects = false;
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

  /** A person's act on the engine. `done` is called once it has ended, either way, or the engine
   *  is gone. */
  operate(act: (engine: Engine) => Promise<unknown>, done: () => void): void {
    const { process } = this;
    let over = false;
    const end = (): void => {
      if (!over) process.scheduler.after(0, done);
      over = true;
    };
    process.onDeath(end);
    process.post(process.scheduler.nowMs, () => {
      const engine = this.#engine;
      if (engine === undefined) return end();
      act(engine).then(end, (error: unknown) => {
        const { code, message } = toStorageError(error, 'operate');
        this.#options.story.add(this.name, `refuses: ${code} ${message}`);
        end();
      });
    });
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
      onEnded: (error) => {
        story.add(this.name, `ends: ${error.code} ${error.message}`);
        process.post(process.scheduler.nowMs + EXIT_MS, () => process.die('exit'));
      },
      onEvent: (event) => this.#event(event),
    });
    this.#engine = engine;
    this.era = engine.era;
    this.volume = plants.volume(engine.volume);
    onServe(this);
  }

  #event(event: VolumeEvent): void {
    const { story, onEvent } = this.#options;
    story.add(this.name, `${event.kind}: ${event.replica ?? ''} ${event.text}`);
    // What is suspect when it begins to serve is made equal behind a gate.
    if (event.kind === 'recovering' && event.source !== undefined) this.suspects = true;
    onEvent(this, event);
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
      processes: processTable(process),
    };
  }
}

/** What the kernel of the process's host knows. */
function processTable(process: SimProcess): ProcessTable {
  const { host } = process;
  const ticksOf = ({ startedMs }: SimProcess): string => String(Math.round(startedMs / 10));
  return {
    self: () => ({
      boot: host.bootId,
      namespace: '1',
      pid: process.pid,
      startTicks: ticksOf(process),
    }),
    startTicks: (pid) => {
      const found = [...host.processes].find((other) => other.pid === pid);
      return found === undefined ? 'gone' : ticksOf(found);
    },
  };
}
