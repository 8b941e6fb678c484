/** One volume of three replicas whose daemons are killed, emptied and started again while the
 *  engine serves: real processes, started through bin/aurochs. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type Clock, sleep } from '../../common/clock.js';
import { StorageError } from '../../common/errors.js';
import { GIB } from '../../common/units.js';
import type { EngineEvent, EngineStatus } from '../../proto/control/engine-messages.js';
import { EngineControlClient, ReplicaControlClient } from '../../proto/control.js';
import type { ChildRegistry } from '../child-registry.js';
import { freePort } from '../free-port.js';

const COPIES = 3;
const POLL_MS = 20;
const WAIT_MS = 300_000;

export interface RecoveryBedOptions {
  readonly children: ChildRegistry;
  readonly clock: Clock;
  /** its own; removed by the caller */
  readonly directory: string;
  readonly root: string;
  readonly volume: string;
  readonly sizeBytes: number;
}

interface Daemon {
  readonly address: string;
  pid: number;
  /** how many empty disks it has had */
  generation: number;
}

export class RecoveryBed {
  readonly #options: RecoveryBedOptions;
  readonly #daemons: Daemon[] = [];
  #engine: { readonly pid: number; readonly uri: string } | undefined;
  #control: EngineControlClient | undefined;
  #starts = 0;

  private constructor(options: RecoveryBedOptions) {
    this.#options = options;
  }

  static async start(options: RecoveryBedOptions): Promise<RecoveryBed> {
    const bed = new RecoveryBed(options);
    for (let index = 0; index < COPIES; index += 1) {
      bed.#daemons.push({ address: `127.0.0.1:${await freePort()}`, pid: 0, generation: 0 });
      await bed.startDaemon(index);
    }
    await bed.startEngine();
    return bed;
  }

