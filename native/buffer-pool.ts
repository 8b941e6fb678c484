/**
 * Aligned memory outside the JavaScript heap, in size classes, for direct I/O.
 *
 * Each class cuts its chunks into slots of one size. Chunks that have been idle for a while give
 * their pages back to the system and keep only their addresses. Every slot knows whether it is held
 * and how many operations borrow it, so that a double release, or a release during an operation, is
 * found at once and not as corrupt data.
 */
import assert from 'node:assert';
import type { AlignedBuffer, BufferPool } from '../common/block-device.js';
import { type Clock, SystemClock, type Timer } from '../common/clock.js';
import { StorageError } from '../common/errors.js';
import { KIB, MIB, roundUp } from '../common/units.js';
import { addon } from './addon.js';
import { errnoName } from './errno.js';

/** Largest single buffer. */
export const BUFFER_BYTES_MAX = 4 * MIB;

const PAGE = 4 * KIB;
/** In pages. Steps of a third to a half: at most a third of a slot is wasted. */
const CLASS_PAGES = [
  1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024,
];
const SMALL_CHUNK_BYTES = MIB;
const LARGE_CHUNK_BYTES = 4 * MIB;
/** A chunk that was idle for one to two of these loses its pages. */
const IDLE_PERIOD_MS = 1000;
const POISON = 0xdb;

/** Class number by number of pages. */
const CLASS_OF_PAGES = new Uint8Array(BUFFER_BYTES_MAX / PAGE + 1);
for (let pages = 1; pages < CLASS_OF_PAGES.length; pages++) {
  CLASS_OF_PAGES[pages] = CLASS_PAGES.findIndex((size) => size >= pages);
}

function debugBuffers(): boolean {
  return process.env['AUROCHS_DEBUG_BUFFERS'] === '1' || process.env['VITEST'] !== undefined;
}

let poisonPattern: Buffer | undefined;

function poisonBytes(lengthBytes: number): Buffer {
  poisonPattern ??= Buffer.alloc(BUFFER_BYTES_MAX, POISON);
  return poisonPattern.subarray(0, lengthBytes);
}

/** One mapping, cut into slots. */
export class Chunk {
  readonly id: number;
  readonly memory: ArrayBuffer;
  readonly #free: Uint16Array;
  #freeCount: number;
  readonly #held: Uint8Array;
  readonly #borrows: Uint16Array;
  readonly #poisoned: Uint8Array;
  readonly #views: Array<Buffer | undefined>;
  /** Pages may be resident. */
  touched = false;
  /** Period of the pool in which the last slot came back. */
  idleSince = 0;

  constructor(
    readonly slotBytes: number,
    readonly slots: number,
  ) {
    const made = addon.createChunk(slotBytes * slots);
    if (typeof made === 'number') {
      throw new StorageError('OVERLOADED', `no memory for I/O buffers: ${errnoName(made)}`);
    }
    this.id = made.id;
    this.memory = made.memory;
    this.#free = Uint16Array.from({ length: slots }, (_, index) => slots - 1 - index);
    this.#freeCount = slots;
    this.#held = new Uint8Array(slots);
    this.#borrows = new Uint16Array(slots);
    this.#poisoned = new Uint8Array(slots);
    this.#views = new Array<Buffer | undefined>(slots).fill(undefined);
  }

  get full(): boolean {
    return this.#freeCount === 0;
  }

  get idle(): boolean {
    return this.#freeCount === this.slots;
  }

