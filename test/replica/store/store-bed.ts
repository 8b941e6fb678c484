/** A replica store on a disk in memory, which can be killed, cut off from power, closed and opened
 * again. */
import { createHash } from 'node:crypto';
import pino from 'pino';
import type { AlignedBuffer } from '../../../common/block-device.js';
import { SystemClock } from '../../../common/clock.js';
import { StorageError } from '../../../common/errors.js';
import { BLOCK_SIZE, MIB } from '../../../common/units.js';
import { crc32cBlocks } from '../../../native/index.js';
import type { Membership } from '../../../proto/control.js';
import {
  type Disk,
  type DiskOptions,
  openDisk,
  type ReplicaHandle,
} from '../../../replica/disk/disk.js';
import type { DiskNote, MetaHome } from '../../../replica/disk/meta-home.js';
import type { ReplicaStore } from '../../../replica/replica-store.js';
import {
  type Fate,
  MemoryBufferPool,
  MemoryDisk,
  type MemoryDiskOptions,
  seededRandom,
} from '../../support/memory-device.js';
import { MemoryKvHome } from '../../support/memory-kv.js';

export const VOLUME = 'v1';
export const MEMBERSHIP: Membership = {
  ...{ epoch: 1, generation: 1, engineId: '', era: 0 },
  members: [],
};

/** The files around a disk, in memory; locks die with the process. */
export class MemoryMetaHome implements MetaHome {
  readonly noteByDisk = new Map<string, DiskNote>();
  readonly locked = new Set<string>();
  diskIs: 'missing' | 'empty' | 'present' = 'present';
  putFails = false;
  readonly #kvs: MemoryKvHome;

  constructor(kvs: MemoryKvHome) {
    this.#kvs = kvs;
  }

  async notes(): Promise<DiskNote[]> {
    return [...this.noteByDisk.values()];
  }

  async put(note: DiskNote): Promise<void> {
    if (this.putFails) throw new StorageError('NO_SPACE', 'no room for a note');
    this.noteByDisk.set(note.diskId, note);
  }

  async remove(diskId: string): Promise<void> {
    this.noteByDisk.delete(diskId);
    this.#kvs.disks.delete(this.kvDirectory(diskId));
  }

  async lock(diskId: string): Promise<{ release(): void }> {
    if (this.locked.has(diskId)) throw new StorageError('DISK_LOCKED', diskId);
    this.locked.add(diskId);
    return { release: () => this.locked.delete(diskId) };
  }

  kvDirectory(diskId: string): string {
    return `/meta/${diskId}/level`;
  }

  async diskState(): Promise<'missing' | 'empty' | 'present'> {
    return this.diskIs;
  }

  async makeDisk(): Promise<void> {
    this.diskIs = 'present';
  }
}

export interface StoreBedOptions {
  readonly diskBytes?: number;
  readonly volumeBytes?: number;
  readonly cacheBytes?: number;
  readonly reserveBytes?: number;
  readonly seed?: number;
  readonly disk?: Partial<MemoryDiskOptions>;
}

export class StoreBed {
  readonly medium: MemoryDisk;
  readonly kvs = new MemoryKvHome();
  readonly home = new MemoryMetaHome(this.kvs);
  readonly pool = new MemoryBufferPool();
  readonly volumeBytes: number;
  bootId = 'boot-1';
  starts = 0;
  readonly #options: StoreBedOptions;
  readonly #random: () => number;
  #disk: Disk | undefined;
  #handle: ReplicaHandle | undefined;

  constructor(options: StoreBedOptions = {}) {
    this.#options = options;
    const seed = options.seed ?? 1;
    const sizeBytes = options.diskBytes ?? 32 * MIB;
    this.medium = new MemoryDisk({ sizeBytes, seed, ...options.disk });
    this.volumeBytes = options.volumeBytes ?? 80 * MIB;
    this.#random = seededRandom(seed + 1);
  }

