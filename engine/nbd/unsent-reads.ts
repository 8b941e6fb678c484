/** READs whose reply is queued, in order, until the socket took it: they hold the volume's
 *  memory. */
import type { PendingRequest } from './pending-request.js';

const COMPACT_AT = 1024;

export class UnsentReads {
  readonly #reads: PendingRequest[] = [];
  /** before it they are taken */
  #head = 0;

  push(request: PendingRequest): void {
    this.#reads.push(request);
  }

  /** The next one whose reply lies wholly before `sentBytes`, if there is one. */
  takeSent(sentBytes: number): PendingRequest | undefined {
    const request = this.#reads[this.#head];
    if (request === undefined || request.endsAt > sentBytes) return undefined;
    this.#head += 1;
    if (this.#head === this.#reads.length || this.#head >= COMPACT_AT) {
      this.#reads.splice(0, this.#head);
      this.#head = 0;
    }
    return request;
  }
}
