/**
 * The all-in-one: replica daemons and one engine on this machine, in the foreground.
 *
 * Order is the whole content: replicas before the engine, and the engine drains before the replicas
 * stop. Everything that must survive is in the data folder; `DIR/run` holds what is of this run
 * only (pid files, sockets).
 */
import { access, chmod, mkdir } from 'node:fs/promises';
import path from 'node:path';
import type { Clock } from '../common/clock.js';
import { StorageError } from '../common/errors.js';
import { ManagedProcess, type ProcessListener } from './managed-process.js';
import { createPidFile, endProcess, livePid, type ProcessMark, removePidFile } from './pid-file.js';
import type { UpConfig } from './up-config.js';

const REPLICA_READY_MS = 60_000;
const ENGINE_READY_MS = 120_000;
/** Longer than the engine gives the attach. */
const DEVICE_READY_MS = 40_000;
/** Longer than the engine gives the device to write what it still holds. */
const ENGINE_STOP_MS = 170_000;
const REPLICA_STOP_MS = 30_000;
/** Longest path of a unix socket: sun_path of unix(7) holds 108 bytes with its terminator. */
const SOCKET_PATH_BYTES_MAX = 107;

export interface UpOptions {
  /** absolute path */
  readonly dataDir: string;
  readonly config: UpConfig;
  /** argv prefix that runs `aurochs` */
  readonly program: readonly string[];
  /** try: without a device if none can be made; require: that is an error */
  readonly device: 'no' | 'try' | 'require';
  /** more options of the engine, for this run */
  readonly engineFlags?: readonly string[];
  readonly clock: Clock;
  /** what happens, for people */
  readonly note: (text: string) => void;
}

export interface UpNode {
  readonly name: string;
  readonly address: string;
  readonly disk: string;
  readonly data: string;
}

export interface UpState {
  readonly uri: string;
  readonly device: string | undefined;
  readonly control: string;
  readonly nodes: readonly UpNode[];
}

/** One run of the all-in-one: `start` once, then `stop` once. */
export class Up {
  readonly #options: UpOptions;
  readonly #runDir: string;
  readonly #upPidFile: string;
  #replicas: ManagedProcess[] = [];
  #engine: ManagedProcess | undefined;
  #device: string | undefined;
  #stopping = false;

  constructor(options: UpOptions) {
    this.#options = options;
    this.#runDir = path.join(options.dataDir, 'run');
    this.#upPidFile = path.join(this.#runDir, 'up.pid');
  }

