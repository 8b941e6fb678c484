/**
 * Reads IoBatch messages from any protobuf encoder, and checks everything that can be checked
 * without knowing the volume.
 *
 * Invariants of what a visitor sees: all numbers are safe integers; a write has whole blocks, a
 * payload of exactly its length and one checksum per block; a replace has whole blocks of one
 * extent, their bitmap, and one checksum and one block for each set bit; no other operation has a
 * payload. The checksums themselves are not verified here.
 */
import { StorageError } from '../../common/errors.js';
import { BLOCK_SIZE, EXTENT_SIZE, REGION_SIZE, WIRE_IO_BYTES_MAX } from '../../common/units.js';
import { FIELDS_BYTES } from './batch-encoder.js';
import { type IoHello, parseIoHello } from './hello.js';
import { IO_FLAGS_ALL, IO_OP, IO_OP_MAX, REQUESTS_PER_MESSAGE_MAX } from './limits.js';
import { presentBlocksOf } from './present-blocks.js';
import { getU64, WireReader } from './wire-format.js';

/** One request. The same object is filled again for the next request: copy what must outlive the
 * visitor's call. */
export interface IoRequestView {
  readonly op: number;
  readonly flags: number;
  readonly id: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly arg: number;
  /** Half-open index ranges in `bytes`; empty ranges where the request has none. */
  readonly checksumsStart: number;
  readonly checksumsEnd: number;
  readonly payloadStart: number;
  readonly payloadEnd: number;
  /** The whole message. */
  readonly bytes: Buffer;
}

/** What a visitor throws ends the decoding and reaches the caller. */
export interface IoBatchVisitor {
  onHello(hello: IoHello): void;
  /** Before the requests, once per message that is not a hello (0 if the sender left it out). */
  onAckedThrough(id: number): void;
  onRequest(request: IoRequestView): void;
}

class RequestView implements IoRequestView {
  op = 0;
  flags = 0;
  id = 0;
  offsetBytes = 0;
  lengthBytes = 0;
  arg = 0;
  checksumsStart = 0;
  checksumsEnd = 0;
  payloadStart = 0;
  payloadEnd = 0;

  constructor(readonly bytes: Buffer) {}

  clear(): void {
    this.op = 0;
    this.flags = 0;
    this.id = 0;
    this.offsetBytes = 0;
    this.lengthBytes = 0;
    this.arg = 0;
    this.checksumsStart = 0;
    this.checksumsEnd = 0;
    this.payloadStart = 0;
    this.payloadEnd = 0;
  }
}

function protocolError(message: string): StorageError {
  return new StorageError('PROTOCOL_ERROR', message);
}

/** Calls the visitor for everything in the message, in order. Two walks: the first one, over the
 *  outer fields only, checks the frame and the counts before the visitor sees anything; a request
 *  that turns out wrong in the second one is not visited, the ones before it were. No memory per
 *  request.
 *  @throws StorageError CORRUPT_MESSAGE (no protobuf) | PROTOCOL_ERROR (breaks a rule of the
 *    protocol) | OUT_OF_RANGE (a number of 2^53 or more) | INVALID_ARGUMENT (a name in the hello):
 *    the stream cannot go on */
export function decodeIoBatch(message: Buffer, visitor: IoBatchVisitor): void {
  const reader = new WireReader(message, 0, message.length);
  let requests = 0;
  let hello: IoHello | undefined;
  let ackedThrough = 0;
  while (reader.at < message.length) {
    const tag = reader.tag();
    if (tag === 0x1a) {
      requests += 1;
      reader.skipBytes();
    } else if (tag === 0x11) ackedThrough = reader.fixed64();
    else if (tag === 0x0a) {
      if (hello !== undefined) throw protocolError('two hellos in one message');
      hello = parseIoHello(inner(reader));
    } else reader.skip(tag);
  }
  if (requests > REQUESTS_PER_MESSAGE_MAX) {
    throw protocolError(`batch of ${requests} requests, limit ${REQUESTS_PER_MESSAGE_MAX}`);
  }
  if (hello !== undefined) {
    if (requests > 0) throw protocolError('a hello with requests');
    visitor.onHello(hello);
    return;
  }
  visitor.onAckedThrough(ackedThrough);
  if (requests > 0) visitRequests(reader, visitor);
}

/** A reader over the length-delimited field at the position; the outer reader is moved behind it.
 */
export function inner(reader: WireReader): WireReader {
  const length = reader.length();
  reader.at += length;
  return new WireReader(reader.bytes, reader.at - length, reader.at);
}

function visitRequests(reader: WireReader, visitor: IoBatchVisitor): void {
  const message = reader.bytes;
  const view = new RequestView(message);
  reader.at = 0;
  while (reader.at < message.length) {
    const tag = reader.tag();
    if (tag !== 0x1a) {
      reader.skip(tag);
      continue;
    }
    const length = reader.length();
    reader.end = reader.at + length;
    parseRequest(reader, view);
    reader.end = message.length;
    checkRequest(view);
    visitor.onRequest(view);
  }
}

