/** The frontend of hosts without ublk and kernel NBD: a process that serves a FUSE file, and a loop
 *  device on it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { constants } from 'node:fs';
import { access, type FileHandle, open, readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Clock, SystemClock, sleep } from '../../common/clock.js';
import { StorageError, toStorageError } from '../../common/errors.js';
import { createLogger, type Logger } from '../../common/log.js';
import { type FileLock, lockFile } from '../../native/index.js';
import { askDevice, type DeviceReport, parseAnswer, readLine } from './device-control.js';
import type {
  AttachedDevice,
  AttachOptions,
  DetachOptions,
  DeviceFrontend,
  DeviceRef,
  DeviceStatus,
} from './device-frontend.js';
import { type DevicePaths, prepareDevicePaths } from './device-paths.js';
import { readDeviceState } from './device-state.js';
import { findTool } from './host-tool.js';
import { cleanLeftovers } from './leftovers.js';
import { findLoops, loopUser } from './loop-device.js';
import { readMounts } from './mount-table.js';

const ATTACH_TIMEOUT_MS = 30_000;
const DETACH_TIMEOUT_MS = 150_000;
const STATUS_TIMEOUT_MS = 5000;
const GIVE_UP_MS = 120_000;
/** Measured: one connection is fastest against a server that is one thread itself (ADR-0005). */
const CONNECTIONS = 1;
const LOCK_PATIENCE_MS = 1000;
const LOG_TAIL_BYTES = 600;

export class LoopFuseFrontend implements DeviceFrontend {
  readonly kind = 'FUSE file with a loop device';
  readonly #clock: Clock = new SystemClock();

  async obstacle(): Promise<string | undefined> {
    if (process.geteuid?.() !== 0) return 'needs root';
    for (const node of ['/dev/fuse', '/dev/loop-control']) {
      try {
        await access(node, constants.R_OK | constants.W_OK);
      } catch (error) {
        return `${node}: ${(error as NodeJS.ErrnoException).code ?? 'not usable'}`;
      }
    }
    for (const tool of ['losetup', 'umount', 'stat']) {
      try {
        await findTool(tool);
      } catch (error) {
        return toStorageError(error, tool).message;
      }
    }
    return undefined;
  }

  async attach(options: AttachOptions): Promise<AttachedDevice> {
    const paths = await prepareDevicePaths(options.runDir, options.name);
    const exportName = options.exportName ?? options.name;
    const socketPath = resolve(options.socketPath);
    const existing = await this.#reuse(paths, socketPath, exportName);
    if (existing !== undefined) return existing;
    const runDir = resolve(options.runDir);
    try {
      const report = await this.#spawn(paths, { ...options, socketPath, runDir, exportName });
      return { linkPath: paths.link, devicePath: report.devicePath, pid: report.pid };
    } catch (error) {
      // Somebody else attached it meanwhile.
      if (toStorageError(error, 'attach').code !== 'DISK_LOCKED') throw error;
      const winner = await this.#reuse(paths, socketPath, exportName);
      if (winner === undefined) throw error;
      return winner;
    }
  }

  async detach(options: DetachOptions): Promise<void> {
    const paths = await prepareDevicePaths(options.runDir, options.name);
    if (options.force === true) await this.#kill(paths);
    const report = await this.#ask(paths, 'detach', options.timeoutMs ?? DETACH_TIMEOUT_MS);
    if (report !== undefined) return;
    // No process answers: what a killed one left behind is taken away here, under the lock.
    const lock = await this.#lockDead(paths);
    try {
      for (const loop of await findLoops(paths.backingFile)) {
        const user = await loopUser(loop, { probe: true });
        if (user === undefined || options.force === true) continue;
        throw new StorageError('CONFLICT', `device ${loop} of ${paths.name} is ${user}`, {
          device: loop,
          hint: 'unmount it; its process is dead and it answers errors only',
        });
      }
      await cleanLeftovers(paths, options.log ?? createLogger('device'));
    } finally {
      lock.release();
    }
  }

