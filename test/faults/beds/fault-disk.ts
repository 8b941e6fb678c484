/**
 * A block device that fails on request: an NBD server in a process of its own, nbdfuse on it, a
 * loop device on that. Needs root, FUSE, loop devices, nbdfuse and the built program.
 *
 * What is written lives in the memory of the server; it outlives the device, so that a power cut is
 * detach, decide what was in the cache, attach.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { closeSync, existsSync, openSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { ROOT } from '../../support/cluster.js';
import { missing } from '../../support/host.js';
import { Child, run } from '../../support/process.js';
import type { DiskFault } from './disk-faults.js';
import type { DiskReplyMessage, DiskRequestMessage, DiskRequests } from './disk-server.js';
import type { Lab } from './lab.js';

const UNMOUNT_TRIES = 200;
const SERVER = path.join(ROOT, 'dist/test/faults/beds/disk-server.js');

/** Why these disks cannot be made here, or undefined. */
export function faultDiskLacks(...programs: string[]): string | undefined {
  const lack = missing('root', 'fuse', 'loop', 'losetup', 'nbdfuse', ...programs);
  return lack ?? (existsSync(SERVER) ? undefined : 'needs the built program (npm run build:ts)');
}

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

export interface FaultDiskOptions {
  /** of its files in the lab */
  readonly name: string;
  readonly sizeBytes: number;
  readonly seed: number;
}

export class FaultDisk {
  readonly #waiting = new Map<number, Waiting>();
  readonly #server: ChildProcess;
  readonly #dir: string;
  #nextId = 1;
  #attachments = 0;
  #nbdfuse: Child | undefined;
  /** of the loop device while attached, for example /dev/loop3 */
  device = '';

  private constructor(
    readonly lab: Lab,
    readonly options: FaultDiskOptions,
  ) {
    const { name, sizeBytes, seed } = options;
    this.#dir = lab.path(name);
    const argv = [this.#socket, String(sizeBytes), String(seed)];
    const log = openSync(path.join(this.#dir, 'server.log'), 'a');
    this.#server = fork(SERVER, argv, {
      execArgv: [],
      serialization: 'advanced',
      stdio: ['ignore', log, log, 'ipc'],
    });
    closeSync(log);
    this.#server.on('message', (message) => this.#onReply(message as DiskReplyMessage));
    this.#server.on('exit', () => this.#onExit());
  }

  get #socket(): string {
    return path.join(this.#dir, 'nbd.sock');
  }

  /** Starts the server and attaches the device. */
  static async create(lab: Lab, options: FaultDiskOptions): Promise<FaultDisk> {
    await lab.makeDir(options.name);
    const disk = new FaultDisk(lab, options);
    await new Promise<unknown>((resolve, reject) => disk.#waiting.set(0, { resolve, reject }));
    lab.onClose(async () => disk.#server.kill('SIGKILL'));
    await disk.attach();
    return disk;
  }

  async attach(): Promise<void> {
    const mountPoint = path.join(this.#dir, 'fuse');
    await mkdir(mountPoint, { recursive: true });
    const file = path.join(mountPoint, 'nbd');
    this.#attachments += 1;
    const pidFile = path.join(this.#dir, `nbdfuse.${this.#attachments}`);
    const args = ['-P', pidFile, file, '--unix', this.#socket];
    this.#nbdfuse = new Child('nbdfuse', { args, logPath: path.join(this.#dir, 'nbdfuse.log') });
    // It writes the file once the mount is there, and says nothing else.
    while (!existsSync(pidFile)) await new Promise((resolve) => setTimeout(resolve, 5));
    const { stdout } = await run('losetup', ['--direct-io=on', '--show', '-f', file]);
    this.device = stdout.trim();
  }

  /** The device must not be mounted any more. */
  async detach(): Promise<void> {
    await run('losetup', ['-d', this.device]);
    this.device = '';
    await unmount(path.join(this.#dir, 'fuse'));
    await this.#nbdfuse?.ended;
  }

  /** The device is torn out: whoever uses it gets EIO from now on (scenario 44). */
  async vanish(): Promise<void> {
    await this.#nbdfuse?.stop('SIGKILL');
  }

  /** Put in again, with what it had. The name of the device may be another one. */
  async replug(): Promise<void> {
    await run('losetup', ['-d', this.device]);
    await unmount(path.join(this.#dir, 'fuse'));
    await this.attach();
  }

  /** @returns disarms it */
  async arm(fault: DiskFault): Promise<() => Promise<void>> {
    const id = await this.ask('arm', fault);
    return () => this.ask('disarm', id);
  }

  ask<Call extends keyof DiskRequests>(
    call: Call,
    ...args: Parameters<DiskRequests[Call]>
  ): Promise<ReturnType<DiskRequests[Call]>> {
    const id = this.#nextId;
    this.#nextId += 1;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve: (value) => resolve(value as never), reject });
      const message: DiskRequestMessage = { id, call, args };
      this.#server.send(message);
    });
  }

  #onReply(message: DiskReplyMessage): void {
    const waiting = this.#waiting.get(message.id);
    this.#waiting.delete(message.id);
    if (message.error === undefined) waiting?.resolve(message.value);
    else waiting?.reject(new Error(message.error));
  }

  #onExit(): void {
    const error = new Error(`the server of disk ${this.options.name} ended`);
    for (const waiting of this.#waiting.values()) waiting.reject(error);
    this.#waiting.clear();
  }
}

/** Whoever had it open may need a moment to end. @throws Error while it is in use */
export async function unmount(dir: string): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    try {
      await run('umount', [dir]);
      return;
    } catch (error) {
      if (tries === UNMOUNT_TRIES) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}
