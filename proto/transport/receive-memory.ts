/** Memory for messages that arrive in pieces: from the injected pool, and from the heap, up to a
 * limit, where that is full. */
import type { AlignedBuffer } from '../../common/block-device.js';
import { StorageError } from '../../common/errors.js';
import { KIB, MIB } from '../../common/units.js';

/** Memory of the pool. May throw StorageError OVERLOADED: then ordinary memory is taken. */
export type AcquireMemory = (lengthBytes: number) => AlignedBuffer;

export interface ReceivedBytes {
  readonly bytes: Buffer;
  readonly aligned: boolean;
  /** Once. */
  release(): void;
}

/** Shorter messages are not worth a place in the pool. Their number is bounded by the flow-control
 * window. */
const SMALL_BYTES_MAX = 16 * KIB;
const HEAP_BYTES_MAX = 64 * MIB;

const nothing = (): void => undefined;

export class ReceiveMemory {
  readonly #acquire: AcquireMemory;
  #heapBytes = 0;

  constructor(acquire: AcquireMemory) {
    this.#acquire = acquire;
  }

  /** Heap memory that stands in for the pool now. */
  get heapBytes(): number {
    return this.#heapBytes;
  }

  /** @throws StorageError OVERLOADED when pool and heap allowance are used up; what else `acquire`
   *   throws */
  take(lengthBytes: number): ReceivedBytes {
    if (lengthBytes <= SMALL_BYTES_MAX) {
      return { bytes: Buffer.allocUnsafe(lengthBytes), aligned: false, release: nothing };
    }
    try {
      const buffer = this.#acquire(lengthBytes);
      return { bytes: buffer.bytes, aligned: true, release: () => buffer.release() };
    } catch (error) {
      if (!(error instanceof StorageError) || error.code !== 'OVERLOADED') throw error;
      if (this.#heapBytes + lengthBytes > HEAP_BYTES_MAX) throw error;
    }
    this.#heapBytes += lengthBytes;
    return {
      bytes: Buffer.allocUnsafeSlow(lengthBytes),
      aligned: false,
      release: () => {
        this.#heapBytes -= lengthBytes;
      },
    };
  }
}
