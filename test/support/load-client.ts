/** What a load writes through: an NBD connection, or a block device on this host. */
import type { BufferPool } from '../../common/block-device.js';
import { MIB } from '../../common/units.js';
import { createBufferPool, type DirectBlockDevice, openBlockDevice } from '../../native/index.js';
import { NBD, NbdRefusal, SimpleNbd } from './simple-nbd.js';

/** Every call rejects with a Refused when the server said no, and with any other error when it is
 *  not known what became of the request. */
export interface LoadClient {
  readonly sizeBytes: number;
  read(offsetBytes: number, lengthBytes: number): Promise<Buffer>;
  write(offsetBytes: number, bytes: Buffer, options: { fua: boolean }): Promise<void>;
  flush(): Promise<void>;
  trim(offsetBytes: number, lengthBytes: number): Promise<void>;
  zero(offsetBytes: number, lengthBytes: number): Promise<void>;
  close(): Promise<void>;
  /** Rejects what is in flight, if that is possible, without a word to the server. */
  abandon(): void;
}

/** The request had its answer, and it was an error. */
export class Refused extends Error {}

const FUA = 1;

export class NbdLoadClient implements LoadClient {
  private constructor(readonly nbd: SimpleNbd) {}

  static async connect(socket: string, name = 'vol'): Promise<NbdLoadClient> {
    return new NbdLoadClient(await SimpleNbd.connect(socket, name));
  }

  get sizeBytes(): number {
    return this.nbd.sizeBytes;
  }

  read(offsetBytes: number, lengthBytes: number): Promise<Buffer> {
    return this.#ask(NBD.READ, offsetBytes, lengthBytes);
  }

  async write(offsetBytes: number, bytes: Buffer, options: { fua: boolean }): Promise<void> {
    const flags = options.fua ? FUA : 0;
    await this.#ask(NBD.WRITE, offsetBytes, bytes.length, bytes, flags);
  }

  async flush(): Promise<void> {
    await this.#ask(NBD.FLUSH, 0, 0);
  }

  async trim(offsetBytes: number, lengthBytes: number): Promise<void> {
    await this.#ask(NBD.TRIM, offsetBytes, lengthBytes);
  }

  async zero(offsetBytes: number, lengthBytes: number): Promise<void> {
    await this.#ask(NBD.ZEROES, offsetBytes, lengthBytes);
  }

  close(): Promise<void> {
    return this.nbd.close();
  }

  abandon(): void {
    this.nbd.socket.destroy();
  }

  async #ask(...request: Parameters<SimpleNbd['request']>): Promise<Buffer> {
    try {
      return await this.nbd.request(...request);
    } catch (error) {
      if (error instanceof NbdRefusal) throw new Refused(error.message);
      throw error;
    }
  }
}

/** Direct I/O past the page cache. An error says nothing of what became of a request: the kernel
 *  gives the same one when the device is gone. FUA is a write and a flush. */
export class DeviceLoadClient implements LoadClient {
  private constructor(
    readonly device: DirectBlockDevice,
    readonly pool: BufferPool,
  ) {}

  static async open(path: string): Promise<DeviceLoadClient> {
    const pool = createBufferPool({ limitBytes: 64 * MIB });
    return new DeviceLoadClient(await openBlockDevice(path), pool);
  }

  get sizeBytes(): number {
    return this.device.sizeBytes;
  }

  async read(offsetBytes: number, lengthBytes: number): Promise<Buffer> {
    return this.#withBuffer(lengthBytes, async (view) => {
      await this.device.read(offsetBytes, view);
      return Buffer.from(view);
    });
  }

  async write(offsetBytes: number, bytes: Buffer, options: { fua: boolean }): Promise<void> {
    await this.#withBuffer(bytes.length, async (view) => {
      bytes.copy(view);
      await this.device.write(offsetBytes, view);
    });
    if (options.fua) await this.flush();
  }

  flush(): Promise<void> {
    return this.device.flush();
  }

  /** A discard of the device may be ignored: zeroes may not. */
  trim(offsetBytes: number, lengthBytes: number): Promise<void> {
    return this.zero(offsetBytes, lengthBytes);
  }

  zero(offsetBytes: number, lengthBytes: number): Promise<void> {
    return this.device.writeZeroes(offsetBytes, lengthBytes, { mayUnmap: true });
  }

  close(): Promise<void> {
    return this.device.close();
  }

  abandon(): void {}

  async #withBuffer<T>(lengthBytes: number, work: (view: Buffer) => Promise<T>): Promise<T> {
    const buffer = this.pool.acquire(lengthBytes);
    try {
      return await work(buffer.bytes);
    } finally {
      buffer.release();
    }
  }
}
