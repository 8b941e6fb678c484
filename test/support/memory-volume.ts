/** A BlockVolume in memory: sparse, exact, with hooks that delay or fail operations and counters
 *  that must balance. */
import assert from 'node:assert';
import { StorageError } from '../../common/errors.js';
import { Semaphore } from '../../common/semaphore.js';
import { BLOCK_SIZE, BLOCKS_PER_EXTENT, EXTENT_SIZE, MIB } from '../../common/units.js';
import type {
  BlockVolume,
  ReadResult,
  StatusRun,
  WriteOptions,
} from '../../engine/block-volume.js';

export type VolumeCall = 'read' | 'write' | 'flush' | 'trim' | 'writeZeroes' | 'blockStatus';

export interface VolumeOperation {
  readonly call: VolumeCall;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly fua: boolean;
  readonly noHole: boolean;
}

/** Runs before each operation. A promise delays it; a throw or a rejection fails it before it has
 *  any effect. */
export type BeforeHook = (operation: VolumeOperation) => Promise<void> | undefined;

export interface MemoryVolumeOptions {
  readonly name?: string;
  readonly sizeBytes: number;
  readonly readOnly?: boolean;
  readonly admissionBytes?: number;
  readonly admissionCount?: number;
}

interface Extent {
  readonly bytes: Buffer;
  /** 1 per block that takes space */
  readonly present: Uint8Array;
}

const ZEROES = Buffer.alloc(EXTENT_SIZE);
const NOT_DURABLE: WriteOptions = { fua: false };

export class MemoryVolume implements BlockVolume {
  readonly name: string;
  readonly readOnly: boolean;
  before: BeforeHook | undefined;
  /** Every operation as it arrived, if somebody sets it. */
  journal: VolumeOperation[] | undefined;
  /** ReadResults handed out and not released. */
  borrowed = 0;
  flushes = 0;
  readonly bytesAdmission: Semaphore;
  readonly countAdmission: Semaphore;
  readonly #extents = new Map<number, Extent>();
  readonly #resizeListeners = new Set<(sizeBytes: number) => void>();
  #sizeBytes: number;

