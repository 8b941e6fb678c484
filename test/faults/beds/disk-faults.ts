/** What goes wrong on a disk, as rules: which operations, how often, and what happens to them.
 *  Pure. */
import type { SeededRandom } from '../../engine/nbd/seeded-random.js';

export type DiskOp = 'read' | 'write' | 'trim' | 'flush';

export type Mishap =
  /** fails; a write may be there in part, what a flush covered may be lost */
  | { readonly kind: 'error'; readonly errno: 'EIO' | 'ENOSPC' }
  /** takes longer */
  | { readonly kind: 'delay'; readonly ms: number }
  /** is not answered until the hang is ended */
  | { readonly kind: 'hang' }
  /** answered as done, nothing was written (scenario 48) */
  | { readonly kind: 'lost' }
  /** written, but so many bytes further on (scenario 47) */
  | { readonly kind: 'misplaced'; readonly byBytes: number };

export interface DiskFault {
  readonly ops: readonly DiskOp[];
  readonly mishap: Mishap;
  /** matching operations that pass first; default 0 */
  readonly skip?: number;
  /** operations that it befalls; default: all */
  readonly count?: number;
  /** of those, one in so many, by seed; default 1 */
  readonly oneIn?: number;
  /** only operations that touch this range */
  readonly range?: { readonly offsetBytes: number; readonly lengthBytes: number };
}

export interface DiskOperation {
  readonly op: DiskOp;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

interface ArmedFault {
  readonly fault: DiskFault;
  skip: number;
  left: number;
}

/** The faults that are armed. The first one that befalls an operation counts. */
export class DiskFaults {
  readonly #armed = new Map<number, ArmedFault>();
  #nextId = 1;

  constructor(readonly random: SeededRandom) {}

  /** @returns an id to disarm it */
  arm(fault: DiskFault): number {
    const id = this.#nextId;
    this.#nextId += 1;
    const left = fault.count ?? Number.POSITIVE_INFINITY;
    this.#armed.set(id, { fault, skip: fault.skip ?? 0, left });
    return id;
  }

  disarm(id: number): void {
    this.#armed.delete(id);
  }

  disarmAll(): void {
    this.#armed.clear();
  }

  /** What happens to this operation; undefined: nothing. */
  befall(operation: DiskOperation): Mishap | undefined {
    for (const [id, armed] of this.#armed) {
      const { fault } = armed;
      if (!touches(fault, operation)) continue;
      if (armed.skip > 0) {
        armed.skip -= 1;
        continue;
      }
      if (fault.oneIn !== undefined && this.random.below(fault.oneIn) !== 0) continue;
      armed.left -= 1;
      if (armed.left <= 0) this.#armed.delete(id);
      return fault.mishap;
    }
    return undefined;
  }
}

function touches(fault: DiskFault, operation: DiskOperation): boolean {
  if (!fault.ops.includes(operation.op)) return false;
  if (fault.range === undefined) return true;
  const { offsetBytes, lengthBytes } = fault.range;
  const end = operation.offsetBytes + operation.lengthBytes;
  return operation.offsetBytes < offsetBytes + lengthBytes && end > offsetBytes;
}
