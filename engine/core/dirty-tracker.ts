/** Which regions were written and when: what the cleaner may clean once they are idle (P2).
 *  Pure. */
import { REGION_SIZE } from '../../common/units.js';

export class DirtyTracker {
  readonly #lastWriteMs = new Map<number, number>();

  get count(): number {
    return this.#lastWriteMs.size;
  }

  /** Notes a change of [offset, offset + length). */
  touch(offsetBytes: number, lengthBytes: number, nowMs: number): void {
    const last = Math.floor((offsetBytes + lengthBytes - 1) / REGION_SIZE);
    for (let region = Math.floor(offsetBytes / REGION_SIZE); region <= last; region += 1) {
      this.#lastWriteMs.set(region, nowMs);
    }
  }

  /** A region that was already dirty when the engine started. */
  add(region: number, nowMs: number): void {
    if (!this.#lastWriteMs.has(region)) this.#lastWriteMs.set(region, nowMs);
  }

  isIdle(region: number, nowMs: number, idleMs: number): boolean {
    const last = this.#lastWriteMs.get(region);
    return last !== undefined && nowMs - last >= idleMs;
  }

  /** Up to `max` regions without a change for `idleMs`. */
  idle(nowMs: number, idleMs: number, max: number): number[] {
    const found: number[] = [];
    for (const [region, last] of this.#lastWriteMs) {
      if (found.length >= max) break;
      if (nowMs - last >= idleMs) found.push(region);
    }
    return found;
  }

  cleaned(region: number): void {
    this.#lastWriteMs.delete(region);
  }
}
