/** The few pieces of protobuf's wire format that the data stream uses (protobuf.dev, "Encoding").
 */
import { StorageError } from '../../common/errors.js';

export const WIRE_VARINT = 0;
export const WIRE_FIXED64 = 1;
export const WIRE_BYTES = 2;
export const WIRE_FIXED32 = 5;

const TWO_32 = 4294967296;
/** Upper 32 bits of the first integer that a number cannot hold exactly: 2^53. */
const HIGH_LIMIT = 0x200000;

export function varintSize(value: number): number {
  if (value < 0x80) return 1;
  if (value < 0x4000) return 2;
  if (value < 0x200000) return 3;
  return value < 0x10000000 ? 4 : 5;
}

/** Writes `value` < 2^32 at `at`; returns the position behind it. */
export function writeVarint(bytes: Buffer, at: number, value: number): number {
  let rest = value;
  let position = at;
  while (rest >= 0x80) {
    bytes[position++] = (rest & 0x7f) | 0x80;
    rest >>>= 7;
  }
  bytes[position++] = rest;
  return position;
}

export function putU32(bytes: Buffer, at: number, value: number): void {
  bytes[at] = value;
  bytes[at + 1] = value >>> 8;
  bytes[at + 2] = value >>> 16;
  bytes[at + 3] = value >>> 24;
}

/** @param value a safe integer, not negative */
export function putU64(bytes: Buffer, at: number, value: number): void {
  putU32(bytes, at, value >>> 0);
  putU32(bytes, at + 4, (value / TWO_32) >>> 0);
}

/** @throws StorageError OUT_OF_RANGE from 2^53 on: such a number would silently become another one
 */
export function getU64(bytes: Buffer, at: number): number {
  const high = bytes.readUInt32LE(at + 4);
  if (high >= HIGH_LIMIT) {
    throw new StorageError('OUT_OF_RANGE', `number 0x${high.toString(16)}…: 2^53 is the limit`);
  }
  return high * TWO_32 + bytes.readUInt32LE(at);
}

function corrupt(what: string, at: number): StorageError {
  return new StorageError('CORRUPT_MESSAGE', `message does not parse: ${what} at byte ${at}`);
}

/** Walks over bytes from the network. Every method throws StorageError CORRUPT_MESSAGE instead of
 * reading past `end`. */
export class WireReader {
  constructor(
    readonly bytes: Buffer,
    public at: number,
    public end: number,
  ) {}

  /** A varint below 2^32. @throws also OUT_OF_RANGE */
  varint(): number {
    const first = this.bytes[this.at] as number;
    if (this.at < this.end && first < 0x80) {
      this.at += 1;
      return first;
    }
    let value = 0;
    let factor = 1;
    const start = this.at;
    for (let count = 0; count < 10; count++) {
      if (this.at >= this.end) throw corrupt('varint is cut', start);
      const byte = this.bytes[this.at++] as number;
      value += (byte & 0x7f) * factor;
      factor *= 128;
      if (byte < 0x80) {
        if (value < TWO_32) return value;
        throw new StorageError('OUT_OF_RANGE', `varint at byte ${start} passes 32 bits`);
      }
    }
    throw corrupt('varint longer than 10 bytes', start);
  }

  tag(): number {
    const at = this.at;
    const tag = this.varint();
    if (tag < 8) throw corrupt('field number 0', at);
    return tag;
  }

  /** Reads a length, checks it, and returns it with `at` behind the length. */
  length(): number {
    const at = this.at;
    const length = this.varint();
    if (length > this.end - this.at) throw corrupt(`length ${length} passes the end`, at);
    return length;
  }

  /** Passes over a length and what it counts. */
  skipBytes(): void {
    const length = this.length();
    this.at += length;
  }

  fixed32(): number {
    const at = this.at;
    this.#advance(4);
    return this.bytes.readUInt32LE(at);
  }

  fixed64(): number {
    const at = this.at;
    this.#advance(8);
    return getU64(this.bytes, at);
  }

  /** Text of at most `bytesMax` bytes. @throws also PROTOCOL_ERROR */
  text(bytesMax: number): string {
    const length = this.length();
    if (length > bytesMax) {
      throw new StorageError('PROTOCOL_ERROR', `text of ${length} bytes, limit ${bytesMax}`);
    }
    this.at += length;
    return this.bytes.toString('utf8', this.at - length, this.at);
  }

  /** Passes over a field whose tag was just read. Groups are not part of proto3 and do not parse.
   */
  skip(tag: number): void {
    const wireType = tag & 7;
    if (wireType === WIRE_BYTES) this.skipBytes();
    else if (wireType === WIRE_VARINT) this.#skipVarint();
    else if (wireType === WIRE_FIXED64) this.#advance(8);
    else if (wireType === WIRE_FIXED32) this.#advance(4);
    else throw corrupt(`wire type ${wireType}`, this.at);
  }

  #skipVarint(): void {
    const start = this.at;
    for (let count = 0; count < 10; count++) {
      if (this.at >= this.end) throw corrupt('varint is cut', start);
      if ((this.bytes[this.at++] as number) < 0x80) return;
    }
    throw corrupt('varint longer than 10 bytes', start);
  }

  #advance(lengthBytes: number): void {
    if (lengthBytes > this.end - this.at) throw corrupt('number is cut', this.at);
    this.at += lengthBytes;
  }
}
