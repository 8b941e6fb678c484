/**
 * The process behind one block device: NBD client below, FUSE file above, loop device on the file.
 *
 * - One process per device name, proved by a lock that it holds for its whole life.
 * - It never touches its own file system: losetup, stat and umount run as children, so that their
 *   requests find this event loop free to answer.
 * - It ends only by `detach`, which refuses while somebody uses the device.
 */
import { rename, rm, symlink, writeFile } from 'node:fs/promises';
import { type Clock, sleep } from '../../common/clock.js';
import { StorageError, toStorageError } from '../../common/errors.js';
import type { Logger } from '../../common/log.js';
import { KIB, MIB, roundDown } from '../../common/units.js';
import { FdChannel, type FileLock, fuseMount, lockFile } from '../../native/index.js';
import { TRANSMISSION_FLAG } from '../nbd/constants.js';
import { type DeviceOperation, type DeviceReport, serveControl } from './device-control.js';
import { type DevicePaths, prepareDevicePaths } from './device-paths.js';
import { type DevicePhase, writeDeviceState } from './device-state.js';
import { FuseServer } from './fuse-server.js';
import { WRITE_HEADER_BYTES } from './fuse-wire.js';
import { cleanLeftovers, makeMountDir, removeFiles } from './leftovers.js';
import {
  createLoop,
  findLoops,
  followSize,
  hasDirectIo,
  loopSizeBytes,
  loopUser,
  releaseLoop,
} from './loop-device.js';
import { unmountAll } from './mount-table.js';
import { NbdClient } from './nbd-client.js';
import { RequestArena } from './request-arena.js';

/** Longest request of the kernel that we ask for. */
const IO_BYTES_MAX = MIB;
const REQUESTS_MAX = 256;
const SLAB_BYTES = 4 * MIB;
/** 64 MiB for requests in all, of which a light load touches one slab. */
const SLABS_MAX = 16;
const RELEASE_TIMEOUT_MS = 5000;
const LOCK_PATIENCE_MS = 1000;
const USER_CHECKS = 5;
const USER_CHECK_MS = 200;

export interface DeviceConfig {
  readonly name: string;
  readonly exportName: string;
  readonly socketPath: string;
  readonly runDir: string;
  /** NBD connections */
  readonly connections: number;
  /** how long requests wait for an engine before they end with EIO */
  readonly giveUpMs: number;
  /** how long the attach waits for an engine */
  readonly waitMs: number;
}

export class DeviceProcess {
  readonly #config: DeviceConfig;
  readonly #clock: Clock;
  readonly #log: Logger;
  #paths: DevicePaths | undefined;
  #lock: FileLock | undefined;
  #client: NbdClient | undefined;
  #channel: FdChannel | undefined;
  #server: FuseServer | undefined;
  #phase: DevicePhase = 'connecting';
  #devicePath = '';
  #directIo = false;
  #onUnused: (() => void) | undefined;
  #detaching: Promise<void> | undefined;
  #gone = false;

  constructor(config: DeviceConfig, environment: { clock: Clock; log: Logger }) {
    this.#config = config;
    this.#clock = environment.clock;
    this.#log = environment.log;
  }

