/** Physical extent of each extent of a volume, or -1: four bytes per extent, in chunks that exist
 *  only where used. */
import assert from 'node:assert';

const CHUNK_EXTENTS = 16384;

export class ExtentMap {
  readonly extents: number;
  readonly #chunks: Array<Int32Array | undefined>;
  #allocated = 0;

  constructor(extents: number) {
    this.extents = extents;
    this.#chunks = new Array<Int32Array | undefined>(Math.ceil(extents / CHUNK_EXTENTS));
  }

  get allocated(): number {
    return this.#allocated;
  }

  get(extent: number): number {
    const chunk = this.#chunks[Math.floor(extent / CHUNK_EXTENTS)];
    return chunk === undefined ? -1 : (chunk[extent % CHUNK_EXTENTS] ?? -1);
  }

  set(extent: number, physical: number): void {
    assert(extent >= 0 && extent < this.extents && physical >= -1);
    const index = Math.floor(extent / CHUNK_EXTENTS);
    let chunk = this.#chunks[index];
    if (chunk === undefined) {
      if (physical === -1) return;
      chunk = new Int32Array(CHUNK_EXTENTS).fill(-1);
      this.#chunks[index] = chunk;
    }
    const before = chunk[extent % CHUNK_EXTENTS] ?? -1;
    if (before === -1 && physical !== -1) this.#allocated += 1;
    if (before !== -1 && physical === -1) this.#allocated -= 1;
    chunk[extent % CHUNK_EXTENTS] = physical;
  }

  /** The first allocated extent at or after `from` and before `end`; `end` if there is none. */
  nextAllocated(from: number, end: number): number {
    for (let extent = from; extent < end; ) {
      const index = Math.floor(extent / CHUNK_EXTENTS);
      const chunkEnd = Math.min(end, (index + 1) * CHUNK_EXTENTS);
      const chunk = this.#chunks[index];
      if (chunk !== undefined) {
        for (; extent < chunkEnd; extent += 1) {
          if ((chunk[extent % CHUNK_EXTENTS] ?? -1) !== -1) return extent;
        }
      }
      extent = chunkEnd;
    }
    return end;
  }

  /** Every physical extent in use. */
  *physicals(): Iterable<number> {
    for (const chunk of this.#chunks) {
      if (chunk === undefined) continue;
      for (const physical of chunk) if (physical !== -1) yield physical;
    }
  }
}
