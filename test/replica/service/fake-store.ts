/** A ReplicaStore in memory whose operations can be held back, and that notes what was called. */

import { bitIsSet, setBits } from '../../../common/bitmap.js';
import type { AlignedBuffer, BufferPool } from '../../../common/block-device.js';
import { StorageError } from '../../../common/errors.js';
import { BLOCK_SIZE } from '../../../common/units.js';
import {
  BLOCK_HASH_BYTES,
  crc32c,
  crc32cBlocks,
  hashBlocks,
  ZERO_BLOCK_CRC,
} from '../../../native/index.js';
import type { ExtentInfo, ExtentTag, RegionInfo, Tag } from '../../../proto/control.js';
import { bitmapBytesOf } from '../../../proto/io-codec.js';
import type {
  BlockHashes,
  MapRun,
  Replacement,
  ReplicaStore,
  SparseRead,
  StoredRead,
} from '../../../replica/replica-store.js';

export class FakeStore implements ReplicaStore {
  failedReason: string | undefined;
  readonly calls: string[] = [];
  /** the next call of that name throws this */
  readonly errors = new Map<string, StorageError>();
  /** while true, calls do not settle until `letGo` */
  holds = false;
  readonly dirty = new Set<number>();
  readonly #blocks = new Map<number, Buffer>();
  readonly #waiting: Array<() => void> = [];

  constructor(
    readonly volume: string,
    readonly replicaId: string,
    readonly sizeBytes: number,
    readonly pool: BufferPool,
  ) {}