function parseRequest(reader: WireReader, view: RequestView): void {
  const bytes = reader.bytes;
  const at = reader.at;
  view.clear();
  if (reader.end - at >= FIELDS_BYTES && hasFixedLayout(bytes, at)) {
    view.op = bytes.readUInt32LE(at + 1);
    view.flags = bytes.readUInt32LE(at + 6);
    view.id = getU64(bytes, at + 11);
    view.offsetBytes = getU64(bytes, at + 20);
    view.lengthBytes = bytes.readUInt32LE(at + 29);
    view.arg = getU64(bytes, at + 34);
    reader.at = at + FIELDS_BYTES;
  }
  while (reader.at < reader.end) parseField(reader, view);
}

function hasFixedLayout(bytes: Buffer, at: number): boolean {
  return (
    bytes[at] === 0x0d &&
    bytes[at + 5] === 0x15 &&
    bytes[at + 10] === 0x19 &&
    bytes[at + 19] === 0x21 &&
    bytes[at + 28] === 0x2d &&
    bytes[at + 33] === 0x31
  );
}

function parseField(reader: WireReader, view: RequestView): void {
  const tag = reader.tag();
  switch (tag) {
    case 0x3a: {
      const length = reader.length();
      view.checksumsStart = reader.at;
      reader.at += length;
      view.checksumsEnd = reader.at;
      break;
    }
    case 0x42: {
      const length = reader.length();
      view.payloadStart = reader.at;
      reader.at += length;
      view.payloadEnd = reader.at;
      break;
    }
    case 0x0d:
      view.op = reader.fixed32();
      break;
    case 0x15:
      view.flags = reader.fixed32();
      break;
    case 0x19:
      view.id = reader.fixed64();
      break;
    case 0x21:
      view.offsetBytes = reader.fixed64();
      break;
    case 0x2d:
      view.lengthBytes = reader.fixed32();
      break;
    case 0x31:
      view.arg = reader.fixed64();
      break;
    default:
      reader.skip(tag);
  }
}

function checkRequest(view: RequestView): void {
  const { op, offsetBytes, lengthBytes } = view;
  if (op === 0 || op > IO_OP_MAX) throw protocolError(`request ${view.id} has unknown op ${op}`);
  if ((view.flags & ~IO_FLAGS_ALL) !== 0) {
    throw protocolError(`request ${view.id} has unknown flags 0x${view.flags.toString(16)}`);
  }
  if (!Number.isSafeInteger(offsetBytes + lengthBytes)) {
    throw new StorageError('OUT_OF_RANGE', `request ${view.id} ends past 2^53`);
  }
  checkRange(view);
  checkPayload(view);
}

function checkRange({ op, id, offsetBytes, lengthBytes }: RequestView): void {
  if (op === IO_OP.FLUSH || op === IO_OP.PING) return;
  if (op === IO_OP.CLEAN) {
    if (offsetBytes % REGION_SIZE === 0) return;
    throw protocolError(`clean ${id} at ${offsetBytes} is not the start of a region`);
  }
  if (offsetBytes % BLOCK_SIZE !== 0 || lengthBytes % BLOCK_SIZE !== 0 || lengthBytes === 0) {
    throw protocolError(`request ${id}: ${offsetBytes}+${lengthBytes} is not whole blocks`);
  }
  if (op === IO_OP.TRIM || op === IO_OP.WRITE_ZEROES || op === IO_OP.MAP) return;
  if (lengthBytes > WIRE_IO_BYTES_MAX) {
    throw protocolError(`request ${id}: ${lengthBytes} bytes, limit ${WIRE_IO_BYTES_MAX}`);
  }
  if (op === IO_OP.REPLACE && (offsetBytes % EXTENT_SIZE) + lengthBytes > EXTENT_SIZE) {
    throw protocolError(`replace ${id}: ${offsetBytes}+${lengthBytes} passes its extent`);
  }
}

function checkPayload(view: RequestView): void {
  const { op, id, lengthBytes } = view;
  const payloadLength = view.payloadEnd - view.payloadStart;
  const checksumsLength = view.checksumsEnd - view.checksumsStart;
  if (op === IO_OP.WRITE) {
    if (payloadLength !== lengthBytes) {
      throw protocolError(`write ${id}: ${payloadLength} bytes for ${lengthBytes}`);
    }
    if (checksumsLength !== (lengthBytes / BLOCK_SIZE) * 4) {
      throw protocolError(`write ${id}: ${checksumsLength} checksum bytes`);
    }
  } else if (op === IO_OP.REPLACE) presentBlocksOf(view, lengthBytes / BLOCK_SIZE);
  else if (payloadLength + checksumsLength > 0) {
    throw protocolError(`request ${id} with op ${op} has a payload`);
  }
}
