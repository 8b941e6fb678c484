/** Recent read latencies in logarithmic buckets: cheap to record, good enough for a percentile. */

const BUCKETS = 32;
/** Counts are halved past this: what was long ago fades. */
const SAMPLES_MAX = 4096;

export class ReadLatency {
  /** bucket n: [2^n, 2^(n+1)) units of 16 us */
  readonly #counts = new Uint32Array(BUCKETS);
  #samples = 0;

  get samples(): number {
    return this.#samples;
  }

  note(elapsedMs: number): void {
    const units = Math.max(1, Math.floor(elapsedMs * 62.5));
    const bucket = Math.min(BUCKETS - 1, 31 - Math.clz32(units));
    this.#counts[bucket] = (this.#counts[bucket] ?? 0) + 1;
    this.#samples += 1;
    if (this.#samples > SAMPLES_MAX) this.#fade();
  }

  /** Milliseconds that `part` of the reads stayed below, rounded up to a bucket; undefined with too
   *  few reads to say. */
  percentile(part: number): number | undefined {
    if (this.#samples < 100) return undefined;
    let left = this.#samples * part;
    for (let bucket = 0; bucket < BUCKETS; bucket += 1) {
      left -= this.#counts[bucket] ?? 0;
      if (left <= 0) return 2 ** (bucket + 1) / 62.5;
    }
    return 2 ** BUCKETS / 62.5;
  }

  #fade(): void {
    this.#samples = 0;
    for (let bucket = 0; bucket < BUCKETS; bucket += 1) {
      const half = (this.#counts[bucket] ?? 0) >>> 1;
      this.#counts[bucket] = half;
      this.#samples += half;
    }
  }
}