  take(): number {
    const slot = this.#free[--this.#freeCount] as number;
    this.#held[slot] = 1;
    this.touched = true;
    if (this.#poisoned[slot] === 1) this.#checkPoison(slot);
    return slot;
  }

  view(slot: number, lengthBytes: number): Buffer {
    const last = this.#views[slot];
    if (last !== undefined && last.length === lengthBytes) return last;
    const made = Buffer.from(this.memory, slot * this.slotBytes, lengthBytes);
    this.#views[slot] = made;
    return made;
  }

  give(slot: number, poison: boolean): void {
    assert(this.#held[slot] === 1, `release of slot ${slot}, which nobody holds`);
    assert(this.#borrows[slot] === 0, 'release of a buffer while an operation uses it');
    this.#held[slot] = 0;
    if (poison) {
      this.#poisoned[slot] = 1;
      this.#whole(slot).fill(POISON);
    }
    this.#free[this.#freeCount++] = slot;
  }

  /** The device starts to use the bytes. Asserts that they lie in one held slot.
   *  @returns the slot */
  borrow(view: Buffer): number {
    const offset = view.byteOffset;
    const slot = Math.floor(offset / this.slotBytes);
    assert(this.#held[slot] === 1, 'operation on a buffer that was released');
    assert(offset + view.length <= (slot + 1) * this.slotBytes, 'view passes its buffer');
    (this.#borrows[slot] as number) += 1;
    return slot;
  }

  giveBack(slot: number): void {
    assert((this.#borrows[slot] as number) > 0);
    (this.#borrows[slot] as number) -= 1;
  }

  /** Frees the pages of a chunk that is idle. */
  forget(): void {
    assert(this.idle);
    const status = addon.forgetPages(this.id);
    if (status !== 0) return; // a little memory more, nothing worse
    this.touched = false;
    this.#poisoned.fill(0);
  }

  #whole(slot: number): Buffer {
    return Buffer.from(this.memory, slot * this.slotBytes, this.slotBytes);
  }

  #checkPoison(slot: number): void {
    this.#poisoned[slot] = 0;
    const intact = this.#whole(slot).equals(poisonBytes(this.slotBytes));
    assert(intact, 'a buffer was written to after its release');
  }
}

// By memory, so that a device finds the chunk of any view.
const chunks = new WeakMap<ArrayBufferLike, Chunk>();

/** The chunk that a view of pool memory lies in. Asserts that it is pool memory of this thread. */
export function chunkOf(view: Buffer): Chunk {
  const chunk = chunks.get(view.buffer);
  assert(chunk !== undefined, 'the memory of disk I/O must come from a BufferPool');
  return chunk;
}

class PoolBuffer implements AlignedBuffer {
  readonly bytes: Buffer;
  readonly #pool: NativeBufferPool;
  readonly #chunk: Chunk;
  readonly #slot: number;
  #released = false;

  constructor(pool: NativeBufferPool, chunk: Chunk, slot: number, lengthBytes: number) {
    this.#pool = pool;
    this.#chunk = chunk;
    this.#slot = slot;
    this.bytes = chunk.view(slot, lengthBytes);
  }

  release(): void {
    assert(!this.#released, 'second release of a buffer');
    this.#pool.give(this.#chunk, this.#slot, this.bytes.length);
    this.#released = true;
  }
}

/** Chunks of one slot size; `at` is the first that may have a free slot, so that the later ones run
 *  empty. */
class SizeClass {
  readonly chunks: Chunk[] = [];
  readonly index = new Map<Chunk, number>();
  at = 0;

  constructor(readonly slotBytes: number) {}

  find(): Chunk | undefined {
    for (; this.at < this.chunks.length; this.at++) {
      const chunk = this.chunks[this.at] as Chunk;
      if (!chunk.full) return chunk;
    }
    return undefined;
  }

  grow(): Chunk {
    const target = this.slotBytes <= 64 * KIB ? SMALL_CHUNK_BYTES : LARGE_CHUNK_BYTES;
    const chunk = new Chunk(this.slotBytes, Math.max(1, Math.floor(target / this.slotBytes)));
    chunks.set(chunk.memory, chunk);
    this.index.set(chunk, this.chunks.length);
    this.at = this.chunks.length;
    this.chunks.push(chunk);
    return chunk;
  }

  /** A slot of the chunk came back. */
  noteFree(chunk: Chunk): void {
    const index = this.index.get(chunk) as number;
    if (index < this.at) this.at = index;
  }
}

/** @see createBufferPool */
export class NativeBufferPool implements BufferPool {
  readonly limitBytes: number;
  readonly #clock: Clock;
  readonly #debug = debugBuffers();
  readonly #classes = CLASS_PAGES.map((pages) => new SizeClass(pages * PAGE));
  #usedBytes = 0;
  #period = 0;
  #timer: Timer | undefined;

  constructor(options: { limitBytes: number; clock?: Clock }) {
    assert(Number.isSafeInteger(options.limitBytes) && options.limitBytes > 0);
    this.limitBytes = options.limitBytes;
    this.#clock = options.clock ?? new SystemClock();
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Memory that may be resident now: slots in use and chunks not given back yet. */
  get touchedBytes(): number {
    let bytes = 0;
    for (const chunk of this.#allChunks()) if (chunk.touched) bytes += chunk.memory.byteLength;
    return bytes;
  }

  acquire(lengthBytes: number): AlignedBuffer {
    const whole = Number.isSafeInteger(lengthBytes);
    assert(whole && lengthBytes > 0 && lengthBytes <= BUFFER_BYTES_MAX, `${lengthBytes} bytes`);
    if (this.#usedBytes + lengthBytes > this.limitBytes) {
      throw new StorageError(
        'OVERLOADED',
        `buffer of ${lengthBytes} passes the limit: ${this.#usedBytes} of ${this.limitBytes} used`,
      );
    }
    const sizeClass = this.#classOf(lengthBytes);
    const chunk = sizeClass.find() ?? this.#grow(sizeClass);
    const buffer = new PoolBuffer(this, chunk, chunk.take(), lengthBytes);
    this.#usedBytes += lengthBytes;
    return buffer;
  }

  /** For PoolBuffer only. */
  give(chunk: Chunk, slot: number, lengthBytes: number): void {
    chunk.give(slot, this.#debug);
    this.#usedBytes -= lengthBytes;
    this.#classOf(lengthBytes).noteFree(chunk);
    if (!chunk.idle) return;
    chunk.idleSince = this.#period;
    this.#timer ??= this.#clock.after(IDLE_PERIOD_MS, this.#onPeriod, { background: true });
  }

  #classOf(lengthBytes: number): SizeClass {
    const pages = roundUp(lengthBytes, PAGE) / PAGE;
    return this.#classes[CLASS_OF_PAGES[pages] as number] as SizeClass;
  }

  // Memory moves between classes only through the system, so idle chunks must not pile up beyond
  // the limit.
  #grow(sizeClass: SizeClass): Chunk {
    if (this.touchedBytes > this.limitBytes) {
      for (const chunk of this.#allChunks()) if (chunk.touched && chunk.idle) chunk.forget();
    }
    return sizeClass.grow();
  }

  readonly #onPeriod = (): void => {
    this.#timer = undefined;
    let more = false;
    for (const chunk of this.#allChunks()) {
      if (!chunk.touched || !chunk.idle) continue;
      if (chunk.idleSince < this.#period) chunk.forget();
      else more = true;
    }
    this.#period += 1;
    if (!more) return;
    this.#timer = this.#clock.after(IDLE_PERIOD_MS, this.#onPeriod, { background: true });
  };

  *#allChunks(): Generator<Chunk> {
    for (const sizeClass of this.#classes) yield* sizeClass.chunks;
  }
}
