/**
 * What a member that is away has missed, block by block, while this engine goes on (one per
 * member).
 *
 * Complete from the moment the member left the set: it begins with every change that was on its way
 * to the member and not answered. Bounded: past `extentsMax` extents it gives up (`overflowed`),
 * and the member catches up by dirty regions and tags instead.
 */
import assert from 'node:assert';
import { BLOCK_SIZE, BLOCKS_PER_EXTENT, EXTENT_SIZE } from '../../common/units.js';

/** 32 bytes and a map entry each: a few MiB per member that is away. */
const EXTENTS_MAX = 64 * 1024;
const WORDS = BLOCKS_PER_EXTENT / 32;

export interface BlockRun {
  /** first block in the extent */
  readonly first: number;
  readonly count: number;
}

export class MissedWrites {
  readonly #extents = new Map<number, Uint32Array>();
  #overflowed = false;

  constructor(readonly extentsMax = EXTENTS_MAX) {}

  get overflowed(): boolean {
    return this.#overflowed;
  }

  get extentCount(): number {
    return this.#extents.size;
  }

  /** Notes a change of [offset, offset + length): whole blocks or any bytes of them. */
  note(offsetBytes: number, lengthBytes: number): void {
    if (this.#overflowed || lengthBytes === 0) return;
    const end = offsetBytes + lengthBytes;
    for (let at = offsetBytes; at < end; ) {
      const extent = Math.floor(at / EXTENT_SIZE);
      const stop = Math.min(end, (extent + 1) * EXTENT_SIZE);
      const first = Math.floor((at - extent * EXTENT_SIZE) / BLOCK_SIZE);
      const last = Math.floor((stop - 1 - extent * EXTENT_SIZE) / BLOCK_SIZE);
      this.#mark(extent, first, last);
      if (this.#overflowed) return;
      at = stop;
    }
  }

  /** Everything that `other` has missed is missed here, too. */
  add(other: MissedWrites): void {
    if (other.#overflowed) this.forget();
    for (const [extent, blocks] of other.#extents) {
      if (this.#overflowed) return;
      const own = this.#blocksOf(extent);
      if (own === undefined) return;
      for (let word = 0; word < WORDS; word += 1) {
        own[word] = (own[word] ?? 0) | (blocks[word] ?? 0);
      }
    }
  }

  /** Extents with something missed, ascending. */
  extents(): number[] {
    return [...this.#extents.keys()].sort((a, b) => a - b);
  }

  /** What was missed in one extent, as ascending runs. */
  runs(extent: number): BlockRun[] {
    const blocks = this.#extents.get(extent);
    if (blocks === undefined) return [];
    const runs: BlockRun[] = [];
    let first = -1;
    for (let block = 0; block <= BLOCKS_PER_EXTENT; block += 1) {
      const set =
        block < BLOCKS_PER_EXTENT && ((blocks[block >>> 5] ?? 0) & (1 << (block & 31))) !== 0;
      if (set && first < 0) first = block;
      if (!set && first >= 0) {
        runs.push({ first, count: block - first });
        first = -1;
      }
    }
    return runs;
  }

  /** Blocks in all. */
  blockCount(): number {
    let count = 0;
    for (const extent of this.#extents.keys()) {
      for (const run of this.runs(extent)) count += run.count;
    }
    return count;
  }

  /** The member has this extent now. */
  caughtUp(extent: number): void {
    this.#extents.delete(extent);
  }

  #mark(extent: number, first: number, last: number): void {
    assert(first >= 0 && last < BLOCKS_PER_EXTENT && first <= last);
    const blocks = this.#blocksOf(extent);
    if (blocks === undefined) return;
    for (let block = first; block <= last; block += 1) {
      blocks[block >>> 5] = (blocks[block >>> 5] ?? 0) | (1 << (block & 31));
    }
  }

  #blocksOf(extent: number): Uint32Array | undefined {
    let blocks = this.#extents.get(extent);
    if (blocks !== undefined) return blocks;
    if (this.#extents.size >= this.extentsMax) {
      this.forget();
      return undefined;
    }
    blocks = new Uint32Array(WORDS);
    this.#extents.set(extent, blocks);
    return blocks;
  }

  /** What was missed is not known any more. */
  forget(): void {
    this.#overflowed = true;
    this.#extents.clear();
  }
}