  get allocatedBytes(): number {
    return this.#blocks.size * BLOCK_SIZE;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  /** Settles what is held back, in the given order (default: as called). */
  letGo(count = this.#waiting.length): void {
    for (const go of this.#waiting.splice(0, count)) go();
  }

  peek(block: number): Buffer | undefined {
    return this.#blocks.get(block);
  }

  async read(offsetBytes: number, lengthBytes: number): Promise<StoredRead> {
    await this.#enter('read', offsetBytes, lengthBytes);
    const checksums = Buffer.alloc((lengthBytes / BLOCK_SIZE) * 4);
    const first = offsetBytes / BLOCK_SIZE;
    const count = lengthBytes / BLOCK_SIZE;
    const held = Array.from({ length: count }, (_, i) => this.#blocks.get(first + i));
    if (held.every((block) => block === undefined)) {
      for (let i = 0; i < count; i++) checksums.writeUInt32LE(ZERO_BLOCK_CRC, i * 4);
      return { data: undefined, checksums };
    }
    const data = this.pool.acquire(lengthBytes);
    for (const [i, block] of held.entries()) {
      if (block === undefined) data.bytes.fill(0, i * BLOCK_SIZE, (i + 1) * BLOCK_SIZE);
      else block.copy(data.bytes, i * BLOCK_SIZE);
    }
    crc32cBlocks(data.bytes, 0, lengthBytes, checksums, 0);
    return { data, checksums };
  }

  async readSparse(
    offsetBytes: number,
    lengthBytes: number,
    options?: { raw?: boolean },
  ): Promise<SparseRead> {
    const name = options?.raw === true ? 'sparse raw' : 'sparse';
    await this.#enter(name, offsetBytes, lengthBytes);
    const { bitmap, blocks } = this.#present(offsetBytes, lengthBytes);
    const sums = Buffer.alloc(4 * blocks.length);
    if (blocks.length === 0) return { data: undefined, checksums: bitmap };
    const data = this.pool.acquire(blocks.length * BLOCK_SIZE);
    for (const [i, block] of blocks.entries()) block.copy(data.bytes, i * BLOCK_SIZE);
    crc32cBlocks(data.bytes, 0, data.bytes.length, sums, 0);
    return { data, checksums: Buffer.concat([bitmap, sums]) };
  }

  async hash(
    offsetBytes: number,
    lengthBytes: number,
    options?: { raw?: boolean },
  ): Promise<BlockHashes> {
    await this.#enter(options?.raw === true ? 'hash raw' : 'hash', offsetBytes, lengthBytes);
    const { bitmap } = this.#present(offsetBytes, lengthBytes);
    const hashes = Buffer.alloc((lengthBytes / BLOCK_SIZE) * BLOCK_HASH_BYTES);
    for (let at = 0; at < lengthBytes; at += BLOCK_SIZE) {
      const block = this.#blocks.get((offsetBytes + at) / BLOCK_SIZE) ?? Buffer.alloc(BLOCK_SIZE);
      hashBlocks(block, 0, BLOCK_SIZE, hashes, (at / BLOCK_SIZE) * BLOCK_HASH_BYTES);
    }
    return { bitmaps: Buffer.concat([bitmap, Buffer.alloc(bitmap.length)]), hashes };
  }

  async replace(offsetBytes: number, lengthBytes: number, content: Replacement): Promise<void> {
    const bitmap = Buffer.from(content.bitmap);
    const checksums = Buffer.from(content.checksums);
    try {
      await this.#enter('replace', offsetBytes, lengthBytes);
      let first = -1;
      let present = 0;
      for (let n = 0; n < lengthBytes / BLOCK_SIZE; n++) {
        const at = offsetBytes / BLOCK_SIZE + n;
        this.#blocks.delete(at);
        if (!bitIsSet(bitmap, 0, n)) continue;
        if (first === -1) first = n;
        const from = (n - first) * BLOCK_SIZE;
        const block = Buffer.from(content.data?.bytes.subarray(from, from + BLOCK_SIZE) ?? []);
        this.#blocks.set(at, block);
        if (crc32c(block) !== checksums.readUInt32LE(4 * present)) throw new Error('wrong sums');
        present += 1;
      }
    } finally {
      content.data?.release();
    }
  }

  async write(offsetBytes: number, data: AlignedBuffer, checksums: Buffer): Promise<void> {
    const copy = Buffer.from(checksums);
    try {
      await this.#enter('write', offsetBytes, data.bytes.length);
      for (let at = 0; at < data.bytes.length; at += BLOCK_SIZE) {
        const block = Buffer.from(data.bytes.subarray(at, at + BLOCK_SIZE));
        this.#blocks.set((offsetBytes + at) / BLOCK_SIZE, block);
      }
      const own = Buffer.alloc(copy.length);
      crc32cBlocks(data.bytes, 0, data.bytes.length, own, 0);
      if (!own.equals(copy)) throw new Error('the store was given wrong checksums');
    } finally {
      data.release();
    }
  }

  async trim(offsetBytes: number, lengthBytes: number): Promise<void> {
    await this.#enter('trim', offsetBytes, lengthBytes);
    for (let at = 0; at < lengthBytes; at += BLOCK_SIZE) {
      this.#blocks.delete((offsetBytes + at) / BLOCK_SIZE);
    }
  }

  async writeZeroes(
    offsetBytes: number,
    lengthBytes: number,
    options: { noHole: boolean },
  ): Promise<void> {
    await this.#enter(options.noHole ? 'zero no-hole' : 'zero', offsetBytes, lengthBytes);
    for (let at = 0; at < lengthBytes; at += BLOCK_SIZE) {
      const block = (offsetBytes + at) / BLOCK_SIZE;
      if (options.noHole) this.#blocks.set(block, Buffer.alloc(BLOCK_SIZE));
      else this.#blocks.delete(block);
    }
  }

  async flush(): Promise<void> {
    await this.#enter('flush', 0, 0);
  }

  async map(offsetBytes: number, lengthBytes: number, runsMax: number): Promise<MapRun[]> {
    await this.#enter('map', offsetBytes, lengthBytes);
    const runs: Array<{ blocks: number; hole: boolean }> = [];
    for (let at = 0; at < lengthBytes; at += BLOCK_SIZE) {
      const hole = !this.#blocks.has((offsetBytes + at) / BLOCK_SIZE);
      const last = runs.at(-1);
      if (last?.hole === hole) last.blocks += 1;
      else if (runs.length < runsMax) runs.push({ blocks: 1, hole });
      else break;
    }
    return runs;
  }

  async clean(regionNumber: number, tag: { epoch: number; counter: number }): Promise<void> {
    await this.#enter(`clean ${tag.epoch}:${tag.counter}`, regionNumber, 0);
    this.dirty.delete(regionNumber);
  }

  async cleanAs(regionNumber: number, tag: Tag, extentTags: readonly ExtentTag[]): Promise<void> {
    const extents = extentTags.map((item) => `${item.extent}:${item.tag.counter}`).join(' ');
    await this.#enter(`clean-as ${tag.epoch}:${tag.counter} [${extents}]`, regionNumber, 0);
    this.dirty.delete(regionNumber);
  }

  regions(first: number, count: number): RegionInfo[] {
    this.calls.push(`regions ${first}+${count}`);
    const info = { dirty: true, allocatedExtents: 0, tag: { epoch: 0, counter: 0 } };
    return this.dirtyRegions()
      .filter((number) => number >= first && number < first + count)
      .map((number) => ({ number, ...info }));
  }

  async extents(regionNumber: number): Promise<ExtentInfo[]> {
    await this.#enter('extents', regionNumber, 0);
    const tag = { epoch: 1, counter: 7 };
    return [{ number: regionNumber * 64, allocated: true, written: false, tag }];
  }

  dirtyRegions(): number[] {
    return [...this.dirty].sort((a, b) => a - b);
  }

  #present(offsetBytes: number, lengthBytes: number): { bitmap: Buffer; blocks: Buffer[] } {
    const count = lengthBytes / BLOCK_SIZE;
    const bitmap = Buffer.alloc(bitmapBytesOf(count));
    const blocks: Buffer[] = [];
    for (let n = 0; n < count; n++) {
      const block = this.#blocks.get(offsetBytes / BLOCK_SIZE + n);
      if (block === undefined) continue;
      setBits(bitmap, 0, n, 1);
      blocks.push(block);
    }
    return { bitmap, blocks };
  }

  async #enter(name: string, offsetBytes: number, lengthBytes: number): Promise<void> {
    this.calls.push(
      lengthBytes === 0 ? `${name} ${offsetBytes}` : `${name} ${offsetBytes}+${lengthBytes}`,
    );
    if (this.holds) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    const error = this.errors.get(name);
    this.errors.delete(name);
    if (error !== undefined) throw error;
    if (this.failedReason !== undefined) {
      throw new StorageError('REPLICA_FAILED', this.failedReason);
    }
  }
}
