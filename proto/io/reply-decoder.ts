/**
 * Reads IoReplyBatch messages from any protobuf encoder.
 *
 * What belongs to a request (is the payload as long as what was asked for?) is checked by whoever
 * knows the request.
 */
import { StorageError } from '../../common/errors.js';
import { WIRE_IO_BYTES_MAX } from '../../common/units.js';
import { inner } from './batch-decoder.js';
import { type IoHelloReply, parseIoHelloReply } from './hello.js';
import { DETAIL_BYTES_MAX, REQUESTS_PER_MESSAGE_MAX } from './limits.js';
import { REPLY_FIELDS_BYTES } from './reply-encoder.js';
import { getU64, WireReader } from './wire-format.js';

/** One reply. The same object is filled again for the next reply: copy what must outlive the
 * visitor's call. */
export interface IoReplyView {
  /** proto/status.ts; 0 is OK */
  readonly status: number;
  readonly id: number;
  readonly badBlock: number;
  /** Half-open index ranges in `bytes`; empty ranges where the reply has none. */
  readonly checksumsStart: number;
  readonly checksumsEnd: number;
  readonly payloadStart: number;
  readonly payloadEnd: number;
  /** Text of an error reply, decoded when asked for; '' if there is none. */
  readonly detail: string;
  /** The whole message. */
  readonly bytes: Buffer;
}

/** What a visitor throws ends the decoding and reaches the caller. */
export interface IoReplyBatchVisitor {
  onHello(hello: IoHelloReply): void;
  onReply(reply: IoReplyView): void;
}

class ReplyView implements IoReplyView {
  status = 0;
  id = 0;
  badBlock = 0;
  checksumsStart = 0;
  checksumsEnd = 0;
  payloadStart = 0;
  payloadEnd = 0;
  detailStart = 0;
  detailEnd = 0;

  constructor(readonly bytes: Buffer) {}

  get detail(): string {
    return this.bytes.toString('utf8', this.detailStart, this.detailEnd);
  }

  clear(): void {
    this.status = 0;
    this.id = 0;
    this.badBlock = 0;
    this.checksumsStart = 0;
    this.checksumsEnd = 0;
    this.payloadStart = 0;
    this.payloadEnd = 0;
    this.detailStart = 0;
    this.detailEnd = 0;
  }
}

function protocolError(message: string): StorageError {
  return new StorageError('PROTOCOL_ERROR', message);
}

/** Calls the visitor for everything in the message, in order; otherwise as decodeIoBatch.
 *  @throws StorageError CORRUPT_MESSAGE | PROTOCOL_ERROR | OUT_OF_RANGE | INVALID_ARGUMENT: the
 *    stream cannot go on */
export function decodeIoReplyBatch(message: Buffer, visitor: IoReplyBatchVisitor): void {
  const reader = new WireReader(message, 0, message.length);
  let replies = 0;
  let hello: IoHelloReply | undefined;
  while (reader.at < message.length) {
    const tag = reader.tag();
    if (tag === 0x12) {
      replies += 1;
      reader.skipBytes();
    } else if (tag === 0x0a) {
      if (hello !== undefined) throw protocolError('two hellos in one message');
      hello = parseIoHelloReply(inner(reader));
    } else reader.skip(tag);
  }
  if (replies > REQUESTS_PER_MESSAGE_MAX) {
    throw protocolError(`batch of ${replies} replies, limit ${REQUESTS_PER_MESSAGE_MAX}`);
  }
  if (hello !== undefined) {
    if (replies > 0) throw protocolError('a hello with replies');
    visitor.onHello(hello);
  } else if (replies > 0) visitReplies(reader, visitor);
}

function visitReplies(reader: WireReader, visitor: IoReplyBatchVisitor): void {
  const message = reader.bytes;
  const view = new ReplyView(message);
  reader.at = 0;
  while (reader.at < message.length) {
    const tag = reader.tag();
    if (tag !== 0x12) {
      reader.skip(tag);
      continue;
    }
    const length = reader.length();
    reader.end = reader.at + length;
    parseReply(reader, view);
    reader.end = message.length;
    checkReply(view);
    visitor.onReply(view);
  }
}

function parseReply(reader: WireReader, view: ReplyView): void {
  const bytes = reader.bytes;
  const at = reader.at;
  view.clear();
  const fixed =
    reader.end - at >= REPLY_FIELDS_BYTES &&
    bytes[at] === 0x0d &&
    bytes[at + 5] === 0x11 &&
    bytes[at + 14] === 0x1d;
  if (fixed) {
    view.status = bytes.readUInt32LE(at + 1);
    view.id = getU64(bytes, at + 6);
    view.badBlock = bytes.readUInt32LE(at + 15);
    reader.at = at + REPLY_FIELDS_BYTES;
  }
  while (reader.at < reader.end) parseField(reader, view);
}

function parseField(reader: WireReader, view: ReplyView): void {
  const tag = reader.tag();
  if (tag === 0x3a || tag === 0x42 || tag === 0x4a) {
    const length = reader.length();
    const from = reader.at;
    reader.at += length;
    if (tag === 0x3a) {
      view.checksumsStart = from;
      view.checksumsEnd = reader.at;
    } else if (tag === 0x42) {
      view.payloadStart = from;
      view.payloadEnd = reader.at;
    } else {
      view.detailStart = from;
      view.detailEnd = reader.at;
    }
  } else if (tag === 0x0d) view.status = reader.fixed32();
  else if (tag === 0x11) view.id = reader.fixed64();
  else if (tag === 0x1d) view.badBlock = reader.fixed32();
  else reader.skip(tag);
}

function checkReply(view: ReplyView): void {
  const payloadLength = view.payloadEnd - view.payloadStart;
  if (payloadLength > WIRE_IO_BYTES_MAX) {
    throw protocolError(`reply ${view.id}: ${payloadLength} bytes, limit ${WIRE_IO_BYTES_MAX}`);
  }
  if ((view.checksumsEnd - view.checksumsStart) % 4 !== 0) {
    throw protocolError(`reply ${view.id}: checksums are cut`);
  }
  const detailLength = view.detailEnd - view.detailStart;
  if (detailLength > DETAIL_BYTES_MAX) {
    throw protocolError(`reply ${view.id}: detail of ${detailLength} bytes`);
  }
}
