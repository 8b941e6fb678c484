/** Reproducible randomness: AUROCHS_SEED replays a run, every failure names its seed. */
export class SeededRandom {
  #state: number;

  constructor(readonly seed: number) {
    this.#state = seed >>> 0;
  }

  /** The seed of this process's run. */
  static runSeed(): number {
    const given = Number(process.env['AUROCHS_SEED'] ?? Number.NaN);
    return Number.isSafeInteger(given) ? given : Math.floor(Math.random() * 2 ** 31);
  }

  /** mulberry32: integer in [0, limit) */
  below(limit: number): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * limit);
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T;
  }

  chance(percent: number): boolean {
    return this.below(100) < percent;
  }

  bytes(lengthBytes: number): Buffer {
    const bytes = Buffer.allocUnsafe(lengthBytes);
    for (let at = 0; at < lengthBytes; at += 1) bytes[at] = this.below(256);
    return bytes;
  }
}
