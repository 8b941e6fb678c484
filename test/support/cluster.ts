/** A standalone volume on real processes: replica daemons and one engine from the built program, in
 *  a temporary folder. */
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { VolumeEvent } from '../../engine/events/event-log.js';
import {
  EngineControlClient,
  type EngineStatus,
  ReplicaControlClient,
  type ScrubReport,
} from '../../proto/control.js';
import { Child, run } from './process.js';

/** of the checkout, from the sources and from dist/ */
export const ROOT = path.resolve(import.meta.dirname.replace('/dist/', '/'), '../..');
const AUROCHS = path.join(ROOT, 'bin/aurochs');

/** How a process is started: in another namespace, under limits, with other time. */
export interface Launch {
  /** program and arguments that end by executing the rest */
  readonly prefix?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

export interface ClusterOptions {
  readonly replicas?: number;
  readonly size?: string;
  /** size of disks that are files; default 4GiB */
  readonly diskSize?: string;
  /** existing folder to use; it is the caller's to remove */
  readonly dir?: string;
  /** path of the disk of replica daemon `index`; default: a file in the folder */
  readonly disk?: (index: number, dir: string) => string;
  /** data directory of replica daemon `index`; default: in the folder */
  readonly dataDir?: (index: number, dir: string) => string;
  /** where replica daemon `index` listens; default: a unix socket in the folder */
  readonly address?: (index: number, dir: string) => string;
  /** where the engine looks for replica daemon `index`; default: where it listens */
  readonly target?: (index: number, engine: string) => string;
  /** how a daemon (by index) or an engine (by name) is started */
  readonly launch?: (who: number | string) => Launch;
  /** attach a block device */
  readonly device?: boolean;
  readonly engineFlags?: readonly string[];
  readonly replicaFlags?: readonly string[];
}

/** One engine process; its files in `run/` carry its name. */
export interface RunningEngine {
  readonly name: string;
  readonly child: Child;
  readonly uri: string;
  readonly socket: string;
}

export class Cluster {
  readonly daemons: Array<Child | undefined> = [];
  /** addresses with the real ports */
  readonly listening: string[] = [];
  engine: Child | undefined;
  uri = '';
  device = '';
  readonly #others: Child[] = [];

  private constructor(
    readonly dir: string,
    readonly options: ClusterOptions,
  ) {}

  get socket(): string {
    return path.join(this.dir, 'run/nbd.sock');
  }

  /** Creates the folder; nothing runs yet. */
  static async make(options: ClusterOptions = {}): Promise<Cluster> {
    // Disk files belong on a real file system: /tmp may be memory.
    const dir = options.dir ?? (await mkdtemp('/var/tmp/aurochs-test-'));
    await mkdir(path.join(dir, 'run'), { mode: 0o700, recursive: true });
    return new Cluster(dir, options);
  }

  /** Daemons and engine, ready. */
  static async start(options: ClusterOptions = {}): Promise<Cluster> {
    const cluster = await Cluster.make(options);
    try {
      await cluster.startDaemons();
      await cluster.startEngine();
    } catch (error) {
      await cluster.destroy();
      throw error;
    }
    return cluster;
  }

  get count(): number {
    return this.options.replicas ?? 3;
  }

  dataDir(index: number): string {
    return this.options.dataDir?.(index, this.dir) ?? path.join(this.dir, `node${index + 1}`);
  }

  disk(index: number): string {
    return this.options.disk?.(index, this.dir) ?? path.join(this.dir, `disk${index + 1}.img`);
  }

  address(index: number): string {
    const socket = path.join(this.dir, `run/replica${index + 1}.sock`);
    return this.options.address?.(index, this.dir) ?? `unix:${socket}`;
  }

  /** Files of an engine: the first one's are `nbd.sock` and `control.sock`. */
  #file(engine: string, kind: 'nbd' | 'control'): string {
    const prefix = engine === 'engine' ? '' : `${engine}.`;
    return path.join(this.dir, `run/${prefix}${kind}.sock`);
  }

