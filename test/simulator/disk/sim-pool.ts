/** Buffers for a simulated process: aligned, used again, poisoned while nobody has them. */
import assert from 'node:assert';
import type { AlignedBuffer, BufferPool } from '../../../common/block-device.js';
import { StorageError } from '../../../common/errors.js';
import { MIB } from '../../../common/units.js';

const POISON = 0xdb;
const IDLE_MAX = 32;

/** Memory of all pools: a run makes little garbage. */
const idle = new Map<number, Buffer[]>();

export class SimBufferPool implements BufferPool {
  usedBytes = 0;

  constructor(readonly limitBytes = 256 * MIB) {}

  acquire(lengthBytes: number): AlignedBuffer {
    assert(Number.isSafeInteger(lengthBytes) && lengthBytes > 0 && lengthBytes <= 4 * MIB);
    if (this.usedBytes + lengthBytes > this.limitBytes) {
      throw new StorageError('OVERLOADED', `${this.usedBytes} of ${this.limitBytes} used`);
    }
    this.usedBytes += lengthBytes;
    return new SimBuffer(this, lengthBytes);
  }
}

class SimBuffer implements AlignedBuffer {
  readonly bytes: Buffer;
  readonly #pool: SimBufferPool;
  #released = false;

  constructor(pool: SimBufferPool, lengthBytes: number) {
    const size = Math.max(4096, 2 ** Math.ceil(Math.log2(lengthBytes)));
    const memory = idle.get(size)?.pop() ?? Buffer.from(new ArrayBuffer(size)).fill(POISON);
    this.bytes = memory.subarray(0, lengthBytes);
    this.#pool = pool;
  }

  release(): void {
    assert(!this.#released, 'second release of a buffer');
    this.#released = true;
    const { bytes } = this;
    this.#pool.usedBytes -= bytes.length;
    bytes.fill(POISON);
    const size = Math.max(4096, 2 ** Math.ceil(Math.log2(bytes.length)));
    const whole = Buffer.from(bytes.buffer, bytes.byteOffset, size);
    const free = idle.get(size);
    if (free === undefined) idle.set(size, [whole]);
    else if (free.length < IDLE_MAX) free.push(whole);
  }
}
