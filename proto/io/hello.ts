/** The first message of each side of a data stream: who is speaking, and in which epoch. Once per
 * stream: plain code. */
import assert from 'node:assert';
import { StorageError } from '../../common/errors.js';
import { checkName } from '../../common/names.js';
import { MESSAGE_HEADROOM, type OutgoingMessage } from '../message-stream.js';
import { HELLO_TEXT_BYTES_MAX } from './limits.js';
import { MessageMemory, MessageWriter, PooledMessage } from './message-memory.js';
import { putU64, varintSize, type WireReader, writeVarint } from './wire-format.js';

/** Sent by the engine, first and alone. */
export interface IoHello {
  readonly protocolVersion: number;
  readonly volume: string;
  /** R8: the copy that the engine means to speak to */
  readonly replicaId: string;
  /** the epoch that OpenReplica persisted (P4) */
  readonly epoch: number;
  readonly engineId: string;
}

/** Sent by the replica, first and alone. */
export interface IoHelloReply {
  readonly protocolVersion: number;
  /** P7 */
  readonly incarnation: string;
  /** most payload bytes that may be in flight towards the replica */
  readonly windowBytes: number;
  readonly windowRequests: number;
}

const FIELD_BYTES_MAX = HELLO_TEXT_BYTES_MAX + 3;

class HelloWriter {
  readonly bytes = Buffer.alloc(4 * FIELD_BYTES_MAX + 16);
  at = 0;

  uint32(tag: number, value: number): void {
    assert(Number.isInteger(value) && value >= 0 && value <= 0xffffffff);
    this.bytes[this.at] = tag;
    this.at = writeVarint(this.bytes, this.at + 1, value);
  }

  text(tag: number, value: string): void {
    const length = Buffer.byteLength(value);
    assert(length <= HELLO_TEXT_BYTES_MAX, `text of ${length} bytes`);
    this.bytes[this.at] = tag;
    this.at = writeVarint(this.bytes, this.at + 1, length);
    this.at += this.bytes.write(value, this.at, 'utf8');
  }

  fixed64(tag: number, value: number): void {
    assert(Number.isSafeInteger(value) && value >= 0);
    this.bytes[this.at] = tag;
    putU64(this.bytes, this.at + 1, value);
    this.at += 9;
  }

  /** A message whose field 1 is what was written. */
  message(): OutgoingMessage {
    const writer = new MessageWriter(new MessageMemory());
    const bytes = writer.reserve(1 + varintSize(this.at) + this.at);
    bytes[writer.at] = 0x0a;
    const bodyAt = writeVarint(bytes, writer.at + 1, this.at);
    this.bytes.copy(bytes, bodyAt, 0, this.at);
    const end = bodyAt + this.at;
    return new PooledMessage(
      { head: bytes.subarray(0, end), tail: [], lengthBytes: end - MESSAGE_HEADROOM },
      1,
      () => undefined,
    );
  }
}

/** IoBatch with nothing but the hello, for one stream. Texts of more than 128 bytes are programmer
 * errors. */
export function encodeIoHello(hello: IoHello): OutgoingMessage {
  const writer = new HelloWriter();
  writer.uint32(0x08, hello.protocolVersion);
  writer.text(0x12, hello.volume);
  writer.text(0x1a, hello.replicaId);
  writer.fixed64(0x21, hello.epoch);
  writer.text(0x2a, hello.engineId);
  return writer.message();
}

/** IoReplyBatch with nothing but the hello, for one stream. */
export function encodeIoHelloReply(hello: IoHelloReply): OutgoingMessage {
  const writer = new HelloWriter();
  writer.uint32(0x08, hello.protocolVersion);
  writer.text(0x12, hello.incarnation);
  writer.uint32(0x18, hello.windowBytes);
  writer.uint32(0x20, hello.windowRequests);
  return writer.message();
}

/** Texts that are no names still go into logs: printable ASCII only. */
export function checkToken(text: string, what: string): string {
  if (/^[!-~]{1,128}$/.test(text)) return text;
  throw new StorageError('INVALID_ARGUMENT', `${what} is not 1 to 128 printable characters`);
}

/** Parses the hello between the reader's position and its end.
 *  @throws StorageError CORRUPT_MESSAGE | PROTOCOL_ERROR | OUT_OF_RANGE | INVALID_ARGUMENT
 *    (names) */
export function parseIoHello(reader: WireReader): IoHello {
  const hello = { protocolVersion: 0, volume: '', replicaId: '', epoch: 0, engineId: '' };
  while (reader.at < reader.end) {
    const tag = reader.tag();
    if (tag === 0x08) hello.protocolVersion = reader.varint();
    else if (tag === 0x12) hello.volume = reader.text(HELLO_TEXT_BYTES_MAX);
    else if (tag === 0x1a) hello.replicaId = reader.text(HELLO_TEXT_BYTES_MAX);
    else if (tag === 0x21) hello.epoch = reader.fixed64();
    else if (tag === 0x2a) hello.engineId = reader.text(HELLO_TEXT_BYTES_MAX);
    else reader.skip(tag);
  }
  checkName(hello.volume, 'volume');
  checkName(hello.replicaId, 'replica id');
  checkToken(hello.engineId, 'engine id');
  return hello;
}

/** @throws as parseIoHello */
export function parseIoHelloReply(reader: WireReader): IoHelloReply {
  const hello = { protocolVersion: 0, incarnation: '', windowBytes: 0, windowRequests: 0 };
  while (reader.at < reader.end) {
    const tag = reader.tag();
    if (tag === 0x08) hello.protocolVersion = reader.varint();
    else if (tag === 0x12) hello.incarnation = reader.text(HELLO_TEXT_BYTES_MAX);
    else if (tag === 0x18) hello.windowBytes = reader.varint();
    else if (tag === 0x20) hello.windowRequests = reader.varint();
    else reader.skip(tag);
  }
  checkToken(hello.incarnation, 'incarnation');
  return hello;
}
