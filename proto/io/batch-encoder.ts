/**
 * Writes IoBatch messages (proto/replica.proto).
 *
 * Layout, which our decoder knows by heart and any protobuf decoder can read:
 *   acked_through, 9 bytes; then each request as tag, length and 42 bytes of op, flags, id, offset,
 *   length, arg; a write goes on with its checksums and its payload. A payload of
 *   ALIGNED_PAYLOAD_MIN or more is preceded by a `pad` field of such a length that it begins at a
 *   multiple of BLOCK_SIZE from the message start: a receiver that assembles the message in aligned
 *   memory writes it to disk from there.
 */
import assert from 'node:assert';
import { BLOCK_SIZE, WIRE_IO_BYTES_MAX } from '../../common/units.js';
import { MESSAGE_BYTES_MAX, MESSAGE_HEADROOM, type OutgoingMessage } from '../message-stream.js';
import {
  ALIGNED_PAYLOAD_MIN,
  IO_FLAGS_ALL,
  IO_OP,
  IO_OP_MAX,
  REQUESTS_PER_MESSAGE_MAX,
} from './limits.js';
import { MessageMemory, MessageWriter, PooledMessage } from './message-memory.js';
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

/** tag and value of acked_through */
const PREFIX_BYTES = 9;
/** the six numbers of a request */
export const FIELDS_BYTES = 42;
/** pad: tag and a length that always takes two bytes */
const PAD_HEADER_BYTES = 3;
/** more than all headers of one request */
const REQUEST_OVERHEAD_BYTES = 64;

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

  /** Adds a request without payload: everything but WRITE. */
  add(fields: IoRequestFields): void {
    assert(fields.op > 0 && fields.op <= IO_OP_MAX && fields.op !== IO_OP.WRITE);
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
    const valuesLength =
      1 + varintSize(checksumsLength) + checksumsLength + 1 + varintSize(length) + length;
    const aligned = length >= ALIGNED_PAYLOAD_MIN;
    const bytes = this.#start(REQUEST_OVERHEAD_BYTES + valuesLength + (aligned ? BLOCK_SIZE : 0));
    const bodyLength = FIELDS_BYTES + valuesLength;
    if (aligned) {
      this.#pad(1 + varintSize(bodyLength) + bodyLength - length);
    }
    this.#putFields(IO_OP.WRITE, 0, fields, bodyLength);

    let at = this.#writer.at;
    bytes[at++] = 0x3a;
    const checksumsAt = writeVarint(bytes, at, checksumsLength);
    at = checksumsAt + checksumsLength;
    bytes[at++] = 0x42;
    at = writeVarint(bytes, at, length);
    const payloadAt = at;
    for (const piece of payload) {
      bytes.set(piece, at);
      at += piece.length;
    }
    assert(at === payloadAt + length, 'the payload is not as long as the request says');
    this.#checksumBlocks(bytes, payloadAt, length, bytes, checksumsAt);
    this.#writer.at = at;
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
