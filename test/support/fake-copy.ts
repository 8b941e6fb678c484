/**
 * What one replica in memory holds: its blocks, which of them are bad, and what a replica daemon
 * says of regions and extents: dirty marks, what was written since, tags of cleans (P1, P2).
 *
 * Marks, tags and allocation are durable at once; bytes only after a flush, so that a test can take
 * power away.
 */
import { StorageError } from '../../common/errors.js';
import {
  BLOCK_SIZE,
  EXTENT_SIZE,
  EXTENTS_PER_REGION,
  REGION_SIZE,
  roundDown,
} from '../../common/units.js';
import type { ExtentInfo, ExtentTag, RegionInfo, Tag } from '../../proto/control.js';

const ZEROES = Buffer.alloc(EXTENT_SIZE);

/** Of at most one extent. */
export const isZero = (bytes: Buffer): boolean => bytes.equals(ZEROES.subarray(0, bytes.length));

const NO_TAG: Tag = { epoch: 0, counter: 0 };

export class FakeCopy {
  readonly bytes: Buffer;
  /** any byte of a block whose content is not as its checksum says */
  readonly rotten = new Set<number>();
  /** offsets of blocks that the device cannot read */
  readonly unreadable = new Set<number>();
  readonly #dirty = new Set<number>();
  readonly #regionTags = new Map<number, Tag>();
  readonly #allocated = new Set<number>();
  readonly #written = new Set<number>();
  readonly #extentTags = new Map<number, Tag>();
  /** what is on stable storage where the bytes are not */
  readonly #unflushed = new Map<number, Buffer>();

  constructor(readonly sizeBytes: number) {
    this.bytes = Buffer.alloc(sizeBytes);
  }

