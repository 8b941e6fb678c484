/** Server side of the NBD handshake, as short as libnbd and qemu accept it. */
import {
  ALIGNMENT,
  HANDSHAKE_FLAGS,
  INFO,
  NBD_MAGIC,
  OPTION,
  OPTION_MAGIC,
  OPTION_REPLY,
  OPTION_REPLY_MAGIC,
  PAYLOAD_BYTES_MAX,
  TRANSMISSION_FLAGS,
} from './nbd-wire.js';

const OPTION_HEADER_BYTES = 16;
const OPTION_BYTES_MAX = 4096;
const CLIENT_FLAG_NO_ZEROES = 0x2;

/** What is left once the handshake is through: bytes of the first requests. */
export type HandshakeResult =
  | { state: 'more' }
  | { state: 'transmission'; rest: Buffer }
  | { state: 'closed'; reason: string };

export class Handshake {
  #held: Buffer = Buffer.alloc(0);
  #clientFlags: number | undefined;

  /** @param send writes bytes to the client, in order */
  constructor(
    readonly sizeBytes: number,
    readonly send: (bytes: Buffer) => void,
  ) {
    const hello = Buffer.alloc(18);
    hello.writeBigUInt64BE(NBD_MAGIC, 0);
    hello.writeBigUInt64BE(OPTION_MAGIC, 8);
    hello.writeUInt16BE(HANDSHAKE_FLAGS, 16);
    send(hello);
  }

  /** Takes what the client sent; after `transmission` or `closed` it must not be called again. */
  push(chunk: Buffer): HandshakeResult {
    this.#held = Buffer.concat([this.#held, chunk]);
    if (this.#clientFlags === undefined) {
      if (this.#held.length < 4) return { state: 'more' };
      this.#clientFlags = this.#held.readUInt32BE(0);
      this.#held = this.#held.subarray(4);
    }
    while (this.#held.length >= OPTION_HEADER_BYTES) {
      const lengthBytes = this.#held.readUInt32BE(12);
      if (this.#held.readBigUInt64BE(0) !== OPTION_MAGIC || lengthBytes > OPTION_BYTES_MAX) {
        return { state: 'closed', reason: 'not an NBD option' };
      }
      const end = OPTION_HEADER_BYTES + lengthBytes;
      if (this.#held.length < end) break;
      const option = this.#held.readUInt32BE(8);
      this.#held = this.#held.subarray(end);
      if (this.#answer(option)) return { state: 'transmission', rest: this.#held };
      if (option === OPTION.ABORT) return { state: 'closed', reason: 'client aborted' };
    }
    return { state: 'more' };
  }

  /** Answers one option; true when transmission starts. */
  #answer(option: number): boolean {
    if (option === OPTION.EXPORT_NAME) {
      const padding = ((this.#clientFlags ?? 0) & CLIENT_FLAG_NO_ZEROES) === 0 ? 124 : 0;
      const bytes = Buffer.alloc(10 + padding);
      bytes.writeBigUInt64BE(BigInt(this.sizeBytes), 0);
      bytes.writeUInt16BE(TRANSMISSION_FLAGS, 8);
      this.send(bytes);
      return true;
    }
    if (option === OPTION.GO || option === OPTION.INFO) {
      const size = Buffer.alloc(12);
      size.writeUInt16BE(INFO.EXPORT, 0);
      size.writeBigUInt64BE(BigInt(this.sizeBytes), 2);
      size.writeUInt16BE(TRANSMISSION_FLAGS, 10);
      this.#reply(option, OPTION_REPLY.INFO, size);
      const block = Buffer.alloc(14);
      block.writeUInt16BE(INFO.BLOCK_SIZE, 0);
      block.writeUInt32BE(ALIGNMENT, 2);
      block.writeUInt32BE(ALIGNMENT, 6);
      block.writeUInt32BE(PAYLOAD_BYTES_MAX, 10);
      this.#reply(option, OPTION_REPLY.INFO, block);
      this.#reply(option, OPTION_REPLY.ACK, Buffer.alloc(0));
      return option === OPTION.GO;
    }
    const type = option === OPTION.ABORT ? OPTION_REPLY.ACK : OPTION_REPLY.ERR_UNSUP;
    this.#reply(option, type, Buffer.alloc(0));
    return false;
  }

  #reply(option: number, type: number, data: Buffer): void {
    const header = Buffer.alloc(20);
    header.writeBigUInt64BE(OPTION_REPLY_MAGIC, 0);
    header.writeUInt32BE(option, 8);
    header.writeUInt32BE(type, 12);
    header.writeUInt32BE(data.length, 16);
    this.send(Buffer.concat([header, data]));
  }
}
