/**
 * The ranges of one replica that may differ from the other members after its engine died.
 *
 * Two parts:
 * - current: writes, trims and zeroes of the opened epoch whose id is above the
 *   acknowledged-through number that the engine last sent. Ids grow over the whole epoch, also when
 *   its stream is replaced, so a later stream's number covers what an earlier stream of the same
 *   epoch left behind.
 * - inherited: what was current when a higher epoch was opened. Ids of another epoch never cover
 *   these. They go only by `forgetInherited`, which the session calls when the opened epoch's
 *   engine stores a membership record of its own epoch: by contract it does so for the first time
 *   after it made these ranges equal and flushed on all members (P5). Until then every further
 *   epoch is handed them again (R2).
 *
 * Memory is bounded: past `entriesMax` exact entries the oldest become whole regions, past
 * `regionsMax` regions the whole volume. Both only add ranges, so the answer always covers what may
 * differ.
 */
import assert from 'node:assert';
import { BLOCK_SIZE, REGION_SIZE, roundDown, roundUp } from '../../common/units.js';

/** Half open in meaning: [offsetBytes, offsetBytes + lengthBytes), whole blocks. */
export interface WindowRange {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

export interface InFlightWindowOptions {
  readonly volumeSizeBytes: number;
  /** exact entries kept; default 16384 (24 bytes each) */
  readonly entriesMax?: number;
  /** regions kept once entries overflow; default 4096 */
  readonly regionsMax?: number;
}

export class InFlightWindow {
  readonly #volumeSizeBytes: number;
  readonly #entriesMax: number;
  readonly #regionsMax: number;
  // A ring that grows to entriesMax: entry i is at (#head + i) % capacity.
  #ids: Float64Array;
  #offsets: Float64Array;
  #lengths: Float64Array;
  #head = 0;
  #count = 0;
  /** Entries that overflowed: region number -> highest id that touched it. */
  readonly #regions = new Map<number, number>();
  /** Highest id once even regions overflowed: the whole volume is in doubt until it is covered. */
  #wholeThrough = -1;
  #ackedThrough = -1;
  #inherited: WindowRange[] = [];