  async status(ref: DeviceRef): Promise<DeviceStatus> {
    const paths = await prepareDevicePaths(ref.runDir, ref.name);
    const frontend = this.kind;
    try {
      const report = await this.#ask(paths, 'status', STATUS_TIMEOUT_MS);
      if (report !== undefined) {
        const { devicePath, pid, sizeBytes, connected, reconnects, unanswered } = report;
        const user = await loopUser(devicePath, { probe: false });
        const facts = { devicePath, pid, sizeBytes, connected, reconnects, unanswered };
        return { state: report.phase, frontend, ...facts, ...(user === undefined ? {} : { user }) };
      }
    } catch (error) {
      if (toStorageError(error, 'status').code !== 'DEADLINE') throw error;
    }
    const state = await readDeviceState(paths.stateFile);
    const pid = state === undefined ? {} : { pid: state.pid };
    if (await this.#isLocked(paths)) return { state: 'busy', frontend, ...pid };
    const loops = await findLoops(paths.backingFile);
    const mounted = (await readMounts()).some((mount) => mount.mountPoint === paths.mountDir);
    const dead = loops.length > 0 || mounted || state !== undefined;
    return { state: dead ? 'dead' : 'detached', frontend, ...(dead ? pid : {}) };
  }

  async resize(ref: DeviceRef): Promise<{ sizeBytes: number }> {
    const paths = await prepareDevicePaths(ref.runDir, ref.name);
    const report = await this.#ask(paths, 'resize', ATTACH_TIMEOUT_MS);
    if (report === undefined) {
      throw new StorageError('UNAVAILABLE', `device ${ref.name} is not attached`);
    }
    return { sizeBytes: report.sizeBytes };
  }

  /** The device of a live process that stands on the same export. @throws StorageError CONFLICT if
   *  on another */
  async #reuse(
    paths: DevicePaths,
    socketPath: string,
    exportName: string,
  ): Promise<AttachedDevice | undefined> {
    const report = await this.#ask(paths, 'status', STATUS_TIMEOUT_MS);
    if (report === undefined) return undefined;
    const same = report.socketPath === socketPath && report.exportName === exportName;
    if (!same || report.phase !== 'attached') {
      const what = same ? `is ${report.phase}` : `stands on ${report.socketPath}`;
      throw new StorageError('CONFLICT', `device ${paths.name} ${what}`);
    }
    return { linkPath: paths.link, devicePath: report.devicePath, pid: report.pid };
  }

