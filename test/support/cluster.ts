/** A standalone volume on real processes: replica daemons and one engine from the built program, in
 *  a temporary folder. */
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Child, run } from './process.js';

/** of the checkout, from the sources and from dist/ */
export const ROOT = path.resolve(import.meta.dirname.replace('/dist/', '/'), '../..');
const AUROCHS = path.join(ROOT, 'bin/aurochs');

export interface ClusterOptions {
  readonly replicas?: number;
  readonly size?: string;
  /** path of the disk of replica daemon `index`; default: a file in the folder */
  readonly disk?: (index: number, dir: string) => string;
  /** attach a block device */
  readonly device?: boolean;
  readonly engineFlags?: readonly string[];
  readonly replicaFlags?: readonly string[];
}

export interface ClusterStatus {
  readonly state: string;
  readonly replicas: ReadonlyArray<{
    readonly replicaId: string;
    readonly state: string;
    readonly reason: string;
  }>;
}

export class Cluster {
  readonly daemons: Array<Child | undefined> = [];
  engine: Child | undefined;
  uri = '';
  device = '';

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
    const dir = await mkdtemp('/var/tmp/aurochs-test-');
    await mkdir(path.join(dir, 'run'), { mode: 0o700 });
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
    return path.join(this.dir, `node${index + 1}`);
  }

  disk(index: number): string {
    return this.options.disk?.(index, this.dir) ?? path.join(this.dir, `disk${index + 1}.img`);
  }

  address(index: number): string {
    return `unix:${path.join(this.dir, `run/replica${index + 1}.sock`)}`;
  }

  async startDaemons(): Promise<void> {
    await Promise.all(Array.from({ length: this.count }, (_, index) => this.startDaemon(index)));
  }

  async startDaemon(index: number): Promise<void> {
    const disk = this.disk(index);
    const size = disk.startsWith('/dev/') ? '' : ',size=4GiB';
    const child = new Child(AUROCHS, {
      args: [
        'replica',
        ...['--listen', this.address(index), '--data', this.dataDir(index)],
        ...['--disk', `${disk}${size}`],
        ...(this.options.replicaFlags ?? []),
      ],
      logPath: path.join(this.dir, `replica${index + 1}.log`),
    });
    this.daemons[index] = child;
    await child.line('ready ');
  }

  async startEngine(flags: readonly string[] = []): Promise<void> {
    const replicas = Array.from({ length: this.count }, (_, i) => ['--replica', this.address(i)]);
    const child = new Child(AUROCHS, {
      args: [
        'engine',
        ...['--volume', 'vol', '--size', this.options.size ?? '1GiB'],
        ...replicas.flat(),
        ...['--nbd', `unix:${this.socket}`],
        ...['--control', `unix:${path.join(this.dir, 'run/control.sock')}`],
        ...(this.options.device === true ? ['--device'] : []),
        ...(this.options.engineFlags ?? []),
        ...flags,
      ],
      logPath: path.join(this.dir, 'engine.log'),
    });
    this.engine = child;
    this.uri = await child.line('ready ');
    if (this.options.device === true) this.device = await child.line('device ');
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
    if (signal === 'SIGKILL') void this.engine?.stop(signal);
    else await this.stopEngine(signal);
    await Promise.all(this.daemons.map((_, index) => this.stopDaemon(index, signal)));
    await this.engine?.ended;
    this.engine = undefined;
  }

  /** Compares the copies on the stopped disks, byte by byte; throws with the report when they
   *  differ. @param indices  of the daemons that have one; default: those it was made with */
  async expectEqual(indices = Array.from({ length: this.count }, (_, i) => i)): Promise<void> {
    const args = indices.map((i) => ['--disk', this.disk(i), '--data', this.dataDir(i)]);
    const stdout = await this.aurochs('replica', 'compare', ...args.flat(), 'vol', '-o', 'json');
    if (JSON.parse(stdout).identical !== true) throw new Error(stdout);
  }

  async aurochs(...args: string[]): Promise<string> {
    const { stdout } = await run(AUROCHS, args);
    return stdout;
  }

  /** A command about the volume, asked of the engine. */
  ask(...args: string[]): Promise<string> {
    return this.aurochs(...args, '--engine', `unix:${path.join(this.dir, 'run/control.sock')}`);
  }

  async status(): Promise<ClusterStatus> {
    return JSON.parse(await this.ask('volume', 'show', 'vol', '-o', 'json'));
  }

  /** Resolves when every copy is in sync. @throws with the state after `timeoutMs` */
  async whenHealthy(timeoutMs = 60_000): Promise<void> {
    await this.when(({ state }) => state === 'healthy', timeoutMs);
  }

  /** Resolves when the engine says so. @throws with the state after `timeoutMs` */
  async when(is: (status: ClusterStatus) => boolean, timeoutMs = 60_000): Promise<void> {
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
    await rm(this.dir, { recursive: true, force: true });
  }
}
