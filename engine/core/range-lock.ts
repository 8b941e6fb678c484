/**
 * Orders overlapping I/O of one volume (rules N1, N3).
 *
 * Invariants
 * - A holder excludes every later request that overlaps it, if one of the two is exclusive.
 * - First come, first served among requests that conflict: no starvation, and no deadlock because
 *   every wait is for an earlier request.
 * - Ranges are whole blocks: two writes to different sectors of one block conflict (both widen to
 *   that block).
 *
 * Requests are filed under every extent they touch; a conflicting pair is counted once, at the
 * first extent that both touch. A 4 KiB request therefore looks at the few requests of one extent
 * only.
 */
import assert from 'node:assert';
import { BLOCK_SIZE, EXTENT_SIZE, roundDown, roundUp } from '../../common/units.js';

/** A place in the queue; hold on to it until `unlock`. */
export class RangeHold {
  /** Undefined when the range is held already; else resolves when it is. */
  ready: Promise<void> | undefined;
  /** earlier conflicting requests that are not unlocked yet */
  blockers = 0;
  grant: (() => void) | undefined;
  released = false;

  constructor(
    readonly startBytes: number,
    readonly endBytes: number,
    readonly exclusive: boolean,
  ) {}
}

function conflicts(a: RangeHold, b: RangeHold): boolean {
  return (a.exclusive || b.exclusive) && a.startBytes < b.endBytes && b.startBytes < a.endBytes;
}

const firstExtent = (hold: RangeHold): number => Math.floor(hold.startBytes / EXTENT_SIZE);
const lastExtent = (hold: RangeHold): number => Math.floor((hold.endBytes - 1) / EXTENT_SIZE);

export class RangeLock {
  readonly #byExtent = new Map<number, RangeHold[]>();
  #count = 0;

  /** Requests that hold or wait. */
  get size(): number {
    return this.#count;
  }

  /** Queues for [offset, offset + length), widened to whole blocks. Held at once if `ready` is
   *  undefined. */
  lock(offsetBytes: number, lengthBytes: number, exclusive: boolean): RangeHold {
    assert(lengthBytes > 0, 'an empty range cannot be locked');
    const start = roundDown(offsetBytes, BLOCK_SIZE);
    const hold = new RangeHold(start, roundUp(offsetBytes + lengthBytes, BLOCK_SIZE), exclusive);
    const last = lastExtent(hold);
    for (let extent = firstExtent(hold); extent <= last; extent += 1) {
      const queue = this.#byExtent.get(extent);
      if (queue === undefined) {
        this.#byExtent.set(extent, [hold]);
        continue;
      }
      for (const other of queue) {
        if (conflicts(other, hold) && this.#countedAt(other, hold) === extent) hold.blockers += 1;
      }
      queue.push(hold);
    }
    this.#count += 1;
    if (hold.blockers > 0) {
      hold.ready = new Promise((resolve) => {
        hold.grant = resolve;
      });
    }
    return hold;
  }

  /** Gives the range up, also when it was still waiting; wakes who waited only for it. */
  unlock(hold: RangeHold): void {
    assert(!hold.released, 'a range is unlocked once');
    hold.released = true;
    this.#count -= 1;
    const last = lastExtent(hold);
    for (let extent = firstExtent(hold); extent <= last; extent += 1) {
      const queue = this.#byExtent.get(extent);
      assert(queue !== undefined, 'a held range is filed under each of its extents');
      const place = queue.indexOf(hold);
      queue.splice(place, 1);
      for (let index = place; index < queue.length; index += 1) {
        const later = queue[index] as RangeHold;
        if (!conflicts(hold, later) || this.#countedAt(hold, later) !== extent) continue;
        later.blockers -= 1;
        if (later.blockers === 0) later.grant?.();
      }
      if (queue.length === 0) this.#byExtent.delete(extent);
    }
  }

  #countedAt(a: RangeHold, b: RangeHold): number {
    return Math.max(firstExtent(a), firstExtent(b));
  }
}
