/**
 * The floor's replica: does the requests of the floor's engine with direct I/O on one file.
 *
 * No checksums, no metadata, no allocation: offset in the volume is offset in the file.
 *
 *   node floor-replica.js --file PATH
 */
import assert from 'node:assert';
import { createServer, type Socket } from 'node:net';
import { parseArgs } from 'node:util';
import type { AlignedBuffer, BlockDevice, BufferPool } from '../../common/block-device.js';
import { createBufferPool, openBlockDevice } from '../../native/index.js';
import {
  COMMAND,
  ERRNO,
  REPLY_BYTES,
  REPLY_MAGIC,
  REQUEST_BYTES,
  requestOffset,
} from './nbd-wire.js';
import { Outbox, Turn } from './outbox.js';

const POOL_BYTES = 256 * 1024 * 1024;
/** Read answers up to here are copied side by side; larger ones are sent without a copy. */
const COPIED_READ_BYTES_MAX = 16 * 1024;

/** Reads requests off one connection; a write's payload goes straight into an aligned buffer. */
class RequestReader {
  readonly #header = Buffer.alloc(REQUEST_BYTES);
  #headerUsed = 0;
  /** the write whose payload is arriving */
  #buffer: AlignedBuffer | undefined;
  #bufferUsed = 0;
  #offsetBytes = 0;
  #slot = 0;

  constructor(
    readonly device: BlockDevice,
    readonly pool: BufferPool,
    readonly outbox: Outbox,
  ) {}

  push(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#buffer !== undefined) {
        at += this.#fill(this.#buffer, chunk, at);
      } else if (this.#headerUsed === 0 && chunk.length - at >= REQUEST_BYTES) {
        this.#request(chunk, at);
        at += REQUEST_BYTES;
      } else {
        const take = Math.min(REQUEST_BYTES - this.#headerUsed, chunk.length - at);
        chunk.copy(this.#header, this.#headerUsed, at, at + take);
        this.#headerUsed += take;
        at += take;
        if (this.#headerUsed < REQUEST_BYTES) return;
        this.#headerUsed = 0;
        this.#request(this.#header, 0);
      }
    }
  }

  #request(bytes: Buffer, at: number): void {
    const command = bytes.readUInt16BE(at + 6);
    const slot = bytes.readUInt32BE(at + 12);
    const offsetBytes = requestOffset(bytes, at);
    const lengthBytes = bytes.readUInt32BE(at + 24);
    if (command === COMMAND.READ) {
      this.#read(slot, offsetBytes, lengthBytes);
    } else if (command === COMMAND.FLUSH) {
      this.device.flush().then(
        () => this.outbox.reply(0, 0, slot),
        () => this.outbox.reply(ERRNO.EIO, 0, slot),
      );
    } else {
      assert(command === COMMAND.WRITE && lengthBytes > 0);
      this.#slot = slot;
      this.#offsetBytes = offsetBytes;
      this.#buffer = this.pool.acquire(lengthBytes);
      this.#bufferUsed = 0;
    }
  }

  /** Copies what `chunk` has for the arriving write and starts it when whole; returns bytes used */
  #fill(buffer: AlignedBuffer, chunk: Buffer, at: number): number {
    const wanted = buffer.bytes.length - this.#bufferUsed;
    const take = Math.min(wanted, chunk.length - at);
    chunk.copy(buffer.bytes, this.#bufferUsed, at, at + take);
    this.#bufferUsed += take;
    if (take < wanted) return take;
    this.#buffer = undefined;
    const slot = this.#slot;
    const answer = (error: number): void => {
      buffer.release();
      this.outbox.reply(error, 0, slot);
    };
    this.device.write(this.#offsetBytes, buffer.bytes).then(
      () => answer(0),
      () => answer(ERRNO.EIO),
    );
    return take;
  }

  #read(slot: number, offsetBytes: number, lengthBytes: number): void {
    const buffer = this.pool.acquire(lengthBytes);
    this.device.read(offsetBytes, buffer.bytes).then(
      () => {
        if (lengthBytes <= COPIED_READ_BYTES_MAX) {
          this.outbox.reply(0, 0, slot, buffer.bytes);
          buffer.release();
          return;
        }
        const header = Buffer.allocUnsafe(REPLY_BYTES);
        header.writeUInt32BE(REPLY_MAGIC, 0);
        header.writeUInt32BE(0, 4);
        header.writeUInt32BE(0, 8);
        header.writeUInt32BE(slot, 12);
        this.outbox.push(header);
        this.outbox.push(buffer.bytes, () => buffer.release());
      },
      () => {
        buffer.release();
        this.outbox.reply(ERRNO.EIO, 0, slot);
      },
    );
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { file: { type: 'string' } } });
  assert(values.file !== undefined, 'usage: --file PATH');
  const device = await openBlockDevice(values.file);
  const pool = createBufferPool({ limitBytes: POOL_BYTES });
  const turn = new Turn();
  const server = createServer((socket: Socket) => {
    socket.setNoDelay(true);
    const reader = new RequestReader(device, pool, new Outbox(socket, turn));
    socket.on('data', (chunk: Buffer) => reader.push(chunk));
    socket.on('error', () => socket.destroy());
  });
  server.listen(0, '127.0.0.1', () => {
    const address = server.address();
    assert(address !== null && typeof address === 'object');
    process.stdout.write(`ready 127.0.0.1:${address.port}\n`);
  });
  process.once('SIGTERM', () => {
    void device.close().then(() => process.exit(0));
  });
}

await main();
