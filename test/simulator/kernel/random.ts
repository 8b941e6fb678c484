/** Chance that a seed repeats: sfc32, with independent streams by name. */
import assert from 'node:assert';

export class Random {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;
  readonly #seed: number;

  constructor(seed: number) {
    this.#seed = seed >>> 0;
    this.#a = this.#seed;
    this.#b = Math.imul(this.#seed, 0x9e3779b1) >>> 0;
    this.#c = ~this.#seed >>> 0;
    for (let n = 0; n < 12; n += 1) this.next();
  }

  /** A stream of its own: what is drawn from one changes nothing in the other. */
  fork(name: string): Random {
    let hash = this.#seed ^ 0x811c9dc5;
    for (let at = 0; at < name.length; at += 1) {
      hash = Math.imul(hash ^ name.charCodeAt(at), 0x01000193);
    }
    return new Random(hash);
  }

  /** In [0, 1). */
  next(): number {
    return this.uint32() / 2 ** 32;
  }

  uint32(): number {
    const sum = (this.#a + this.#b + this.#counter) >>> 0;
    this.#counter = (this.#counter + 1) >>> 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) >>> 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) >>> 0;
    return sum;
  }

  /** A whole number in [0, end). */
  int(end: number): number {
    return Math.floor(this.next() * end);
  }

  between(from: number, to: number): number {
    return from + this.next() * (to - from);
  }

  chance(probability: number): boolean {
    return probability > 0 && this.next() < probability;
  }

  /** Exponential with this mean, cut at twenty times of it. */
  exponential(mean: number): number {
    return Math.min(20, -Math.log(1 - this.next())) * mean;
  }

  pick<T>(items: readonly T[]): T {
    assert(items.length > 0);
    return items[this.int(items.length)] as T;
  }

  /** Lower-case hexadecimal digits. */
  hex(lengthBytes: number): string {
    return this.bytes(lengthBytes).toString('hex');
  }

  bytes(lengthBytes: number): Buffer {
    const bytes = Buffer.alloc(lengthBytes);
    for (let at = 0; at < lengthBytes; at += 1) bytes[at] = this.uint32() & 0xff;
    return bytes;
  }
}
