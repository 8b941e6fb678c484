/**
 * Memory for requests that were read from /dev/fuse and are not answered yet.
 *
 * Each read of /dev/fuse must offer room for the largest request, but most requests are small. So
 * requests are packed one behind the other into slabs. Invariants:
 * - bytes of a request stay untouched until its last holder released the slab (the request
 *   itself, and the socket while it sends from the bytes): memory of a write that is still being
 *   sent is never given to another request;
 * - a slab is reused only when nobody holds any part of it;
 * - never more than `slabsMax` slabs exist: when all are held, `reserve` answers undefined and
 *   reading stops.
 */
import assert from 'node:assert';
import { roundUp } from '../../common/units.js';

const REQUEST_ALIGNMENT = 64;

/** One piece of memory and the number of its holders. */
export class Slab {
  cursor = 0;
  holders = 0;

  constructor(
    readonly bytes: Buffer,
    private readonly arena: RequestArena,
  ) {}

  hold(): void {
    this.holders += 1;
  }

  release(): void {
    assert(this.holders > 0, 'slab released more often than held');
    this.holders -= 1;
    if (this.holders === 0) this.arena.onIdle(this);
  }
}

export class RequestArena {
  readonly #reserveBytes: number;
  readonly #slabBytes: number;
  readonly #slabsMax: number;
  readonly #idle: Slab[] = [];
  #slabCount = 0;
  #current: Slab | undefined;
  #waiter: (() => void) | undefined;

  /** @param options.reserveBytes room that `reserve` hands out; a slab holds at least one of it */
  constructor(options: { reserveBytes: number; slabBytes: number; slabsMax: number }) {
    assert(options.slabBytes >= options.reserveBytes && options.slabsMax >= 2);
    this.#reserveBytes = options.reserveBytes;
    this.#slabBytes = options.slabBytes;
    this.#slabsMax = options.slabsMax;
  }

  /** Slabs that somebody holds; for tests and status. */
  get slabsHeld(): number {
    return this.#slabCount - this.#idle.length - (this.#current?.holders === 0 ? 1 : 0);
  }

  /** Room for the next request, or undefined when all memory is held (then await `whenFree`). */
  reserve(): Buffer | undefined {
    let slab = this.#current;
    // Starting over keeps small loads in the CPU's cache. Only here: while a read is pending, the
    // room that was reserved for it lies at the cursor.
    if (slab?.holders === 0) slab.cursor = 0;
    if (slab === undefined || slab.cursor + this.#reserveBytes > this.#slabBytes) {
      slab = this.#nextSlab();
      if (slab === undefined) return undefined;
      this.#current = slab;
    }
    return slab.bytes.subarray(slab.cursor, slab.cursor + this.#reserveBytes);
  }

  /** The first `lengthBytes` of the last `reserve` are a request now. The caller holds the slab
   *  once. */
  take(lengthBytes: number): Slab {
    const slab = this.#current;
    assert(slab !== undefined && lengthBytes <= this.#reserveBytes);
    slab.cursor += roundUp(lengthBytes, REQUEST_ALIGNMENT);
    slab.hold();
    return slab;
  }

  /** Resolves when `reserve` is worth another try. One caller at a time. */
  whenFree(): Promise<void> {
    assert(this.#waiter === undefined);
    return new Promise((resolve) => {
      this.#waiter = resolve;
    });
  }

  /** For Slab only: nobody holds it any more. */
  onIdle(slab: Slab): void {
    if (slab !== this.#current) {
      slab.cursor = 0;
      this.#idle.push(slab);
    }
    const wake = this.#waiter;
    this.#waiter = undefined;
    wake?.();
  }

  #nextSlab(): Slab | undefined {
    const idle = this.#idle.pop();
    if (idle !== undefined) return idle;
    if (this.#slabCount === this.#slabsMax) {
      // The full current slab must come back by way of the idle list.
      this.#current = undefined;
      return undefined;
    }
    this.#slabCount += 1;
    return new Slab(Buffer.allocUnsafeSlow(this.#slabBytes), this);
  }
}
