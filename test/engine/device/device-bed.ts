/** A block device under test over nbdkit in a temporary folder, and the proof that nothing of it
 *  stays behind. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLogger } from '../../../common/log.js';
import {
  type AttachedDevice,
  type AttachOptions,
  attachDevice,
  detachDevice,
} from '../../../engine/device/device-frontend.js';
import { findLoops } from '../../../engine/device/loop-device.js';
import { readMounts } from '../../../engine/device/mount-table.js';
import { missing } from '../../support/host.js';
import { run } from '../../support/process.js';

export const ENTRY = join(import.meta.dirname, '../../../dist/engine/device/main.js');

/** Why these tests cannot run here, or undefined. */
export function deviceLacks(...programs: string[]): string | undefined {
  const lack = missing('root', 'fuse', 'loop', 'losetup', 'nbdkit', ...programs);
  return lack ?? (existsSync(ENTRY) ? undefined : 'needs the built program (npm run build:ts)');
}

export class DeviceBed {
  readonly log = createLogger('test');
  readonly #servers = new Set<ChildProcess>();
  readonly #mounts: string[] = [];
  #mountCount = 0;
  readonly names = new Set<string>();

  static async make(): Promise<DeviceBed> {
    const bed = new DeviceBed(await realpath(await mkdtemp(join(tmpdir(), 'aurochs-dev-'))));
    bed.log.level = 'silent';
    return bed;
  }

  private constructor(readonly dir: string) {}

  get socket(): string {
    return join(this.dir, 's.sock');
  }
  get runDir(): string {
    return join(this.dir, 'run');
  }

  /** Starts nbdkit; resolves when it listens. */
  async serve(...args: string[]): Promise<ChildProcess> {
    await rm(this.socket, { force: true });
    const child = spawn('nbdkit', ['-f', '-U', this.socket, ...args], { stdio: 'ignore' });
    this.#servers.add(child);
    while (!existsSync(this.socket)) {
      if (child.exitCode !== null) throw new Error(`nbdkit ${args.join(' ')} ended`);
      await new Promise((resolve) => setImmediate(resolve));
    }
    return child;
  }

  async kill(server: ChildProcess): Promise<void> {
    const ended = new Promise((resolve) => server.once('exit', resolve));
    server.kill('SIGKILL');
    await ended;
    this.#servers.delete(server);
  }

  attach(options: Partial<AttachOptions> = {}): Promise<AttachedDevice> {
    const name = options.name ?? 'vol';
    this.names.add(name);
    const { socket: socketPath, runDir, log } = this;
    return attachDevice({ name, socketPath, runDir, log, timeoutMs: 10_000, ...options });
  }

  detach(name = 'vol'): Promise<void> {
    return detachDevice({ name, runDir: this.runDir, log: this.log });
  }

  /** Detaches by force. */
  destroyDevice(): Promise<void> {
    return detachDevice({ name: 'vol', runDir: this.runDir, force: true, log: this.log });
  }

  async mount(device: string, options = 'defaults'): Promise<string> {
    this.#mountCount += 1;
    const dir = join(this.dir, `mnt${this.#mountCount}`);
    await mkdir(dir);
    await run('mount', ['-o', options, device, dir]);
    this.#mounts.push(dir);
    return dir;
  }

  async unmount(dir: string): Promise<void> {
    await run('umount', [dir]);
    this.#mounts.splice(this.#mounts.indexOf(dir), 1);
  }

  /** What is left of the devices: loop devices, mounts, processes, links. Empty after every
   *  detach. */
  async leftovers(): Promise<string[]> {
    const found: string[] = [];
    for (const name of this.names) {
      found.push(...(await findLoops(`${this.runDir}/device/${name}/mnt/volume`)));
    }
    const mounts = await readMounts();
    found.push(...mounts.map((m) => m.mountPoint).filter((m) => m.startsWith(this.runDir)));
    for (const pid of await this.#devicePids()) found.push(`process ${pid}`);
    const links = await readdir(join(this.runDir, 'dev')).catch(() => []);
    found.push(...links.map((link) => `link ${link}`));
    return found;
  }

  /** Cleans up whatever a failed test left, then says what had been left. */
  async destroy(): Promise<void> {
    for (const dir of this.#mounts.splice(0)) await run('umount', [dir]).catch(() => undefined);
    for (const name of this.names) {
      await detachDevice({ name, runDir: this.runDir, force: true, log: this.log }).catch(
        () => undefined,
      );
    }
    for (const server of [...this.#servers]) await this.kill(server);
    const left = await this.leftovers();
    if (left.length > 0) throw new Error(`left behind: ${left.join(', ')}`);
    await rm(this.dir, { recursive: true, force: true });
  }

  async #devicePids(): Promise<string[]> {
    const pids: string[] = [];
    for (const pid of await readdir('/proc')) {
      const line = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
      if (line.includes(ENTRY) && line.includes(this.runDir)) pids.push(pid);
    }
    return pids;
  }
}
