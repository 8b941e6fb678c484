/**
 * Writes IoBatch messages (proto/replica.proto).
 *
 * Layout, which our decoder knows by heart and any protobuf decoder can read:
 *   acked_through, 9 bytes; then each request as tag, length and 42 bytes of op, flags, id, offset,
 *   length, arg; a write goes on with its checksums and its payload, a replace with its bitmap and
 *   checksums in one field, and its payload if it has any. A payload of ALIGNED_PAYLOAD_MIN or more
 *   is preceded by a `pad` field of such a length that it begins at a multiple of BLOCK_SIZE from
 *   the message start: a receiver that assembles the message in aligned memory writes it to disk
 *   from there.
 */
import assert from 'node:assert';
import { countSet } from '../../common/bitmap.js';
import { BLOCK_SIZE, EXTENT_SIZE, WIRE_IO_BYTES_MAX } from '../../common/units.js';
import { MESSAGE_BYTES_MAX, MESSAGE_HEADROOM, type OutgoingMessage } from '../message-stream.js';
import {
  ALIGNED_PAYLOAD_MIN,
  IO_FLAGS_ALL,
  IO_OP,
  IO_OP_MAX,
  REQUESTS_PER_MESSAGE_MAX,
} from './limits.js';
import { MessageMemory, MessageWriter, PooledMessage } from './message-memory.js';
import { bitmapBytesOf } from './present-blocks.js';
import { putU32, putU64, varintSize, writeVarint } from './wire-format.js';

/** Signature of crc32cBlocks in native/index.ts: one little-endian u32 per BLOCK_SIZE bytes of
 * `src`. */
export type ChecksumBlocks = (
  src: Buffer,
  srcOffset: number,
  lengthBytes: number,
  out: Buffer,
  outOffset: number,
) => void;

/** All numbers are safe integers, not negative; `arg` is 0 where the operation has none. */
export interface IoRequestFields {
  readonly op: number;
  readonly flags: number;
  readonly id: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly arg: number;
}

export type IoWriteFields = Omit<IoRequestFields, 'op' | 'arg'>;
export type IoReplaceFields = Omit<IoRequestFields, 'op' | 'arg' | 'flags'>;

/** What a range holds after a replace. Nothing of it is used after the call. */
export interface IoReplaceContent {
  /** one bit per block of the range, the first in the lowest bit; bits past the range are 0 */
  readonly bitmap: Buffer;
  /** little-endian u32 per set bit, as the source stored them: they are not computed anew */
  readonly checksums: Buffer;
  /** the blocks of the set bits, packed, in pieces */
  readonly payload: readonly Buffer[];
}

/** tag and value of acked_through */
const PREFIX_BYTES = 9;
/** the six numbers of a request */
export const FIELDS_BYTES = 42;
/** pad: tag and a length that always takes two bytes */
const PAD_HEADER_BYTES = 3;
/** more than all headers of one request, and a bitmap of the largest range */
const REQUEST_OVERHEAD_BYTES = 96;

/** Collects requests and turns them into one message. Not reusable until `finish`, then at once.
 *  Wrong arguments (offsets that are not safe integers, payloads of another length) are programmer
 *  errors and assert. */
export class IoBatchEncoder {
  readonly #writer: MessageWriter;
  readonly #checksumBlocks: ChecksumBlocks;
  #requests = 0;

  /** @param options.memory shared with other encoders of this process; default: one of its own */
  constructor(options: { checksumBlocks: ChecksumBlocks; memory?: MessageMemory | undefined }) {
    this.#checksumBlocks = options.checksumBlocks;
    this.#writer = new MessageWriter(options.memory ?? new MessageMemory());
  }

  /** Requests added since the last finish. */
  get requests(): number {
    return this.#requests;
  }

  /** Message bytes so far. */
  get lengthBytes(): number {
    return this.#writer.lengthBytes;
  }

  /** Whether one more request with `payloadBytes` of payload (0: none) keeps the message within the
   * protocol's limits. */
  fits(payloadBytes: number): boolean {
    const bytes = payloadBytes + (payloadBytes / BLOCK_SIZE) * 4 + BLOCK_SIZE;
    return (
      this.#requests < REQUESTS_PER_MESSAGE_MAX &&
      this.lengthBytes + bytes + REQUEST_OVERHEAD_BYTES <= MESSAGE_BYTES_MAX
    );
  }