  /** Whole blocks; undefined: zeroes that take no space. */
  write(offsetBytes: number, lengthBytes: number, content: Buffer | undefined): void {
    const end = offsetBytes + lengthBytes;
    for (let at = offsetBytes; at < end; at += BLOCK_SIZE) {
      const before = this.bytes.subarray(at, at + BLOCK_SIZE);
      if (!this.#unflushed.has(at)) this.#unflushed.set(at, Buffer.from(before));
      this.unreadable.delete(at);
    }
    for (const at of [...this.rotten]) if (at >= offsetBytes && at < end) this.rotten.delete(at);
    if (content === undefined) this.bytes.fill(0, offsetBytes, end);
    else content.copy(this.bytes, offsetBytes);
    this.#mark(offsetBytes, end, content !== undefined);
  }

  #mark(offsetBytes: number, end: number, allocates: boolean): void {
    for (let at = roundDown(offsetBytes, EXTENT_SIZE); at < end; at += EXTENT_SIZE) {
      const extent = at / EXTENT_SIZE;
      if (!allocates && !this.#allocated.has(extent)) continue;
      this.#dirty.add(Math.floor(extent / EXTENTS_PER_REGION));
      this.#written.add(extent);
      if (allocates) this.#allocated.add(extent);
      else if (isZero(this.bytes.subarray(at, at + EXTENT_SIZE))) {
        this.#allocated.delete(extent);
        this.#extentTags.delete(extent);
      }
    }
  }

  /** An image of all this. @returns puts it back */
  save(): () => void {
    const bytes = Buffer.from(this.bytes);
    const sets = [this.#dirty, this.#allocated, this.#written].map((s) => [s, [...s]] as const);
    const maps = [this.#regionTags, this.#extentTags].map((m) => [m, [...m]] as const);
    return () => {
      bytes.copy(this.bytes);
      this.#unflushed.clear();
      for (const [set, values] of sets) {
        set.clear();
        for (const value of values) set.add(value);
      }
      for (const [map, entries] of maps) {
        map.clear();
        for (const [key, value] of entries) map.set(key, value);
      }
    };
  }

  flush(): void {
    this.#unflushed.clear();
  }

  /** Power is gone: what was not flushed is there or not, block by block. */
  losePower(keeps: (offsetBytes: number) => boolean): void {
    for (const [at, before] of this.#unflushed) if (!keeps(at)) before.copy(this.bytes, at);
    this.#unflushed.clear();
    this.restart();
  }

  /** What was written since the marks is not known after a restart. */
  restart(): void {
    for (const region of this.#dirty) {
      const first = region * EXTENTS_PER_REGION;
      for (let n = 0; n < EXTENTS_PER_REGION; n += 1) this.#written.add(first + n);
    }
  }

  /** P2: all that was written in the region gets the tag, the mark goes. */
  clean(region: number, tag: Tag): void {
    for (const extent of this.#extentsIn(region)) {
      if (this.#written.has(extent)) this.#extentTags.set(extent, tag);
    }
    this.#unmark(region, tag);
  }

  /** Takes over the tags of a clean source. @throws StorageError CONFLICT: other extents are
   *  here */
  cleanAs(region: number, tag: Tag, extentTags: readonly ExtentTag[]): void {
    const here = this.#extentsIn(region).sort((a, b) => a - b);
    const named = extentTags.map((item) => item.extent).sort((a, b) => a - b);
    if (here.join() !== named.join()) {
      throw new StorageError('CONFLICT', `region ${region}: ${here} are here, ${named} named`);
    }
    for (const item of extentTags) this.#extentTags.set(item.extent, item.tag);
    this.#unmark(region, tag);
  }

  #unmark(region: number, tag: Tag): void {
    this.#dirty.delete(region);
    this.#regionTags.set(region, tag);
    const first = region * EXTENTS_PER_REGION;
    for (let n = 0; n < EXTENTS_PER_REGION; n += 1) this.#written.delete(first + n);
  }

  dirtyRegions(): number[] {
    return [...this.#dirty].sort((a, b) => a - b);
  }

  regions(first: number, count: number): RegionInfo[] {
    const found: RegionInfo[] = [];
    const end = Math.min(first + count, Math.ceil(this.sizeBytes / REGION_SIZE));
    for (let number = first; number < end; number += 1) {
      const dirty = this.#dirty.has(number);
      const allocatedExtents = this.#extentsIn(number).length;
      const tag = this.#regionTags.get(number) ?? NO_TAG;
      if (dirty || allocatedExtents > 0 || tag !== NO_TAG) {
        found.push({ number, dirty, allocatedExtents, tag });
      }
    }
    return found;
  }

  extents(region: number): ExtentInfo[] {
    const found: ExtentInfo[] = [];
    const first = region * EXTENTS_PER_REGION;
    for (let number = first; number < first + EXTENTS_PER_REGION; number += 1) {
      const allocated = this.#allocated.has(number);
      const written = this.#written.has(number);
      const inside = number * EXTENT_SIZE < this.sizeBytes;
      if (!inside || (!allocated && !written)) continue;
      const tag = this.#extentTags.get(number) ?? NO_TAG;
      found.push({ number, allocated, written, tag });
    }
    return found;
  }

  #extentsIn(region: number): number[] {
    return [...this.#allocated].filter((e) => Math.floor(e / EXTENTS_PER_REGION) === region);
  }

  get allocatedBytes(): number {
    return this.#allocated.size * EXTENT_SIZE;
  }

  /** Blocks of the range, as indices, that cannot be read; if not `raw` rotten ones, too. */
  badBlocks(offsetBytes: number, lengthBytes: number, raw: boolean): number[] {
    const end = offsetBytes + lengthBytes;
    const bad = new Set<number>();
    for (const at of [...this.unreadable, ...(raw ? [] : this.rotten)]) {
      if (at >= offsetBytes && at < end) bad.add(Math.floor((at - offsetBytes) / BLOCK_SIZE));
    }
    return [...bad].sort((a, b) => a - b);
  }
}