  constructor(options: MemoryVolumeOptions) {
    this.name = options.name ?? 'memory';
    this.readOnly = options.readOnly ?? false;
    this.#sizeBytes = options.sizeBytes;
    const bytes = options.admissionBytes ?? 64 * MIB;
    this.bytesAdmission = new Semaphore('volume bytes', bytes, 100_000);
    this.countAdmission = new Semaphore('volume count', options.admissionCount ?? 1024, 100_000);
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  grow(sizeBytes: number): void {
    assert(sizeBytes >= this.#sizeBytes, 'a volume never shrinks');
    this.#sizeBytes = sizeBytes;
    for (const listener of this.#resizeListeners) listener(sizeBytes);
  }

  /** Nothing admitted and nothing borrowed: call when all is answered. */
  assertBalanced(): void {
    assert.deepEqual(
      {
        bytes: this.bytesAdmission.used,
        count: this.countAdmission.used,
        borrowed: this.borrowed,
      },
      { bytes: 0, count: 0, borrowed: 0 },
    );
  }

  enter(lengthBytes: number): Promise<void> | undefined {
    if (this.countAdmission.tryAcquire(1)) {
      if (this.bytesAdmission.tryAcquire(lengthBytes)) return undefined;
      return this.bytesAdmission.acquire(lengthBytes);
    }
    return this.countAdmission.acquire(1).then(() => this.bytesAdmission.acquire(lengthBytes));
  }

  leave(lengthBytes: number): void {
    this.bytesAdmission.release(lengthBytes);
    this.countAdmission.release(1);
  }

  async read(offsetBytes: number, lengthBytes: number): Promise<ReadResult> {
    const wait = this.#begin('read', offsetBytes, lengthBytes);
    if (wait !== undefined) await wait;
    const chunks: Buffer[] = [];
    this.#walk(offsetBytes, lengthBytes, (index, start, end) => {
      chunks.push((this.#extents.get(index)?.bytes ?? ZEROES).subarray(start, end));
    });
    this.borrowed += 1;
    let released = false;
    const release = (): void => {
      assert(!released, 'a ReadResult is released once');
      released = true;
      this.borrowed -= 1;
    };
    return { chunks, release };
  }

  async write(
    offsetBytes: number,
    lengthBytes: number,
    payload: readonly Buffer[],
    options: WriteOptions,
  ): Promise<void> {
    const wait = this.#begin('write', offsetBytes, lengthBytes, options);
    if (wait !== undefined) await wait;
    let at = offsetBytes;
    for (const piece of payload) {
      let from = 0;
      this.#walk(at, piece.length, (index, start, end) => {
        const extent = this.#take(index);
        piece.copy(extent.bytes, start, from, from + (end - start));
        extent.present.fill(1, Math.floor(start / BLOCK_SIZE), Math.ceil(end / BLOCK_SIZE));
        from += end - start;
      });
      at += piece.length;
    }
    assert(at === offsetBytes + lengthBytes, 'the payload has the length that was said');
  }

  async flush(): Promise<void> {
    const wait = this.#begin('flush', 0, 0);
    if (wait !== undefined) await wait;
    this.flushes += 1;
  }

  async trim(offsetBytes: number, lengthBytes: number, options: WriteOptions): Promise<void> {
    const wait = this.#begin('trim', offsetBytes, lengthBytes, options);
    if (wait !== undefined) await wait;
    this.#zero(offsetBytes, lengthBytes, false);
  }

  async writeZeroes(
    offsetBytes: number,
    lengthBytes: number,
    options: WriteOptions & { readonly noHole: boolean },
  ): Promise<void> {
    const wait = this.#begin('writeZeroes', offsetBytes, lengthBytes, options);
    if (wait !== undefined) await wait;
    this.#zero(offsetBytes, lengthBytes, options.noHole);
  }

  async blockStatus(
    offsetBytes: number,
    lengthBytes: number,
    runsMax: number,
  ): Promise<StatusRun[]> {
    const wait = this.#begin('blockStatus', offsetBytes, lengthBytes);
    if (wait !== undefined) await wait;
    const runs: StatusRun[] = [];
    const endBytes = offsetBytes + lengthBytes;
    let at = offsetBytes;
    while (at < endBytes) {
      const hole = !this.#isPresent(at);
      const stop = Math.min(endBytes, at - (at % BLOCK_SIZE) + BLOCK_SIZE);
      const last = runs[runs.length - 1];
      if (last !== undefined && last.hole === hole) {
        runs[runs.length - 1] = { lengthBytes: last.lengthBytes + stop - at, hole };
      } else {
        if (runs.length === runsMax) break;
        runs.push({ lengthBytes: stop - at, hole });
      }
      at = stop;
    }
    return runs;
  }

  onResize(listener: (sizeBytes: number) => void): () => void {
    this.#resizeListeners.add(listener);
    return () => this.#resizeListeners.delete(listener);
  }

  /** A copy of the bytes, without hooks or admission. */
  peek(offsetBytes: number, lengthBytes: number): Buffer {
    const parts: Buffer[] = [];
    this.#walk(offsetBytes, lengthBytes, (index, start, end) => {
      parts.push((this.#extents.get(index)?.bytes ?? ZEROES).subarray(start, end));
    });
    return Buffer.concat(parts);
  }

  /** Bytes of blocks that take space. */
  get allocatedBytes(): number {
    let blocks = 0;
    for (const extent of this.#extents.values()) {
      blocks += extent.present.reduce((sum, present) => sum + present, 0);
    }
    return blocks * BLOCK_SIZE;
  }

  /** What the volume itself takes of this process's memory. */
  get memoryBytes(): number {
    return this.#extents.size * EXTENT_SIZE;
  }

  #begin(
    call: VolumeCall,
    offsetBytes: number,
    lengthBytes: number,
    options: WriteOptions & { readonly noHole?: boolean } = NOT_DURABLE,
  ): Promise<void> | undefined {
    if (offsetBytes + lengthBytes > this.#sizeBytes) {
      const range = `[${offsetBytes}, ${offsetBytes + lengthBytes})`;
      throw new StorageError('OUT_OF_RANGE', `${call} ${range} ends past ${this.#sizeBytes}`);
    }
    if (this.journal === undefined && this.before === undefined) return undefined;
    const { fua, noHole = false } = options;
    const operation: VolumeOperation = { call, offsetBytes, lengthBytes, fua, noHole };
    this.journal?.push(operation);
    return this.before?.(operation);
  }

  #zero(offsetBytes: number, lengthBytes: number, keep: boolean): void {
    this.#walk(offsetBytes, lengthBytes, (index, start, end) => {
      const extent = keep ? this.#take(index) : this.#extents.get(index);
      if (extent === undefined) return;
      extent.bytes.fill(0, start, end);
      const first = keep ? Math.floor(start / BLOCK_SIZE) : Math.ceil(start / BLOCK_SIZE);
      const stop = keep ? Math.ceil(end / BLOCK_SIZE) : Math.floor(end / BLOCK_SIZE);
      if (stop > first) extent.present.fill(keep ? 1 : 0, first, stop);
      if (!keep && !extent.present.includes(1)) this.#extents.delete(index);
    });
  }

  #take(index: number): Extent {
    let extent = this.#extents.get(index);
    if (extent === undefined) {
      extent = { bytes: Buffer.alloc(EXTENT_SIZE), present: new Uint8Array(BLOCKS_PER_EXTENT) };
      this.#extents.set(index, extent);
    }
    return extent;
  }

  #isPresent(offsetBytes: number): boolean {
    const extent = this.#extents.get(Math.floor(offsetBytes / EXTENT_SIZE));
    return extent?.present[Math.floor((offsetBytes % EXTENT_SIZE) / BLOCK_SIZE)] === 1;
  }

  #walk(
    offsetBytes: number,
    lengthBytes: number,
    visit: (extent: number, start: number, end: number) => void,
  ): void {
    let at = offsetBytes;
    const endBytes = offsetBytes + lengthBytes;
    while (at < endBytes) {
      const index = Math.floor(at / EXTENT_SIZE);
      const start = at - index * EXTENT_SIZE;
      const end = Math.min(EXTENT_SIZE, start + endBytes - at);
      visit(index, start, end);
      at += end - start;
    }
  }
}