  get uri(): string {
    if (this.#engine === undefined) throw new StorageError('CLOSED', 'the engine is stopped');
    return this.#engine.uri;
  }

  get control(): EngineControlClient {
    if (this.#control === undefined) throw new StorageError('CLOSED', 'the engine is stopped');
    return this.#control;
  }

  addressOf(index: number): string {
    return this.#daemon(index).address;
  }

  diskOf(index: number): string {
    const { directory } = this.#options;
    return join(directory, `disk${index}.${this.#daemon(index).generation}`);
  }

  /** @returns how long it took from the start of the process until it serves, in milliseconds */
  async startEngine(): Promise<number> {
    const { children, directory, root, volume, sizeBytes, clock } = this.#options;
    const socket = join(directory, 'control.sock');
    this.#starts += 1;
    const startMs = clock.nowMs();
    const engine = await children.start({
      name: `engine-${this.#starts}`,
      command: join(root, 'bin', 'aurochs'),
      args: [
        ...['engine', '--volume', volume, '--size', String(sizeBytes)],
        ...this.#daemons.flatMap(({ address }) => ['--replica', address]),
        ...['--nbd', `unix:${join(directory, 'nbd.sock')}`, '--control', `unix:${socket}`],
      ],
      env: { AUROCHS_LOG: 'warn' },
      ready: { line: /^ready (nbd\S+)\n/m },
    });
    const tookMs = clock.nowMs() - startMs;
    this.#engine = { pid: engine.pid, uri: engine.readyText };
    this.#control = new EngineControlClient({ address: `unix:${socket}`, clock });
    return tookMs;
  }

  async killEngine(): Promise<void> {
    const { pid } = this.#engine ?? { pid: 0 };
    this.#control?.close();
    this.#engine = undefined;
    this.#control = undefined;
    if (pid !== 0) await this.#options.children.kill(pid);
  }

  async startDaemon(index: number): Promise<void> {
    const { children, directory, root, sizeBytes } = this.#options;
    const daemon = this.#daemon(index);
    this.#starts += 1;
    const child = await children.start({
      name: `replica${index}-${this.#starts}`,
      command: join(root, 'bin', 'aurochs'),
      args: [
        ...['replica', '--listen', daemon.address],
        ...['--data', join(directory, `data${index}.${daemon.generation}`)],
        ...['--disk', `${this.diskOf(index)},size=${sizeBytes + GIB}`],
      ],
      env: { AUROCHS_LOG: 'warn' },
      ready: { line: /^ready\b(.*)\n/m },
    });
    daemon.pid = child.pid;
  }

  killDaemon(index: number): Promise<void> {
    return this.#options.children.kill(this.#daemon(index).pid);
  }

  /** Takes the replica of a killed daemon off the volume and starts the daemon with an empty disk.
   */
  async replaceDisk(index: number): Promise<void> {
    const daemon = this.#daemon(index);
    const old = this.diskOf(index);
    const { replicaId } = await this.#replicaAt(daemon.address);
    await this.until(`replica ${index} is out`, async () => {
      const status = await this.control.status();
      return status.replicas.find((r) => r.replicaId === replicaId)?.state === 'failed';
    });
    await this.control.removeReplica({ replicaId, address: '', deleteData: false });
    await rm(old, { force: true });
    daemon.generation += 1;
    await this.startDaemon(index);
  }

  addReplica(index: number): Promise<{ readonly replicaId: string }> {
    return this.control.addReplica({ address: this.#daemon(index).address });
  }

  /** Resolves when every replica is in-sync. */
  async whenHealthy(): Promise<void> {
    await this.until('every replica is in-sync', async () => {
      const { replicas, state } = await this.control.status();
      return state === 'healthy' && replicas.length === COPIES;
    });
  }

  /** Resolves when no replica has a dirty region. */
  async whenClean(): Promise<void> {
    const { clock, volume } = this.#options;
    for (const { address } of this.#daemons) {
      const control = new ReplicaControlClient({ address, clock });
      try {
        await this.until(`${address} is clean`, async () => {
          const { replicas } = await control.identify({ volume });
          return replicas.every(({ dirtyRegions }) => dirtyRegions === 0);
        });
      } finally {
        control.close();
      }
    }
  }

  async lastEvent(kind: string): Promise<EngineEvent | undefined> {
    const { events } = await this.control.events({ afterSeq: 0 });
    return events.filter((event) => event.kind === kind).at(-1);
  }

  /** From the last time a replica was attached until it was in-sync, in milliseconds. */
  async lastCatchUpMs(): Promise<number> {
    const [begun, done] = await Promise.all([
      this.lastEvent('rebuilding'),
      this.lastEvent('in-sync'),
    ]);
    if (begun === undefined || done === undefined || done.seq < begun.seq) {
      throw new StorageError('INTERNAL', 'no replica has caught up');
    }
    return Math.max(1, done.lastWallMs - begun.lastWallMs);
  }

  async until(what: string, look: () => Promise<boolean>): Promise<void> {
    const { clock, children } = this.#options;
    const endMs = clock.nowMs() + WAIT_MS;
    while (!(await look())) {
      if (clock.nowMs() > endMs) throw new StorageError('DEADLINE', `not in time: ${what}`);
      await sleep(clock, POLL_MS, children.stopSignal);
    }
  }

  async stop(): Promise<void> {
    await this.killEngine();
    for (let index = 0; index < COPIES; index += 1) await this.killDaemon(index);
  }

  async #replicaAt(address: string): Promise<EngineStatus['replicas'][number]> {
    const { replicas } = await this.control.status();
    const found = replicas.find((replica) => replica.address === address);
    if (found !== undefined) return found;
    throw new StorageError('NOT_FOUND', `no replica on ${address}`);
  }

  #daemon(index: number): Daemon {
    const daemon = this.#daemons[index];
    if (daemon === undefined) throw new StorageError('INVALID_ARGUMENT', `daemon ${index}`);
    return daemon;
  }
}
