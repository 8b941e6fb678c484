/** Counts background work so that closing can wait for it (model: Seastar's gate). */
import assert from 'node:assert';
import { StorageError } from './errors.js';

export class Gate {
  #holders = 0;
  #closed = false;
  #waiters: Array<() => void> = [];

  constructor(readonly name: string) {}

  get closed(): boolean {
    return this.#closed;
  }

  get holders(): number {
    return this.#holders;
  }

  /** @throws StorageError CLOSED once `close` was called */
  enter(): void {
    if (this.#closed) throw new StorageError('CLOSED', `${this.name} is closed`);
    this.#holders += 1;
  }

  leave(): void {
    assert(this.#holders > 0, `${this.name}: leave without enter`);
    this.#holders -= 1;
    if (this.#closed && this.#holders === 0) for (const wake of this.#waiters.splice(0)) wake();
  }

  /** Runs `work` inside the gate. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    this.enter();
    try {
      return await work();
    } finally {
      this.leave();
    }
  }

  /** Refuses new holders; resolves when the last one has left. Idempotent. */
  close(): Promise<void> {
    this.#closed = true;
    if (this.#holders === 0) return Promise.resolve();
    return new Promise((resolve) => this.#waiters.push(resolve));
  }
}
