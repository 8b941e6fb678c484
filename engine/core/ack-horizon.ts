/** How far all changes are decided: the number that tells members which of their in-flight ranges
 *  are equal everywhere. */

export interface Horizoned {
  readonly id: number;
  settled: boolean;
}

export class AckHorizon {
  /** in id order from the oldest open one; the horizon moves over its settled head */
  #open: Horizoned[] = [];
  #head = 0;
  #ackedThrough = 0;
  #waiters: Array<{ readonly id: number; readonly resolve: () => void }> = [];

  /** Every change up to and including this id has its outcome, equal on all members. */
  get ackedThrough(): number {
    return this.#ackedThrough;
  }

  /** A change with an id above all before it. */
  open(op: Horizoned): void {
    op.settled = false;
    this.#open.push(op);
  }

  settle(op: Horizoned): void {
    op.settled = true;
    const open = this.#open;
    let head = this.#head;
    while (head < open.length && (open[head] as Horizoned).settled) {
      this.#ackedThrough = (open[head] as Horizoned).id;
      head += 1;
    }
    if (head === open.length) {
      this.#open = [];
      head = 0;
    } else if (head > 1024) {
      open.splice(0, head);
      head = 0;
    }
    this.#head = head;
    if (this.#waiters.length > 0) this.#wake();
  }

  /** Resolves when every change that is open now has its outcome. After `reset` it has, too. */
  whenSettled(): Promise<void> {
    const last = this.#open.at(-1);
    if (last === undefined) return Promise.resolve();
    return new Promise((resolve) => this.#waiters.push({ id: last.id, resolve }));
  }

  #wake(): void {
    const done = this.#waiters.filter((waiter) => waiter.id <= this.#ackedThrough);
    if (done.length === 0) return;
    this.#waiters = this.#waiters.filter((waiter) => waiter.id > this.#ackedThrough);
    for (const waiter of done) waiter.resolve();
  }

  /** A new tenure has made all members equal: what was open before is decided. */
  reset(): void {
    this.#open = [];
    this.#head = 0;
    for (const waiter of this.#waiters.splice(0)) waiter.resolve();
  }
}