  /** Adds a request without payload: everything but WRITE and REPLACE. */
  add(fields: IoRequestFields): void {
    assert(fields.op > 0 && fields.op <= IO_OP_MAX);
    assert(fields.op !== IO_OP.WRITE && fields.op !== IO_OP.REPLACE);
    assert(this.fits(0), 'ask fits() before add()');
    this.#start(REQUEST_OVERHEAD_BYTES);
    this.#putFields(fields.op, fields.arg, fields, FIELDS_BYTES);
    this.#requests += 1;
  }

  /** Adds a write, copies its payload and computes the checksums there, in one call.
   *  @param fields  offset and length are whole blocks, length at most WIRE_IO_BYTES_MAX
   *  @param payload pieces in order, together `lengthBytes`; not used after the call */
  addWrite(fields: IoWriteFields, payload: readonly Buffer[]): void {
    const length = fields.lengthBytes;
    assert(length > 0 && length <= WIRE_IO_BYTES_MAX && length % BLOCK_SIZE === 0);
    assert(fields.offsetBytes % BLOCK_SIZE === 0);
    assert(this.fits(length), 'ask fits() before addWrite()');
    const checksumsLength = (length / BLOCK_SIZE) * 4;
    const at = this.#putRequest(IO_OP.WRITE, fields, checksumsLength, length);
    this.#putPieces(payload, at + checksumsLength, length);
    const bytes = this.#writer.bytes as Buffer;
    this.#checksumBlocks(bytes, this.#writer.at - length, length, bytes, at);
    this.#requests += 1;
  }

  /** Adds a replace: bitmap and checksums travel as they are given, so that what the source stored
   *  is what the target checks the payload against (end to end).
   *  @param fields  whole blocks of one extent */
  addReplace(fields: IoReplaceFields, content: IoReplaceContent): void {
    const { offsetBytes, lengthBytes } = fields;
    const { bitmap, checksums, payload } = content;
    const blocks = lengthBytes / BLOCK_SIZE;
    assert(lengthBytes > 0 && lengthBytes % BLOCK_SIZE === 0 && offsetBytes % BLOCK_SIZE === 0);
    assert((offsetBytes % EXTENT_SIZE) + lengthBytes <= EXTENT_SIZE, 'it lies in one extent');
    assert(bitmap.length * 8 >= blocks, 'one bit for each block of the range');
    assert(countSet(bitmap, 0, blocks, bitmap.length * 8 - blocks) === 0, 'bits past the range');
    const present = countSet(bitmap, 0, 0, blocks);
    assert(checksums.length === 4 * present, 'one checksum for each set bit');
    const payloadLength = present * BLOCK_SIZE;
    assert(this.fits(payloadLength), 'ask fits() before addReplace()');
    const bitmapBytes = bitmapBytesOf(blocks);
    const checksumsLength = bitmapBytes + checksums.length;
    const numbers = { ...fields, flags: 0 };
    const at = this.#putRequest(IO_OP.REPLACE, numbers, checksumsLength, payloadLength);
    const bytes = this.#writer.bytes as Buffer;
    const bitmapEnd = at + Math.min(bitmap.length, bitmapBytes);
    bitmap.copy(bytes, at, 0, bitmapBytes);
    bytes.fill(0, bitmapEnd, at + bitmapBytes);
    bytes.set(checksums, at + bitmapBytes);
    this.#putPieces(payload, at + checksumsLength, payloadLength);
    this.#requests += 1;
  }

  /** The message with everything that was added (nothing: only `acked_through` travels), ready to
   *  send.
   *  @param ackedThrough every member has acknowledged all write ids up to and including this one
   *  @param streams      how many streams it is sent on: after that many `done()` calls its memory
   *    is used again */
  finish(ackedThrough: number, streams: number): OutgoingMessage {
    assert(Number.isSafeInteger(ackedThrough) && ackedThrough >= 0);
    const first = this.#start(0);
    first[MESSAGE_HEADROOM] = 0x11;
    putU64(first, MESSAGE_HEADROOM + 1, ackedThrough);
    const { bytes, end } = this.#writer.take();
    this.#requests = 0;
    const memory = this.#writer.memory;
    return new PooledMessage(
      { head: bytes.subarray(0, end), tail: [], lengthBytes: end - MESSAGE_HEADROOM },
      streams,
      () => memory.give(bytes),
    );
  }

