/**
 * A disk with a volatile write cache: what a write left is visible at once and durable after a
 * flush that began later. Pure, no time.
 *
 * At a power cut every write that no flush covered is kept, lost, or torn at any 512-byte sector,
 * by seed; the disk then holds what a machine would find when it starts again.
 */
import assert from 'node:assert';
import { SECTOR_SIZE } from '../../../common/units.js';
import type { SeededRandom } from '../../engine/nbd/seeded-random.js';
import { SparseBytes } from './sparse-bytes.js';

/** Of the writes that no flush covered: all there, all gone, each there or gone, or each of their
 *  sectors there or gone. */
export type Fate = 'kept' | 'dropped' | 'subset' | 'torn';

interface CachedWrite {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  /** undefined: zeroes */
  readonly bytes: Buffer | undefined;
}

/** What a flush covers, from its begin to its end. */
export interface FlushMark {
  readonly writes: ReadonlySet<CachedWrite>;
}

export class CachedDisk {
  readonly sizeBytes: number;
  /** a flush is answered and makes nothing durable (scenario 63) */
  liesAboutFlush = false;
  #visible: SparseBytes;
  #durable: SparseBytes;
  #cached: CachedWrite[] = [];
  readonly #saved = new Map<string, SparseBytes>();

  constructor(sizeBytes: number) {
    this.sizeBytes = sizeBytes;
    this.#visible = new SparseBytes(sizeBytes);
    this.#durable = new SparseBytes(sizeBytes);
  }

  get cachedWrites(): number {
    return this.#cached.length;
  }

  read(offsetBytes: number, lengthBytes: number): Buffer {
    return this.#visible.read(offsetBytes, lengthBytes);
  }

  /** `bytes` are kept, not copied. */
  write(offsetBytes: number, bytes: Buffer): void {
    this.#visible.write(offsetBytes, bytes);
    this.#cached.push({ offsetBytes, lengthBytes: bytes.length, bytes });
  }

  zero(offsetBytes: number, lengthBytes: number): void {
    this.#visible.zero(offsetBytes, lengthBytes);
    this.#cached.push({ offsetBytes, lengthBytes, bytes: undefined });
  }

  /** A write that ends in an error: any of its sectors may be there. */
  writePart(offsetBytes: number, bytes: Buffer, random: SeededRandom): void {
    for (let at = 0; at < bytes.length; at += SECTOR_SIZE) {
      if (!random.chance(50)) continue;
      this.write(offsetBytes + at, bytes.subarray(at, at + SECTOR_SIZE));
    }
  }

  beginFlush(): FlushMark {
    return { writes: new Set(this.#cached) };
  }

  endFlush(mark: FlushMark): void {
    if (this.liesAboutFlush) return;
    for (const write of this.#cached) if (mark.writes.has(write)) put(this.#durable, write);
    this.#cached = this.#cached.filter((write) => !mark.writes.has(write));
  }

  /** A flush that failed: what it covered is durable or lost for good, although it stays visible,
   *  and no later flush covers it (D3). */
  failFlush(mark: FlushMark, random: SeededRandom): void {
    for (const write of this.#cached) {
      if (mark.writes.has(write) && random.chance(50)) put(this.#durable, write);
    }
    this.#cached = this.#cached.filter((write) => !mark.writes.has(write));
  }

  /** Changes bytes behind the back of whoever uses the disk, durably: rot, a repair tool. */
  poke(offsetBytes: number, bytes: Buffer): void {
    this.#visible.write(offsetBytes, bytes);
    this.#durable.write(offsetBytes, bytes);
  }

  powerCut(fate: Fate, random: SeededRandom): void {
    for (const write of this.#cached) settle(this.#durable, write, fate, random);
    this.#cached = [];
    this.#visible = this.#durable.fork();
  }

  /** Keeps what is visible now under a name. */
  save(name: string): void {
    this.#saved.set(name, this.#visible.fork());
  }

  /** Puts back what was saved: an image restored from a backup (scenario 55). */
  restore(name: string): void {
    const saved = this.#saved.get(name);
    assert(saved !== undefined, `nothing was saved as ${name}`);
    this.#visible = saved.fork();
    this.#durable = saved.fork();
    this.#cached = [];
  }
}

function put(target: SparseBytes, write: CachedWrite): void {
  if (write.bytes === undefined) target.zero(write.offsetBytes, write.lengthBytes);
  else target.write(write.offsetBytes, write.bytes);
}

function settle(target: SparseBytes, write: CachedWrite, fate: Fate, random: SeededRandom): void {
  if (fate === 'dropped' || (fate === 'subset' && random.chance(50))) return;
  if (fate !== 'torn') {
    put(target, write);
    return;
  }
  const { offsetBytes, lengthBytes, bytes } = write;
  for (let at = 0; at < lengthBytes; at += SECTOR_SIZE) {
    if (random.chance(50)) continue;
    if (bytes === undefined) target.zero(offsetBytes + at, SECTOR_SIZE);
    else target.write(offsetBytes + at, bytes.subarray(at, at + SECTOR_SIZE));
  }
}