  /** Attaches. On failure everything made so far is taken back.
   *  @throws StorageError DISK_LOCKED (the device has a process) | UNAVAILABLE | UNSUPPORTED */
  async start(): Promise<DeviceReport> {
    const paths = await prepareDevicePaths(this.#config.runDir, this.#config.name);
    this.#paths = paths;
    this.#lock = await this.#takeLock(paths);
    await cleanLeftovers(paths, this.#log);
    try {
      await this.#enterPhase('connecting');
      await writeFile(paths.pidFile, `${process.pid}\n`, { mode: 0o600 });
      this.#client = await this.#connect();
      await this.#mount(paths, this.#client);
      await this.#enterPhase('mounted');
      await this.#makeDevice(paths, this.#client);
      await serveControl(paths.controlSocket, (operation) => this.#handle(operation));
      await this.#enterPhase('attached');
      return this.report();
    } catch (error) {
      await this.#takeBack(paths);
      throw error;
    }
  }

  /** Nothing of the device is left: the process has to end. */
  get gone(): boolean {
    return this.#gone;
  }

  report(): DeviceReport {
    const { socketPath, exportName } = this.#config;
    const client = this.#client;
    return {
      pid: process.pid,
      phase: this.#phase,
      devicePath: this.#devicePath,
      socketPath,
      exportName,
      sizeBytes: client?.info.sizeBytes ?? 0,
      readOnly: ((client?.info.flags ?? 0) & TRANSMISSION_FLAG.READ_ONLY) !== 0,
      directIo: this.#directIo,
      connected: client?.connected ?? false,
      connections: client?.connectionCount ?? 0,
      reconnects: client?.reconnects ?? 0,
      unanswered: client?.unanswered ?? 0,
    };
  }

  /** Takes the device away and resolves when nothing of it is left; then the process has to end.
   *  @throws StorageError CONFLICT when the device is in use (nothing was done) | IO_ERROR
   *          when the last flush failed (the device is gone all the same) */
  detach(): Promise<void> {
    this.#detaching ??= this.#detach().finally(() => {
      this.#detaching = undefined;
    });
    return this.#detaching;
  }

  /** Takes over the present size of the export, while in use. @throws StorageError as
   *  NbdClient.refresh */
  async resize(): Promise<void> {
    const { client, paths } = this.#running();
    const { sizeBytes } = await client.refresh();
    if ((await loopSizeBytes(this.#devicePath)) === roundDown(sizeBytes, 512)) return;
    await followSize(this.#devicePath, paths.backingFile);
    this.#log.info({ sizeBytes }, 'device has a new size');
  }

  async #handle(operation: DeviceOperation): Promise<DeviceReport> {
    if (operation === 'resize') await this.resize();
    if (operation === 'detach') {
      try {
        await this.detach();
      } finally {
        // The answer leaves first, then the process.
        if (this.#gone) this.#clock.after(10, () => process.exit(0));
      }
    }
    return this.report();
  }

  /** A process that was just killed, or that is detaching, holds its lock for a moment more. */
  async #takeLock(paths: DevicePaths): Promise<FileLock> {
    const endMs = this.#clock.nowMs() + LOCK_PATIENCE_MS;
    for (;;) {
      try {
        return await lockFile(paths.lockFile);
      } catch (error) {
        const { code } = toStorageError(error, 'lock');
        if (code !== 'DISK_LOCKED' || this.#clock.nowMs() > endMs) throw error;
        await sleep(this.#clock, 50);
      }
    }
  }

  /** Tries until an engine serves the export or `waitMs` is over. */
  async #connect(): Promise<NbdClient> {
    const { socketPath, exportName, connections, giveUpMs, waitMs } = this.#config;
    const endMs = this.#clock.nowMs() + waitMs;
    for (;;) {
      try {
        return await NbdClient.connect({
          socketPath,
          exportName,
          connections,
          giveUpMs,
          log: this.#log,
          clock: this.#clock,
          connectTimeoutMs: 10_000,
          requestsMax: REQUESTS_MAX,
          readBytesMax: IO_BYTES_MAX,
        });
      } catch (error) {
        const left = endMs - this.#clock.nowMs();
        if (left <= 0 || toStorageError(error, 'connect').code !== 'UNAVAILABLE') throw error;
        await sleep(this.#clock, Math.min(100, left));
      }
    }
  }

  async #mount(paths: DevicePaths, client: NbdClient): Promise<void> {
    const ioBytesMax = roundDown(Math.min(IO_BYTES_MAX, client.info.payloadBytesMax), 4 * KIB);
    if (ioBytesMax === 0 || client.info.blockBytesMin > 4096) {
      const { payloadBytesMax, blockBytesMin } = client.info;
      throw new StorageError(
        'UNSUPPORTED',
        `export takes requests of ${blockBytesMin} to ${payloadBytesMax} bytes`,
      );
    }
    await makeMountDir(paths);
    const fd = fuseMount(paths.mountDir, {
      source: `aurochs:${paths.name}`,
      options: `max_read=${ioBytesMax}`,
    });
    this.#channel = new FdChannel(fd);
    this.#server = new FuseServer({
      channel: this.#channel,
      client,
      arena: new RequestArena({
        reserveBytes: ioBytesMax + WRITE_HEADER_BYTES,
        slabBytes: SLAB_BYTES,
        slabsMax: SLABS_MAX,
      }),
      log: this.#log,
      requestsMax: REQUESTS_MAX,
      ioBytesMax,
      onUnused: () => this.#onUnused?.(),
    });
    void this.#server.run().then(() => this.#onUnmounted());
  }

  async #makeDevice(paths: DevicePaths, client: NbdClient): Promise<void> {
    this.#devicePath = await createLoop(paths.backingFile, {
      readOnly: (client.info.flags & TRANSMISSION_FLAG.READ_ONLY) !== 0,
      sectorBytes: Math.max(512, client.info.blockBytesMin),
    });
    this.#directIo = await hasDirectIo(this.#devicePath);
    if (!this.#directIo) this.#log.warn('the loop device does not use direct I/O');
    const temporary = `${paths.linkDir}/.${paths.name}.new`;
    await rm(temporary, { force: true });
    await symlink(this.#devicePath, temporary);
    await rename(temporary, paths.link);
  }

  async #detach(): Promise<void> {
    const { server } = this.#running();
    await this.#checkUnused();
    await this.#enterPhase('detaching');
    await releaseLoop(this.#devicePath);
    if (await this.#isReleased(server)) return this.#finishDetach();
    // Opened between check and release: the kernel takes the device away when that user closes it.
    this.#onUnused = () => {
      this.#finishDetach()
        .catch((error: unknown) => this.#log.error({ err: error }, 'late detach'))
        .finally(() => process.exit(0));
    };
    const text = `device ${this.#devicePath} of ${this.#config.name} was opened meanwhile`;
    throw new StorageError('CONFLICT', text, { hint: 'it goes away when its last user closes it' });
  }

  /** The loop device is gone: the last flush, then the rest. */
  async #finishDetach(): Promise<void> {
    const { client, paths } = this.#running();
    const flushError = await client.flushVolume().catch((error: unknown) => error);
    await unmountAll(paths.mountDir, { lazy: false });
    client.close();
    await removeFiles(paths);
    this.#gone = true;
    this.#log.info('detached');
    if (flushError !== undefined) throw flushError;
  }

  /** Programs like udev look at a device for a moment: only who stays is a user. */
  async #checkUnused(): Promise<void> {
    for (let check = 1; ; check += 1) {
      const user = await loopUser(this.#devicePath, { probe: true });
      if (user === undefined) return;
      if (check === USER_CHECKS || user.startsWith('mounted')) {
        const text = `device ${this.#devicePath} of ${this.#config.name} is ${user}`;
        throw new StorageError('CONFLICT', text, { device: this.#devicePath, hint: 'unmount it' });
      }
      await sleep(this.#clock, USER_CHECK_MS);
    }
  }

  /** Whether the loop driver closed our file, which it does when the last user of the device is
   *  gone. */
  async #isReleased(server: FuseServer): Promise<boolean> {
    if (server.openHandles === 0) return true;
    const released = new Promise<boolean>((resolve) => {
      this.#onUnused = () => resolve(true);
    });
    return Promise.race([released, sleep(this.#clock, RELEASE_TIMEOUT_MS).then(() => false)]);
  }

  /** The mount is gone though nobody asked us: by hand, or the connection was aborted. */
  async #onUnmounted(): Promise<void> {
    if (this.#phase === 'detaching' || this.#phase === 'connecting') return;
    this.#log.error('the file system was unmounted from outside; the device is gone');
    if (this.#paths !== undefined) await this.#takeBack(this.#paths);
    process.exit(1);
  }

  async #takeBack(paths: DevicePaths): Promise<void> {
    this.#phase = 'detaching';
    try {
      for (const loop of await findLoops(paths.backingFile)) await releaseLoop(loop);
      await unmountAll(paths.mountDir, { lazy: true });
      await removeFiles(paths);
    } catch (error) {
      this.#log.error({ err: error }, 'not everything could be taken back');
    }
    this.#channel?.close();
    this.#client?.close();
    this.#lock?.release();
  }

  async #enterPhase(phase: DevicePhase): Promise<void> {
    this.#phase = phase;
    const { socketPath, exportName } = this.#config;
    const paths = this.#paths;
    if (paths === undefined) return;
    await writeDeviceState(paths.stateFile, {
      pid: process.pid,
      phase,
      socketPath,
      exportName,
      mountDir: paths.mountDir,
      devicePath: this.#devicePath,
    });
  }

  #running(): { client: NbdClient; paths: DevicePaths; server: FuseServer } {
    if (this.#client === undefined || this.#paths === undefined || this.#server === undefined) {
      throw new StorageError('CONFLICT', 'the device is not attached');
    }
    return { client: this.#client, paths: this.#paths, server: this.#server };
  }
}