  /** Writes the numbers and the header of the checksums of a request that has values, and leaves
   *  room for the values. Returns where the checksums belong. */
  #putRequest(
    op: number,
    fields: IoWriteFields,
    checksumsLength: number,
    payloadLength: number,
  ): number {
    const payloadBytes = payloadLength > 0 ? 1 + varintSize(payloadLength) + payloadLength : 0;
    const valuesLength = 1 + varintSize(checksumsLength) + checksumsLength + payloadBytes;
    const aligned = payloadLength >= ALIGNED_PAYLOAD_MIN;
    this.#start(REQUEST_OVERHEAD_BYTES + valuesLength + (aligned ? BLOCK_SIZE : 0));
    const bodyLength = FIELDS_BYTES + valuesLength;
    if (aligned) this.#pad(1 + varintSize(bodyLength) + bodyLength - payloadLength);
    this.#putFields(op, 0, fields, bodyLength);
    const bytes = this.#writer.bytes as Buffer;
    bytes[this.#writer.at] = 0x3a;
    return writeVarint(bytes, this.#writer.at + 1, checksumsLength);
  }

  /** Writes the payload with its header at `at`, where the checksums end, and ends the request. */
  #putPieces(pieces: readonly Buffer[], at: number, lengthBytes: number): void {
    const bytes = this.#writer.bytes as Buffer;
    let next = at;
    if (lengthBytes > 0) {
      bytes[next] = 0x42;
      next = writeVarint(bytes, next + 1, lengthBytes);
    }
    const end = next + lengthBytes;
    for (const piece of pieces) {
      bytes.set(piece, next);
      next += piece.length;
    }
    assert(next === end, 'the payload is not as long as the request says');
    this.#writer.at = next;
  }

  #start(lengthBytes: number): Buffer {
    if (this.#writer.bytes !== undefined) return this.#writer.reserve(lengthBytes);
    const bytes = this.#writer.reserve(PREFIX_BYTES + lengthBytes);
    this.#writer.at += PREFIX_BYTES;
    return bytes;
  }

  /** Fills up so that what begins `headersLength` bytes behind the pad begins at a block boundary.
   */
  #pad(headersLength: number): void {
    const bytes = this.#writer.reserve(0);
    const at = this.#writer.at;
    const next = at - MESSAGE_HEADROOM + PAD_HEADER_BYTES + headersLength;
    const padLength = (BLOCK_SIZE - (next % BLOCK_SIZE)) % BLOCK_SIZE;
    bytes[at] = 0x7a;
    bytes[at + 1] = (padLength & 0x7f) | 0x80;
    bytes[at + 2] = padLength >>> 7;
    // Memory is used again: what was in it is nobody's business.
    bytes.fill(0, at + PAD_HEADER_BYTES, at + PAD_HEADER_BYTES + padLength);
    this.#writer.at = at + PAD_HEADER_BYTES + padLength;
  }

  #putFields(op: number, arg: number, fields: IoWriteFields, bodyLength: number): void {
    assert(Number.isSafeInteger(fields.id) && fields.id >= 0);
    assert(Number.isSafeInteger(fields.offsetBytes) && fields.offsetBytes >= 0);
    assert(Number.isInteger(fields.lengthBytes) && fields.lengthBytes >= 0);
    assert(fields.lengthBytes <= 0xffffffff);
    assert(Number.isSafeInteger(arg) && arg >= 0);
    assert((fields.flags & ~IO_FLAGS_ALL) === 0);
    const bytes = this.#writer.bytes as Buffer;
    let at = this.#writer.at;
    bytes[at] = 0x1a;
    at = writeVarint(bytes, at + 1, bodyLength);
    bytes[at] = 0x0d;
    putU32(bytes, at + 1, op);
    bytes[at + 5] = 0x15;
    putU32(bytes, at + 6, fields.flags);
    bytes[at + 10] = 0x19;
    putU64(bytes, at + 11, fields.id);
    bytes[at + 19] = 0x21;
    putU64(bytes, at + 20, fields.offsetBytes);
    bytes[at + 28] = 0x2d;
    putU32(bytes, at + 29, fields.lengthBytes);
    bytes[at + 33] = 0x31;
    putU64(bytes, at + 34, arg);
    this.#writer.at = at + FIELDS_BYTES;
  }
}