  get disk(): Disk {
    if (this.#disk === undefined) throw new Error('the disk is not open');
    return this.#disk;
  }

  get handle(): ReplicaHandle {
    if (this.#handle === undefined) throw new Error('the replica is not open');
    return this.#handle;
  }

  get store(): ReplicaStore {
    return this.handle.store;
  }

  diskOptions(): DiskOptions {
    const { cacheBytes, reserveBytes } = this.#options;
    return {
      path: '/dev/test',
      metaDir: '/meta',
      identity: { clusterId: 'cluster', daemonId: 'daemon' },
      incarnation: `incarnation-${this.starts}`,
      bootId: this.bootId,
      pool: this.pool,
      log: pino({ level: 'silent' }),
      clock: new SystemClock(),
      reserveBytes: reserveBytes ?? 0,
      ...(cacheBytes === undefined ? {} : { cacheBytes }),
      home: this.home,
      openDevice: async (path) => this.medium.open(path),
      openKv: this.kvs.openKv,
      randomBytes: (length) => this.randomBytes(length),
    };
  }

  async openDisk(): Promise<Disk> {
    this.starts += 1;
    this.#disk = await openDisk(this.diskOptions());
    return this.#disk;
  }

  /** Opens everything; makes the replica the first time. */
  async open(): Promise<ReplicaStore> {
    const disk = await this.openDisk();
    await disk.createReplica({
      volume: VOLUME,
      sizeBytes: this.volumeBytes,
      replicaId: 'r1',
      membership: MEMBERSHIP,
    });
    this.#handle = await disk.openReplica(VOLUME);
    return this.store;
  }

  async close(): Promise<void> {
    await this.#disk?.close();
    this.#disk = undefined;
    this.#handle = undefined;
  }

  /** The daemon dies, the machine lives. */
  async kill(): Promise<void> {
    this.medium.kill();
    for (const disk of this.kvs.disks.values()) disk.kill();
    await this.#forget();
  }

  /** The machine loses power. */
  async powerCut(fate: Fate, kvBatchesKept = 0): Promise<void> {
    this.medium.powerCut(fate);
    for (const disk of this.kvs.disks.values()) disk.powerCut(kvBatchesKept);
    this.bootId = `boot-${this.starts + 1}`;
    await this.#forget();
  }

  /** Whatever the dead process still does hits dead devices. */
  async #forget(): Promise<void> {
    this.#disk = undefined;
    this.#handle = undefined;
    this.home.locked.clear();
    for (let n = 0; n < 20; n += 1) await new Promise((resolve) => setImmediate(resolve));
  }

  randomBytes(length: number): Buffer {
    return Buffer.from(Array.from({ length }, () => Math.floor(this.#random() * 256)));
  }

  buffer(content: Buffer): AlignedBuffer {
    const data = this.pool.acquire(content.length);
    content.copy(data.bytes);
    return data;
  }

  /** In pieces that the wire would carry. */
  async write(block: number, content: Buffer): Promise<void> {
    const work: Array<Promise<void>> = [];
    for (let at = 0; at < content.length; at += MIB) {
      const piece = content.subarray(at, at + MIB);
      const place = block * BLOCK_SIZE + at;
      work.push(this.store.write(place, this.buffer(piece), checksumsOf(piece)));
    }
    await Promise.all(work);
  }

  async read(block: number, blocks: number, options?: { raw?: boolean }): Promise<Buffer> {
    const read = await this.store.read(block * BLOCK_SIZE, blocks * BLOCK_SIZE, options);
    const bytes = Buffer.alloc(blocks * BLOCK_SIZE);
    if (read.data !== undefined) {
      read.data.bytes.copy(bytes);
      read.data.release();
    }
    if (!checksumsOf(bytes).equals(read.checksums))
      throw new Error('checksums are not of the data');
    return bytes;
  }
}

export function checksumsOf(content: Buffer): Buffer {
  const checksums = Buffer.alloc((content.length / BLOCK_SIZE) * 4);
  crc32cBlocks(content, 0, content.length, checksums, 0);
  return checksums;
}

/** Content that names what wrote it, block by block; 0 is all zeroes. */
export function stamped(stamp: number, blocks: number): Buffer {
  const bytes = Buffer.alloc(blocks * BLOCK_SIZE);
  for (let n = 0; n < blocks && stamp !== 0; n += 1) {
    const digest = createHash('sha256').update(`${stamp}.${n}`).digest();
    for (let at = 0; at < BLOCK_SIZE; at += digest.length) digest.copy(bytes, n * BLOCK_SIZE + at);
    bytes.writeUInt32LE(stamp, n * BLOCK_SIZE);
    // also at the end of every sector, so that a torn block shows
    for (let at = 508; at < BLOCK_SIZE; at += 512) bytes.writeUInt32LE(stamp, n * BLOCK_SIZE + at);
  }
  return bytes;
}