  async startDaemons(): Promise<void> {
    await Promise.all(Array.from({ length: this.count }, (_, index) => this.startDaemon(index)));
  }

  async startDaemon(index: number): Promise<void> {
    const disk = this.disk(index);
    const size = disk.startsWith('/dev/') ? '' : `,size=${this.options.diskSize ?? '4GiB'}`;
    const child = this.#spawn(index, `replica${index + 1}.log`, [
      'replica',
      ...['--listen', this.address(index), '--data', this.dataDir(index)],
      ...['--disk', `${disk}${size}`],
      ...(this.options.replicaFlags ?? []),
    ]);
    this.daemons[index] = child;
    this.listening[index] = await child.line('ready ');
  }

  async startEngine(flags: readonly string[] = []): Promise<void> {
    const { child, args } = this.#spawnEngine('engine', flags);
    this.engine = child;
    this.uri = await child.line('ready ');
    if (args.includes('--device')) this.device = await child.line('device ');
  }

  /** Another engine of the same volume, beside the first one; its end is the caller's, at the
   *  latest `destroy`. */
  async startSecondEngine(name: string, flags: readonly string[] = []): Promise<RunningEngine> {
    const { child } = this.#spawnEngine(name, flags);
    this.#others.push(child);
    const uri = await child.line('ready ');
    return { name, child, uri, socket: this.#file(name, 'nbd') };
  }

  #spawnEngine(name: string, flags: readonly string[]): { child: Child; args: string[] } {
    const { target } = this.options;
    const replicas = Array.from({ length: this.count }, (_, i) => [
      '--replica',
      target?.(i, name) ?? this.address(i),
    ]);
    const args = [
      'engine',
      ...['--volume', 'vol', '--size', this.options.size ?? '1GiB'],
      ...replicas.flat(),
      ...['--nbd', `unix:${this.#file(name, 'nbd')}`],
      ...['--control', `unix:${this.#file(name, 'control')}`],
      ...(this.options.device === true ? ['--device'] : []),
      ...(this.options.engineFlags ?? []),
      ...flags,
    ];
    return { child: this.#spawn(name, `${name}.log`, args), args };
  }

  #spawn(who: number | string, log: string, args: readonly string[]): Child {
    const { prefix = [], env } = this.options.launch?.(who) ?? {};
    const [command = '', ...argv] = [...prefix, AUROCHS, ...args];
    const logPath = path.join(this.dir, log);
    return new Child(command, { args: argv, logPath, ...(env === undefined ? {} : { env }) });
  }

  async stopEngine(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | string | undefined> {
    const ended = await this.engine?.stop(signal);
    this.engine = undefined;
    return ended;
  }

  async stopDaemon(index: number, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    await this.daemons[index]?.stop(signal);
    this.daemons[index] = undefined;
  }

  /** Engine first, as a person would; with SIGKILL all at once. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const others = this.#others.splice(0).map((other) => other.stop(signal));
    if (signal === 'SIGKILL') void this.engine?.stop(signal);
    else await this.stopEngine(signal);
    await Promise.all(this.daemons.map((_, index) => this.stopDaemon(index, signal)));
    await this.engine?.ended;
    this.engine = undefined;
    await Promise.all(others);
  }

  /** Compares the copies on the stopped disks, byte by byte; throws with the report when they
   *  differ. @param indexes of the daemons; default: all */
  async expectEqual(indexes?: readonly number[]): Promise<void> {
    const all = Array.from({ length: this.count }, (_, i) => i);
    const args = (indexes ?? all).map((i) => [
      ...['--disk', this.disk(i), '--data', this.dataDir(i)],
    ]);
    const compare = ['replica', 'compare', ...args.flat(), 'vol', '-o', 'json'];
    // Exit status 1 comes with a report, too.
    const report = await this.aurochs(...compare).catch((error: { stdout?: string }) => {
      if (error.stdout?.startsWith('{') !== true) throw error;
      return error.stdout;
    });
    if (JSON.parse(report).identical !== true) throw new Error(report);
  }

  async aurochs(...args: string[]): Promise<string> {
    const { stdout } = await run(AUROCHS, args);
    return stdout;
  }

  /** A command about the volume, asked of the engine. */
  ask(...args: string[]): Promise<string> {
    return this.aurochs(...args, '--engine', `unix:${path.join(this.dir, 'run/control.sock')}`);
  }

  /** Asks the engine itself, without the command: tests ask often. */
  status(engine = 'engine'): Promise<EngineStatus> {
    return this.#ask(engine, (control) => control.status({}));
  }

  /** One whole scrub; resolves with its report. */
  async scrub(): Promise<ScrubReport> {
    let report = await this.#ask('engine', (control) => control.scrub({ action: 'start' }));
    while (report.state === 'running') {
      await new Promise((resolve) => setTimeout(resolve, 100));
      report = await this.#ask('engine', (control) => control.scrub({ action: 'status' }));
    }
    return report;
  }

  async #ask<T>(engine: string, work: (control: EngineControlClient) => Promise<T>): Promise<T> {
    const control = new EngineControlClient({ address: `unix:${this.#file(engine, 'control')}` });
    try {
      return await work(control);
    } finally {
      control.close();
    }
  }

  /** Every copy, by control calls; no engine may have the volume open. */
  async deleteVolume(): Promise<void> {
    for (const index of this.listening.keys()) await this.deleteReplicaOn(index);
  }

  /** The copy on one daemon, by a control call; no engine may have it open. */
  async deleteReplicaOn(index: number): Promise<void> {
    const control = new ReplicaControlClient({ address: this.listening[index] ?? '' });
    try {
      const { replicas } = await control.identify({ volume: 'vol' });
      for (const { volume, replicaId, epoch } of replicas) {
        await control.deleteReplica({ volume, replicaId, epoch });
      }
    } finally {
      control.close();
    }
  }

  /** What the engines of the volume told, oldest first. */
  async events(): Promise<VolumeEvent[]> {
    const text = await readFile(path.join(this.dir, 'run/vol.events.jsonl'), 'utf8');
    const lines = text.split('\n').filter((line) => line !== '');
    return lines.map((line) => JSON.parse(line) as VolumeEvent);
  }

  /** Indexes of the daemons whose copies are in sync. */
  async inSync(engine = 'engine'): Promise<number[]> {
    const { replicas } = await this.status(engine);
    const indexes = Array.from({ length: this.count }, (_, index) => index);
    return indexes.filter((index) => {
      const addresses = [this.options.target?.(index, engine), this.address(index)];
      const copy = replicas.find(({ address }) => addresses.includes(address));
      return copy?.state === 'in-sync';
    });
  }

  /** Resolves when every copy is in sync. @throws with the state after `timeoutMs` */
  async whenHealthy(timeoutMs = 60_000): Promise<void> {
    await this.when(({ state }) => state === 'healthy', timeoutMs);
  }

  /** Resolves when the engine says so. @throws with the state after `timeoutMs` */
  async when(is: (status: EngineStatus) => boolean, timeoutMs = 60_000): Promise<void> {
    const deadlineMs = performance.now() + timeoutMs;
    for (;;) {
      const status = await this.status();
      if (is(status)) return;
      if (performance.now() > deadlineMs) throw new Error(JSON.stringify(status, undefined, 2));
      await delay(100);
    }
  }

  /** Ends everything and removes the folder; for `finally`. */
  async destroy(): Promise<void> {
    await this.stop('SIGTERM').catch(() => undefined);
    if (this.options.dir === undefined) await rm(this.dir, { recursive: true, force: true });
  }
}
