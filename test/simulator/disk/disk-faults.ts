/** What a simulated disk does wrong. */
import type { ErrnoName } from '../../../common/errors.js';
import type { Random } from '../kernel/random.js';

export type DiskOp = 'read' | 'write' | 'flush' | 'zeroes' | 'discard';

/** What became of writes that no flush covered: all there, all gone, each page there or gone, or
 *  cut at any 512-byte sector. */
export type Fate = 'kept' | 'dropped' | 'subset' | 'torn';

/** A fault lasts until it is taken away, or for `count` operations. */
export interface DiskFault {
  readonly ops: ReadonlySet<DiskOp>;
  /** part of the matching operations that fail */
  readonly rate: number;
  count: number;
  readonly effect:
    | { readonly kind: 'error'; readonly errno: ErrnoName }
    /** reports success and does nothing (scenario 48) */
    | { readonly kind: 'lost' }
    /** reports success and writes elsewhere (scenario 47) */
    | { readonly kind: 'misdirected' };
}

export class DiskFaults {
  readonly #random: Random;
  readonly #faults = new Set<DiskFault>();
  /** factor on the time of everything, and what each operation takes at least */
  slowness = 1;
  stallUntilMs = 0;
  flushStallUntilMs = 0;
  /** part of the operations that take ten seconds (scenario 20) */
  hangRate = 0;
  /** nothing works any more (scenario 44) */
  gone = false;

  constructor(random: Random) {
    this.#random = random;
  }

  /** @returns takes it away */
  add(fault: Omit<DiskFault, 'ops'> & { readonly ops: readonly DiskOp[] }): () => void {
    const armed = { ...fault, ops: new Set(fault.ops) };
    this.#faults.add(armed);
    return () => this.#faults.delete(armed);
  }

  /** The effect on one operation that begins now. */
  effectOn(op: DiskOp): DiskFault['effect'] | undefined {
    if (this.gone) return { kind: 'error', errno: 'EIO' };
    for (const fault of this.#faults) {
      if (!fault.ops.has(op) || !this.#random.chance(fault.rate)) continue;
      fault.count -= 1;
      if (fault.count <= 0) this.#faults.delete(fault);
      return fault.effect;
    }
    return undefined;
  }

  /** How long an operation takes that begins now. */
  latencyMs(nowMs: number, op: DiskOp, usualMs: number): number {
    let latency = this.#random.exponential(usualMs) * this.slowness;
    if (this.#random.chance(this.hangRate)) latency += 10_000;
    const until = op === 'flush' ? this.flushStallUntilMs : 0;
    return latency + Math.max(0, Math.max(until, this.stallUntilMs) - nowMs);
  }
}
