/** A minimal NBD client, independent of the product's code: fixed newstyle, EXPORT_NAME, simple
 *  replies, many requests in flight. */
import { connect, type Socket } from 'node:net';

export const NBD = { READ: 0, WRITE: 1, DISC: 2, FLUSH: 3, TRIM: 4, ZEROES: 6 } as const;

interface Waiting {
  readonly readLength: number;
  readonly resolve: (data: Buffer) => void;
  readonly reject: (error: Error) => void;
}

/** The server answered with an error. */
export class NbdRefusal extends Error {
  constructor(readonly errno: number) {
    super(`errno ${errno}`);
  }
}

export class SimpleNbd {
  sizeBytes = 0;
  #buffered = Buffer.alloc(0);
  #needed:
    | { length: number; resolve: (bytes: Buffer) => void; reject: (e: Error) => void }
    | undefined;
  readonly #waiting = new Map<number, Waiting>();
  #cookie = 0;
  #error: Error | undefined;

  private constructor(readonly socket: Socket) {
    socket.on('data', (chunk) => {
      this.#buffered = this.#buffered.length === 0 ? chunk : Buffer.concat([this.#buffered, chunk]);
      this.#feed();
    });
    const fail = (error?: Error): void => this.#fail(error ?? new Error('connection closed'));
    socket.on('error', fail);
    socket.on('close', () => fail());
  }

  static async connect(path: string, name: string): Promise<SimpleNbd> {
    const client = new SimpleNbd(connect(path));
    const hello = await client.#take(18);
    if (hello.readBigUInt64BE(0) !== 0x4e42444d41474943n) throw new Error('not an NBD server');
    const option = Buffer.alloc(4 + 16 + name.length);
    option.writeUInt32BE(3, 0);
    option.writeBigUInt64BE(0x49484156454f5054n, 4);
    option.writeUInt32BE(1, 12);
    option.writeUInt32BE(name.length, 16);
    option.write(name, 20);
    client.socket.write(option);
    const info = await client.#take(10);
    client.sizeBytes = Number(info.readBigUInt64BE(0));
    void client.#replies();
    return client;
  }

  /** Resolves with the data of a read, else empty. Rejects with an NbdRefusal, or with another
   *  error when the connection ends. */
  request(
    type: number,
    offset: number,
    length: number,
    payload?: Buffer,
    flags = 0,
  ): Promise<Buffer> {
    if (this.#error !== undefined) return Promise.reject(this.#error);
    this.#cookie += 1;
    const header = Buffer.alloc(28);
    header.writeUInt32BE(0x25609513, 0);
    header.writeUInt16BE(flags, 4);
    header.writeUInt16BE(type, 6);
    header.writeUInt32BE(this.#cookie, 12);
    header.writeBigUInt64BE(BigInt(offset), 16);
    header.writeUInt32BE(length, 24);
    const promise = new Promise<Buffer>((resolve, reject) => {
      const readLength = type === NBD.READ ? length : 0;
      this.#waiting.set(this.#cookie, { readLength, resolve, reject });
    });
    this.socket.write(payload === undefined ? header : Buffer.concat([header, payload]));
    return promise;
  }

  close(): Promise<void> {
    if (this.socket.closed) return Promise.resolve();
    return new Promise((resolve) => {
      this.socket.once('close', () => resolve());
      const disc = Buffer.alloc(28);
      disc.writeUInt32BE(0x25609513, 0);
      disc.writeUInt16BE(NBD.DISC, 6);
      this.socket.end(disc);
    });
  }

  async #replies(): Promise<void> {
    try {
      for (;;) {
        const header = await this.#take(16);
        if (header.readUInt32BE(0) !== 0x67446698) throw new Error('bad reply magic');
        const cookie = header.readUInt32BE(12);
        const waiting = this.#waiting.get(cookie);
        if (waiting === undefined) throw new Error(`reply to unknown cookie ${cookie}`);
        const errno = header.readUInt32BE(4);
        const isRead = errno === 0 && waiting.readLength > 0;
        // It waits until it has its data: the connection may end inside of them.
        const bytes = isRead ? await this.#take(waiting.readLength) : header;
        this.#waiting.delete(cookie);
        if (errno !== 0) waiting.reject(new NbdRefusal(errno));
        else waiting.resolve(bytes);
      }
    } catch (error) {
      this.#fail(error as Error);
    }
  }

  #take(length: number): Promise<Buffer> {
    if (this.#error !== undefined) return Promise.reject(this.#error);
    return new Promise((resolve, reject) => {
      this.#needed = { length, resolve, reject };
      this.#feed();
    });
  }

  #feed(): void {
    const needed = this.#needed;
    if (needed === undefined || this.#buffered.length < needed.length) return;
    this.#needed = undefined;
    const bytes = this.#buffered.subarray(0, needed.length);
    this.#buffered = this.#buffered.subarray(needed.length);
    needed.resolve(bytes);
  }

  #fail(error: Error): void {
    this.#error ??= error;
    this.#needed?.reject(this.#error);
    this.#needed = undefined;
    for (const waiting of this.#waiting.values()) waiting.reject(this.#error);
    this.#waiting.clear();
    this.socket.destroy();
  }
}
