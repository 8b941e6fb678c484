/** A gate in the test's hands: nothing passes while it is closed. */
import type { StorageError } from '../../common/errors.js';
import type { EqualGate } from '../../engine/core/equal-gate.js';

export class ManualGate implements EqualGate {
  active = false;
  /** what was asked for since it was closed, as offset and length */
  asked: Array<[offset: number, length: number]> = [];
  #waiting: Array<(error: StorageError | undefined) => void> = [];

  pending(offset: number, length: number): Promise<void> | undefined {
    if (!this.active) return undefined;
    this.asked.push([offset, length]);
    return new Promise((resolve, reject) => {
      this.#waiting.push((error) => (error === undefined ? resolve() : reject(error)));
    });
  }

  touchesRegion(): boolean {
    return this.active;
  }

  close(): void {
    this.active = true;
    this.asked = [];
  }

  /** Lets all pass, or fails those who wait. */
  open(error?: StorageError): void {
    this.active = false;
    for (const go of this.#waiting.splice(0)) go(error);
  }
}
