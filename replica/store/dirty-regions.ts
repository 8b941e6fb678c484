/**
 * The dirty marks of one replica: which regions may hold writes that their stored checksums and
 * tags do not know.
 *
 * Decisions and bookkeeping only; the store makes marks durable. Per region: clean, marking (a
 * synced batch that records the mark is under way), dirty, cleaning (no write may start; also of a
 * region without a mark, which takes over tags). `written`
 * are extents touched since the mark, which a clean must name anew; `unproven` are extents whose
 * stored checksums prove nothing because the daemon restarted.
 */
import assert from 'node:assert';
import { EXTENTS_PER_REGION } from '../../common/units.js';

export const REGION_CLEAN = 0;
export const REGION_MARKING = 1;
export const REGION_DIRTY = 2;
export const REGION_CLEANING = 3;

const WORDS = EXTENTS_PER_REGION / 32;
assert(WORDS === 2);

export class DirtyRegions {
  readonly count: number;
  /** one of the four states, by region; read by the hot path */
  readonly state: Uint8Array;
  /** writes, trims and zeroes in flight, by region */
  readonly inFlight: Uint32Array;
  readonly #written: Uint32Array;
  readonly #unproven: Uint32Array;
  /** resolves when a region leaves marking or cleaning */
  readonly #changes = new Map<number, Promise<void>>();
  /** in cleaning without a mark */
  readonly #unmarked = new Set<number>();
  /** dirty since before this start of the daemon */
  readonly #inherited = new Set<number>();
  #dirtyCount = 0;

  constructor(extents: number) {
    this.count = Math.ceil(extents / EXTENTS_PER_REGION);
    this.state = new Uint8Array(this.count);
    this.inFlight = new Uint32Array(this.count);
    this.#written = new Uint32Array(this.count * WORDS);
    this.#unproven = new Uint32Array(this.count * WORDS);
  }

  /** A mark that was found at open. @param proven the replica was closed in order: its checksums
   *  are true */
  inherit(region: number, proven: boolean): void {
    assert(this.state[region] === REGION_CLEAN);
    this.state[region] = REGION_DIRTY;
    this.#dirtyCount += 1;
    this.#inherited.add(region);
    for (let word = 0; word < WORDS; word += 1) {
      this.#written[region * WORDS + word] = 0xffffffff;
      if (!proven) this.#unproven[region * WORDS + word] = 0xffffffff;
    }
  }

  get inheritedCount(): number {
    return this.#inherited.size;
  }

  isInherited(region: number): boolean {
    return this.#inherited.has(region);
  }

  get dirtyCount(): number {
    return this.#dirtyCount;
  }

  /** With a mark that is or may be durable, ascending. */
  numbers(): number[] {
    const numbers: number[] = [];
    for (let region = 0; region < this.count; region += 1) {
      if (this.isMarked(region)) numbers.push(region);
    }
    return numbers;
  }

  /** Whether the region has a mark that is or may be durable. */
  isMarked(region: number): boolean {
    return this.state[region] !== REGION_CLEAN && !this.#unmarked.has(region);
  }

  /** What to wait for before the state is looked at again. */
  change(region: number): Promise<void> | undefined {
    return this.#changes.get(region);
  }

  beginMark(region: number, done: Promise<void>): void {
    assert(this.state[region] === REGION_CLEAN);
    this.state[region] = REGION_MARKING;
    this.#changes.set(region, done);
  }

  endMark(region: number): void {
    assert(this.state[region] === REGION_MARKING);
    this.state[region] = REGION_DIRTY;
    this.#dirtyCount += 1;
    this.#changes.delete(region);
  }

  beginClean(region: number, done: Promise<void>): void {
    const state = this.state[region];
    assert((state === REGION_DIRTY || state === REGION_CLEAN) && this.inFlight[region] === 0);
    if (state === REGION_CLEAN) this.#unmarked.add(region);
    this.state[region] = REGION_CLEANING;
    this.#changes.set(region, done);
  }

  /** @param cleaned false: nothing was stored, the region is as before */
  endClean(region: number, cleaned: boolean): void {
    assert(this.state[region] === REGION_CLEANING);
    this.#changes.delete(region);
    if (this.#unmarked.delete(region)) {
      this.state[region] = REGION_CLEAN;
      return;
    }
    this.state[region] = cleaned ? REGION_CLEAN : REGION_DIRTY;
    if (!cleaned) return;
    this.#dirtyCount -= 1;
    this.#inherited.delete(region);
    for (let word = 0; word < WORDS; word += 1) {
      this.#written[region * WORDS + word] = 0;
      this.#unproven[region * WORDS + word] = 0;
    }
  }

  noteWritten(extent: number): void {
    const word = extent >>> 5;
    this.#written[word] = (this.#written[word] ?? 0) | (1 << (extent & 31));
  }

  /** Extents written since the mark, ascending; some may be past the end of the volume. */
  written(region: number): number[] {
    return extentsIn(this.#written, region);
  }

  /** Extents whose checksums prove nothing yet, ascending; some may not exist. */
  unproven(region: number): number[] {
    return extentsIn(this.#unproven, region);
  }

  isUnproven(extent: number): boolean {
    return ((this.#unproven[extent >>> 5] ?? 0) & (1 << (extent & 31))) !== 0;
  }

  noteProven(extent: number): void {
    const word = extent >>> 5;
    this.#unproven[word] = (this.#unproven[word] ?? 0) & ~(1 << (extent & 31));
  }
}

function extentsIn(bits: Uint32Array, region: number): number[] {
  const extents: number[] = [];
  const first = region * EXTENTS_PER_REGION;
  for (let extent = first; extent < first + EXTENTS_PER_REGION; extent += 1) {
    if (((bits[extent >>> 5] ?? 0) & (1 << (extent & 31))) !== 0) extents.push(extent);
  }
  return extents;
}
