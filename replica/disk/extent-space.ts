/**
 * Which physical extents are in use, and which of the free ones are known to hold zeroes.
 *
 * Every extent is in one of four states: used; freed (its freeing is not durable yet, P9); unknown
 * (free, but may hold old bytes); zeroed (free, and durably zero). Only zeroed ones are given out,
 * so that neither a lost write nor a bug elsewhere ever shows the bytes of a former owner. Pure
 * bookkeeping, two bits per extent.
 */
import assert from 'node:assert';
import { anySet, bitIsSet, clearBits, runEnd, setBits } from '../../common/bitmap.js';

export interface ExtentRun {
  readonly first: number;
  readonly count: number;
}

export class ExtentSpace {
  readonly extents: number;
  /** used or freed */
  readonly #taken: Uint8Array;
  readonly #zeroed: Uint8Array;
  #takenCount = 0;
  #zeroedCount = 0;
  #takeHint = 0;
  #unknownHint = 0;

  constructor(extents: number) {
    assert(Number.isSafeInteger(extents) && extents > 0);
    this.extents = extents;
    const bytes = Math.ceil(extents / 8);
    this.#taken = new Uint8Array(bytes);
    this.#zeroed = new Uint8Array(bytes);
  }

  get takenCount(): number {
    return this.#takenCount;
  }

  get freeCount(): number {
    return this.extents - this.#takenCount;
  }

  get zeroedCount(): number {
    return this.#zeroedCount;
  }

  get unknownCount(): number {
    return this.freeCount - this.#zeroedCount;
  }

  /** For the scan at open; false if it is taken already. */
  claim(physical: number): boolean {
    assert(physical >= 0 && physical < this.extents);
    if (bitIsSet(this.#taken, 0, physical)) return false;
    setBits(this.#taken, 0, physical, 1);
    this.#takenCount += 1;
    return true;
  }

  /** A zeroed extent, now used; near the last one, so that sequential writes stay sequential. */
  take(): number | undefined {
    if (this.#zeroedCount === 0) return undefined;
    const physical = this.#findZeroed();
    clearBits(this.#zeroed, 0, physical, 1);
    setBits(this.#taken, 0, physical, 1);
    this.#zeroedCount -= 1;
    this.#takenCount += 1;
    this.#takeHint = physical + 1;
    return physical;
  }

  /** Takes back what was taken and never written. */
  untake(physical: number): void {
    this.release(physical);
    this.markZeroed({ first: physical, count: 1 });
  }

  /** A used or freed extent becomes unknown. The caller knows that its freeing is durable. */
  release(physical: number): void {
    assert(bitIsSet(this.#taken, 0, physical), `extent ${physical} is released but not taken`);
    clearBits(this.#taken, 0, physical, 1);
    this.#takenCount -= 1;
    this.#unknownHint = Math.min(this.#unknownHint, physical);
  }

  /** A run of unknown extents, at most `countMax`; undefined if there is none. */
  nextUnknown(countMax: number): ExtentRun | undefined {
    if (this.unknownCount === 0) return undefined;
    for (let at = this.#unknownHint; at < this.extents; ) {
      const taken = bitIsSet(this.#taken, 0, at);
      const end = runEnd(this.#taken, 0, at, this.extents);
      if (!taken) {
        for (let from = at; from < end; ) {
          const zeroedEnd = runEnd(this.#zeroed, 0, from, end);
          if (!bitIsSet(this.#zeroed, 0, from)) {
            this.#unknownHint = from;
            return { first: from, count: Math.min(zeroedEnd - from, countMax) };
          }
          from = zeroedEnd;
        }
      }
      at = end;
    }
    throw new Error('unreachable: the count says that there is an unknown extent');
  }

  /** Unknown extents were zeroed and the device flushed. */
  markZeroed(run: ExtentRun): void {
    assert(!anySet(this.#taken, 0, run.first, run.count), 'a taken extent was zeroed');
    assert(!anySet(this.#zeroed, 0, run.first, run.count));
    setBits(this.#zeroed, 0, run.first, run.count);
    this.#zeroedCount += run.count;
  }

  #findZeroed(): number {
    for (const [from, end] of [
      [this.#takeHint, this.extents],
      [0, this.#takeHint],
    ] as const) {
      for (let at = from; at < end; at = runEnd(this.#zeroed, 0, at, end)) {
        if (bitIsSet(this.#zeroed, 0, at)) return at;
      }
    }
    throw new Error('unreachable: the count says that there is a zeroed extent');
  }
}