  async #spawn(
    paths: DevicePaths,
    options: AttachOptions & { readonly exportName: string },
  ): Promise<DeviceReport> {
    const timeoutMs = options.timeoutMs ?? ATTACH_TIMEOUT_MS;
    const argv = [
      ...['--name', options.name, '--export', options.exportName],
      ...['--socket', options.socketPath, '--run-dir', options.runDir],
      ...['--connections', String(options.connections ?? CONNECTIONS)],
      ...['--give-up-ms', String(options.giveUpMs ?? GIVE_UP_MS)],
      ...['--wait-ms', String(Math.round(timeoutMs / 2))],
    ];
    const logHandle = await open(paths.logFile, 'w', 0o600);
    const child = spawn(process.execPath, [entryPath(), ...argv], {
      detached: true,
      cwd: '/',
      stdio: ['ignore', 'pipe', logHandle.fd],
    });
    try {
      return await this.#firstLine(child, paths, timeoutMs);
    } catch (error) {
      await this.#afterFailure(child, paths, options.log);
      throw error;
    } finally {
      await closeQuietly(logHandle);
      child.stdout?.destroy();
      child.unref();
    }
  }

  #firstLine(child: ChildProcess, paths: DevicePaths, timeoutMs: number): Promise<DeviceReport> {
    return new Promise((done, reject) => {
      const fail = (error: StorageError): void => {
        timer.cancel();
        reject(error);
      };
      const timer = this.#clock.after(timeoutMs, () => {
        fail(new StorageError('DEADLINE', `attach of ${paths.name} takes over ${timeoutMs} ms`));
      });
      child.on('error', (cause) => {
        fail(new StorageError('INTERNAL', `device process: ${cause.message}`, {}, { cause }));
      });
      child.on('exit', (exitCode, signal) => {
        void tailOf(paths.logFile).then((tail) => {
          const how = signal ?? exitCode ?? 0;
          fail(new StorageError('INTERNAL', `the device process ended (${how}): ${tail}`));
        });
      });
      if (child.stdout === null) return;
      readLine(child.stdout, (line) => {
        timer.cancel();
        try {
          done(parseAnswer(line));
        } catch (error) {
          fail(toStorageError(error, 'attach'));
        }
      });
    });
  }

  /** The child takes back what it made; one that is killed cannot. */
  async #afterFailure(child: ChildProcess, paths: DevicePaths, log: Logger): Promise<void> {
    if (child.exitCode === null && child.signalCode === null) {
      const gone = new Promise<void>((done) => child.once('exit', () => done()));
      const patience = this.#clock.after(3000, () => child.kill('SIGKILL'));
      await gone;
      patience.cancel();
    }
    const lock = await lockFile(paths.lockFile).catch(() => undefined);
    if (lock === undefined) return;
    await cleanLeftovers(paths, log).finally(() => lock.release());
  }

  /** undefined: there is no process, or it ended without an answer. */
  async #ask(
    paths: DevicePaths,
    operation: 'status' | 'resize' | 'detach',
    timeoutMs: number,
  ): Promise<DeviceReport | undefined> {
    try {
      return await askDevice(paths.controlSocket, operation, timeoutMs);
    } catch (cause) {
      const error = toStorageError(cause, operation);
      if (error.details['answered'] === false) return undefined;
      throw error;
    }
  }

  /** The lock of a device whose process does not answer. One that was just killed holds it for a
   *  moment more. */
  async #lockDead(paths: DevicePaths): Promise<FileLock> {
    const endMs = this.#clock.nowMs() + LOCK_PATIENCE_MS;
    for (;;) {
      try {
        return await lockFile(paths.lockFile);
      } catch (cause) {
        if (this.#clock.nowMs() > endMs) {
          const pid = (await readDeviceState(paths.stateFile))?.pid ?? 'unknown';
          const text = `device ${paths.name} is busy: process ${pid} attaches or detaches it`;
          throw new StorageError('CONFLICT', text, {}, { cause });
        }
        await sleep(this.#clock, 20);
      }
    }
  }

  async #isLocked(paths: DevicePaths): Promise<boolean> {
    const lock = await lockFile(paths.lockFile).catch(() => undefined);
    lock?.release();
    return lock === undefined;
  }

  /** Ends the process of the device, whatever it does, and waits until its lock is free. */
  async #kill(paths: DevicePaths): Promise<void> {
    const state = await readDeviceState(paths.stateFile);
    if (state === undefined || !(await this.#isLocked(paths))) return;
    // A number alone proves nothing: it may be another process by now.
    const commandLine = await readFile(`/proc/${state.pid}/cmdline`, 'utf8').catch(() => '');
    if (!commandLine.split('\0').includes(entryPath())) return;
    process.kill(state.pid, 'SIGKILL');
    for (let waits = 0; waits < 100 && (await this.#isLocked(paths)); waits += 1) {
      await sleep(this.#clock, 20);
    }
  }
}

/** The built entry, also when this file runs from its TypeScript source (tests). */
function entryPath(): string {
  const here = fileURLToPath(import.meta.url);
  const relative = here.endsWith('.ts') ? '../../dist/engine/device/main.js' : './main.js';
  return fileURLToPath(new URL(relative, import.meta.url));
}

async function tailOf(path: string): Promise<string> {
  const text = await readFile(path, 'utf8').catch(() => '');
  return text.slice(-LOG_TAIL_BYTES).trim();
}

async function closeQuietly(handle: FileHandle): Promise<void> {
  await handle.close().catch(() => undefined);
}
