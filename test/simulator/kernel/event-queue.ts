/** Events by time, then by the order in which they were asked for: a binary heap. */
import type { SimProcess } from './sim-process.js';

export class SimEvent {
  cancelled = false;

  constructor(
    readonly timeMs: number,
    readonly order: number,
    /** whose code runs; undefined: the world's, which nothing stops */
    readonly owner: SimProcess | undefined,
    readonly callback: () => void,
  ) {}

  cancel(): void {
    this.cancelled = true;
  }
}

const isBefore = (a: SimEvent, b: SimEvent): boolean =>
  a.timeMs < b.timeMs || (a.timeMs === b.timeMs && a.order < b.order);

export class EventQueue {
  readonly #heap: SimEvent[] = [];

  get size(): number {
    return this.#heap.length;
  }

  push(event: SimEvent): void {
    const heap = this.#heap;
    let at = heap.length;
    while (at > 0) {
      const up = (at - 1) >>> 1;
      const parent = heap[up] as SimEvent;
      if (isBefore(parent, event)) break;
      heap[at] = parent;
      at = up;
    }
    heap[at] = event;
  }

  pop(): SimEvent | undefined {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (first === undefined || last === undefined || first === last) return first;
    let at = 0;
    for (;;) {
      let down = 2 * at + 1;
      if (down >= heap.length) break;
      const right = heap[down + 1];
      if (right !== undefined && isBefore(right, heap[down] as SimEvent)) down += 1;
      const child = heap[down] as SimEvent;
      if (isBefore(last, child)) break;
      heap[at] = child;
      at = down;
    }
    heap[at] = last;
    return first;
  }
}
