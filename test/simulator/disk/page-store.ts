/** A sparse array of pages that never change: what is not there is zero. Two stores may share
 *  pages. */
import { BLOCK_SIZE } from '../../../common/units.js';

export const PAGE_SIZE = BLOCK_SIZE;
const CHUNK_PAGES = 256;

/** One page; undefined: zeroes. Nobody writes to it. */
export type Page = Buffer | undefined;

export class PageStore {
  readonly #chunks = new Map<number, Page[]>();

  get(page: number): Page {
    return this.#chunks.get(page >>> 8)?.[page & 0xff];
  }

  set(page: number, bytes: Page): void {
    const number = page >>> 8;
    let chunk = this.#chunks.get(number);
    if (chunk === undefined) {
      if (bytes === undefined) return;
      chunk = new Array<Page>(CHUNK_PAGES).fill(undefined);
      this.#chunks.set(number, chunk);
    }
    chunk[page & 0xff] = bytes;
  }

  /** Zeroes [first, first + count); whole chunks at once. */
  clear(first: number, count: number): void {
    const end = first + count;
    for (let page = first; page < end; ) {
      const number = page >>> 8;
      const next = Math.min(end, (number + 1) * CHUNK_PAGES);
      if (next - page === CHUNK_PAGES) this.#chunks.delete(number);
      else this.#clearPart(number, page & 0xff, next - page);
      page = next;
    }
  }

  #clearPart(number: number, from: number, count: number): void {
    this.#chunks.get(number)?.fill(undefined, from, from + count);
  }

  /** Becomes what the other one is. */
  assign(other: PageStore): void {
    this.#chunks.clear();
    for (const [number, chunk] of other.#chunks) this.#chunks.set(number, [...chunk]);
  }

  /** Pages that are not zero, ascending. */
  used(): number[] {
    const pages: number[] = [];
    for (const [number, chunk] of this.#chunks) {
      for (let at = 0; at < CHUNK_PAGES; at += 1) {
        if (chunk[at] !== undefined) pages.push(number * CHUNK_PAGES + at);
      }
    }
    return pages.sort((a, b) => a - b);
  }
}