  /** Resolves when the volume serves. On failure everything that was started is stopped again.
   *  @throws StorageError CONFLICT (another `up` runs here) | INVALID_ARGUMENT (path) | what the
   *    daemons say */
  async start(): Promise<UpState> {
    const { dataDir, config } = this.#options;
    this.#checkSocketPaths();
    await mkdir(this.#runDir, { recursive: true });
    await mkdir(path.join(dataDir, 'log'), { recursive: true });
    // The sockets give whoever can reach them the whole volume.
    await chmod(this.#runDir, 0o700);
    await this.#takeOver();
    try {
      const nodes = await this.#startReplicas();
      const uri = await this.#startEngine(nodes);
      const control = `unix:${this.#path(`${config.volume}.control.sock`)}`;
      return { uri, device: this.#device, control, nodes };
    } catch (error) {
      await this.stop();
      throw error;
    }
  }

  /** Engine first, so that it drains into living replicas. Resolves when every process is gone. */
  async stop(): Promise<void> {
    this.#stopping = true;
    const { note } = this.#options;
    const engine = this.#engine;
    if (engine !== undefined && !(await engine.stop(ENGINE_STOP_MS))) {
      note('the engine did not stop in time and was killed; the next start makes the copies equal');
    }
    await this.#noteUsedDevice();
    await Promise.all(this.#replicas.map((replica) => replica.stop(REPLICA_STOP_MS)));
    await removePidFile(this.#upPidFile);
  }

  /** Makes this process the only one over the folder, and ends daemons that a killed `up` left
   *  behind. */
  async #takeOver(): Promise<void> {
    const { dataDir, note, clock, config } = this.#options;
    const mark: ProcessMark = { role: 'up', contains: '' };
    while (!(await createPidFile(this.#upPidFile, process.pid))) {
      const pid = await livePid(this.#upPidFile, mark);
      if (pid !== undefined && pid !== process.pid) {
        throw new StorageError('CONFLICT', `aurochs up runs on ${dataDir} already, pid ${pid}`, {
          hint: `stop it with: kill ${pid}`,
        });
      }
      await removePidFile(this.#upPidFile);
    }
    const engine = `${config.volume}.engine`;
    const replicas = nodeNames(config.nodes).map((name) => `${name}.replica`);
    for (const group of [[engine], replicas]) {
      await Promise.all(
        group.map(async (name) => {
          const role = name === engine ? 'engine' : 'replica';
          const target = { file: this.#pidFile(name), mark: { role, contains: dataDir } };
          const pid = await livePid(target.file, target.mark);
          if (pid === undefined) return;
          note(`stopping ${name} (pid ${pid}), left behind by an earlier run`);
          await endProcess(target, { clock, deadlineMs: REPLICA_STOP_MS });
        }),
      );
    }
  }

  async #startReplicas(): Promise<UpNode[]> {
    const { dataDir, config } = this.#options;
    const nodes: UpNode[] = nodeNames(config.nodes).map((name) => ({
      name,
      address: `unix:${this.#path(`${name}.replica.sock`)}`,
      disk: path.join(dataDir, name, 'disk.img'),
      data: path.join(dataDir, name, 'data'),
    }));
    const started = nodes.map(async (node) => {
      await mkdir(node.data, { recursive: true });
      const disk = `${node.disk},size=${config.diskSizeBytes}`;
      const argv = ['replica', '--listen', node.address, '--data', node.data, '--disk', disk];
      const replica = this.#process(`${node.name}.replica`, argv, {
        died: 'the engine goes on with the other copies and has excluded this one',
        back: 'its copy stays excluded until it has caught up',
      });
      this.#replicas.push(replica);
      await replica.start(REPLICA_READY_MS);
    });
    // All settle before an error is told: stop() must find every process that was started.
    const results = await Promise.allSettled(started);
    for (const result of results) if (result.status === 'rejected') throw result.reason;
    return nodes;
  }

  async #startEngine(nodes: readonly UpNode[]): Promise<string> {
    const { device, note } = this.#options;
    if (device === 'no') return (await this.#launchEngine(nodes, false)).uri;
    const { engine, uri } = await this.#launchEngine(nodes, true);
    this.#device = await engine.waitLine('device', DEVICE_READY_MS);
    if (this.#device !== undefined) return uri;
    const error =
      (await engine.lastError()) ??
      new StorageError('DEADLINE', `no block device after ${DEVICE_READY_MS} ms`, {
        hint: `see ${engine.spec.logFile}`,
      });
    if (device === 'require' || this.#stopping) throw error;
    note(`no block device: ${error.message}; serving without`);
    await engine.stop(ENGINE_STOP_MS);
    return (await this.#launchEngine(nodes, false)).uri;
  }

  async #launchEngine(
    nodes: readonly UpNode[],
    device: boolean,
  ): Promise<{ engine: ManagedProcess; uri: string }> {
    const { volume, sizeBytes } = this.#options.config;
    const argv = ['engine', '--volume', volume, '--size', String(sizeBytes)];
    for (const node of nodes) argv.push('--replica', node.address);
    argv.push('--nbd', `unix:${this.#path(`${volume}.nbd.sock`)}`);
    argv.push('--control', `unix:${this.#path(`${volume}.control.sock`)}`);
    argv.push('--run-dir', this.#runDir, ...(this.#options.engineFlags ?? []));
    if (device) argv.push('--device');
    const engine = this.#process(`${volume}.engine`, argv, {
      died: 'requests on the device wait',
      back: 'serving again',
    });
    this.#engine = engine;
    return { engine, uri: await engine.start(ENGINE_READY_MS) };
  }

  #process(
    name: string,
    argv: readonly string[],
    says: { died: string; back: string },
  ): ManagedProcess {
    if (this.#stopping) throw new StorageError('CLOSED', `${name} not started: stopping`);
    const { program, clock, note, dataDir } = this.#options;
    const listener: ProcessListener = {
      onExit: (how, delayMs) =>
        note(`${name} ended (${how}): ${says.died}; starting it again in ${delayMs} ms`),
      onReadyAgain: () => note(`${name} is back: ${says.back}`),
    };
    const spec = {
      name,
      argv: [...program, ...argv],
      pidFile: this.#pidFile(name),
      logFile: path.join(dataDir, 'log', `${name}.log`),
    };
    return new ManagedProcess(spec, { clock, listener });
  }

  /** A mounted device outlives the engine: it waits, and the next start serves it again. */
  async #noteUsedDevice(): Promise<void> {
    const device = this.#device;
    if (device === undefined) return;
    const backing = `/sys/block/${path.basename(device)}/loop/backing_file`;
    const attached = await access(backing).then(
      () => true,
      () => false,
    );
    if (attached) {
      this.#options.note(
        `${device} is still in use; it waits and works again after the next start`,
      );
    }
  }

  #checkSocketPaths(): void {
    const longest = this.#path(`${this.#options.config.volume}.control.sock`);
    const length = Math.max(longest.length, this.#path('node16.replica.sock').length);
    if (length <= SOCKET_PATH_BYTES_MAX) return;
    throw new StorageError(
      'INVALID_ARGUMENT',
      `${longest} has ${length} bytes; a unix socket path holds ${SOCKET_PATH_BYTES_MAX}`,
      { hint: 'use a shorter --data folder' },
    );
  }

  #path(file: string): string {
    return path.join(this.#runDir, file);
  }

  #pidFile(name: string): string {
    return this.#path(`${name}.pid`);
  }
}

function nodeNames(count: number): string[] {
  return Array.from({ length: count }, (_, index) => `node${index + 1}`);
}