  constructor(options: InFlightWindowOptions) {
    this.#volumeSizeBytes = options.volumeSizeBytes;
    this.#entriesMax = options.entriesMax ?? 16384;
    this.#regionsMax = options.regionsMax ?? 4096;
    assert(this.#entriesMax > 0 && this.#regionsMax > 0);
    const capacity = Math.min(256, this.#entriesMax);
    this.#ids = new Float64Array(capacity);
    this.#offsets = new Float64Array(capacity);
    this.#lengths = new Float64Array(capacity);
  }

  /** Exact entries of the opened epoch. */
  get entryCount(): number {
    return this.#count;
  }

  /** Remembers a change that is about to start. The range was checked against the volume by the
   *  caller. */
  note(id: number, offsetBytes: number, lengthBytes: number): void {
    assert(lengthBytes > 0);
    if (this.#count === this.#ids.length) this.#makeRoom();
    const at = (this.#head + this.#count) % this.#ids.length;
    this.#ids[at] = id;
    this.#offsets[at] = offsetBytes;
    this.#lengths[at] = lengthBytes;
    this.#count += 1;
  }

  /** Every member has acknowledged all ids up to and including `id`: those ranges are equal. */
  ackThrough(id: number): void {
    // While one member is slow the number stands still, batch after batch.
    if (id <= this.#ackedThrough) return;
    this.#ackedThrough = id;
    while (this.#count > 0 && (this.#ids[this.#head] as number) <= id) this.#dropOldest();
    if (this.#regions.size > 0) {
      for (const [region, last] of this.#regions) if (last <= id) this.#regions.delete(region);
    }
    if (this.#wholeThrough <= id) this.#wholeThrough = -1;
  }

  /** A higher epoch was opened: its ids mean something else, so what is current becomes
   *  inherited. */
  beginEpoch(): void {
    this.#inherited = this.#bounded(this.ranges());
    this.#count = 0;
    this.#head = 0;
    this.#regions.clear();
    this.#wholeThrough = -1;
    this.#ackedThrough = -1;
  }

  /** The opened epoch's engine made all inherited ranges equal on all members. */
  forgetInherited(): void {
    this.#inherited = [];
  }

  /** Everything that may differ: ascending, disjoint, not touching, whole blocks inside the
   *  volume. */
  ranges(): WindowRange[] {
    if (this.#wholeThrough >= 0) return [{ offsetBytes: 0, lengthBytes: this.#volumeSizeBytes }];
    const all: WindowRange[] = [...this.#inherited];
    for (let i = 0; i < this.#count; i++) {
      const at = (this.#head + i) % this.#ids.length;
      const start = roundDown(this.#offsets[at] as number, BLOCK_SIZE);
      const end = roundUp(
        (this.#offsets[at] as number) + (this.#lengths[at] as number),
        BLOCK_SIZE,
      );
      all.push({ offsetBytes: start, lengthBytes: end - start });
    }
    for (const region of this.#regions.keys()) {
      const start = region * REGION_SIZE;
      const end = Math.min(start + REGION_SIZE, this.#volumeSizeBytes);
      all.push({ offsetBytes: start, lengthBytes: end - start });
    }
    return mergeRanges(all);
  }

  /** Engines that die again before they recover must not grow the list for ever. */
  #bounded(ranges: WindowRange[]): WindowRange[] {
    if (ranges.length <= this.#entriesMax) return ranges;
    const widened = ranges.map((range) => {
      const start = roundDown(range.offsetBytes, REGION_SIZE);
      const end = roundUp(range.offsetBytes + range.lengthBytes, REGION_SIZE);
      return { offsetBytes: start, lengthBytes: Math.min(end, this.#volumeSizeBytes) - start };
    });
    const merged = mergeRanges(widened);
    if (merged.length <= this.#regionsMax) return merged;
    return [{ offsetBytes: 0, lengthBytes: this.#volumeSizeBytes }];
  }

  #dropOldest(): void {
    this.#head = (this.#head + 1) % this.#ids.length;
    this.#count -= 1;
  }

  #makeRoom(): void {
    const capacity = this.#ids.length;
    if (capacity === this.#entriesMax) {
      this.#coarsenOldest();
      return;
    }
    const next = Math.min(capacity * 2, this.#entriesMax);
    const grow = (old: Float64Array): Float64Array => {
      const grown = new Float64Array(next);
      grown.set(old.subarray(this.#head), 0);
      grown.set(old.subarray(0, this.#head), capacity - this.#head);
      return grown;
    };
    this.#ids = grow(this.#ids);
    this.#offsets = grow(this.#offsets);
    this.#lengths = grow(this.#lengths);
    this.#head = 0;
  }

  #coarsenOldest(): void {
    const id = this.#ids[this.#head] as number;
    const offset = this.#offsets[this.#head] as number;
    const first = Math.floor(offset / REGION_SIZE);
    const last = Math.floor((offset + (this.#lengths[this.#head] as number) - 1) / REGION_SIZE);
    this.#dropOldest();
    if (this.#wholeThrough < 0 && this.#regions.size + (last - first + 1) <= this.#regionsMax) {
      for (let region = first; region <= last; region++) {
        this.#regions.set(region, Math.max(id, this.#regions.get(region) ?? 0));
      }
      return;
    }
    for (const through of this.#regions.values()) {
      this.#wholeThrough = Math.max(this.#wholeThrough, through);
    }
    this.#wholeThrough = Math.max(this.#wholeThrough, id);
    this.#regions.clear();
  }
}

/** Sorted and joined where they overlap or touch. */
function mergeRanges(ranges: WindowRange[]): WindowRange[] {
  ranges.sort((a, b) => a.offsetBytes - b.offsetBytes);
  const merged: WindowRange[] = [];
  let start = -1;
  let end = -1;
  for (const range of ranges) {
    if (range.offsetBytes <= end) {
      end = Math.max(end, range.offsetBytes + range.lengthBytes);
      continue;
    }
    if (start >= 0) merged.push({ offsetBytes: start, lengthBytes: end - start });
    start = range.offsetBytes;
    end = range.offsetBytes + range.lengthBytes;
  }
  if (start >= 0) merged.push({ offsetBytes: start, lengthBytes: end - start });
  return merged;
}
