/** Admission by units (bytes or count), first come first served (rule: take units before
 *  allocating). */
import assert from 'node:assert';
import { StorageError } from './errors.js';

interface Waiter {
  readonly units: number;
  readonly resolve: () => void;
  readonly reject: (error: StorageError) => void;
}

export class Semaphore {
  #free: number;
  #broken: StorageError | undefined;
  #waiters: Waiter[] = [];

  /** @param waitersMax how many callers may queue; one more is refused with OVERLOADED */
  constructor(
    readonly name: string,
    readonly capacity: number,
    readonly waitersMax: number,
  ) {
    assert(capacity > 0);
    this.#free = capacity;
  }

  get used(): number {
    return this.capacity - this.#free;
  }

  get waiting(): number {
    return this.#waiters.length;
  }

  /** Takes units if they are free and nobody queues; false otherwise. */
  tryAcquire(units: number): boolean {
    assert(units >= 0 && units <= this.capacity, `${this.name}: ${units} of ${this.capacity}`);
    if (this.#broken !== undefined || this.#waiters.length > 0 || units > this.#free) return false;
    this.#free -= units;
    return true;
  }

  /** Resolves once the units are held. @throws StorageError OVERLOADED | the error given to
   *  `break` */
  acquire(units: number): Promise<void> {
    if (this.tryAcquire(units)) return Promise.resolve();
    if (this.#broken !== undefined) return Promise.reject(this.#broken);
    if (this.#waiters.length >= this.waitersMax) {
      return Promise.reject(
        new StorageError(
          'OVERLOADED',
          `${this.name}: ${this.#waiters.length} callers already wait`,
        ),
      );
    }
    return new Promise((resolve, reject) => this.#waiters.push({ units, resolve, reject }));
  }

  release(units: number): void {
    this.#free += units;
    assert(this.#free <= this.capacity, `${this.name}: released more than was held`);
    while (this.#waiters.length > 0) {
      const next = this.#waiters[0] as Waiter;
      if (next.units > this.#free) return;
      this.#waiters.shift();
      this.#free -= next.units;
      next.resolve();
    }
  }

  /** Fails every waiter and every later acquire with `error`. Units already held are released as
   *  usual. */
  break(error: StorageError): void {
    this.#broken = error;
    for (const waiter of this.#waiters.splice(0)) waiter.reject(error);
  }
}
