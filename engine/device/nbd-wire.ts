/**
 * The part of the NBD protocol that the device frontend speaks, as client. Source: NBD protocol
 * description (fixed newstyle negotiation, simple replies). All integers are big-endian.
 *
 * Structured replies are not negotiated: a simple reply header is 16 bytes, exactly as long as a
 * FUSE reply header, so that the bytes of a read go from the socket to /dev/fuse without being
 * copied (see ADR-0005).
 */
import { StorageError } from '../../common/errors.js';
import {
  GREETING_MAGIC_HIGH,
  GREETING_MAGIC_LOW,
  HANDSHAKE_FIXED_NEWSTYLE,
  INFO,
  OPTION,
  OPTION_HEADER_BYTES,
  OPTION_MAGIC_HIGH,
  OPTION_MAGIC_LOW,
  OPTION_REPLY,
  OPTION_REPLY_MAGIC_HIGH,
  OPTION_REPLY_MAGIC_LOW,
  REQUEST_MAGIC,
} from '../nbd/constants.js';
import { eraOf } from '../nbd/description.js';

export const GREETING_BYTES = 18;
/** Set in the type of every option reply that is a refusal. */
export const OPTION_REPLY_ERROR_BIT = 0x8000_0000;

/** Longer replies to INFO and GO than this are a broken server; export names end at 4096 bytes. */
export const OPTION_REPLY_BYTES_MAX = 8192;

/** What the server said about the export when the connection was opened. */
export interface ExportInfo {
  readonly sizeBytes: number;
  /** transmission flags, NBD_FLAG bits */
  readonly flags: number;
  /** smallest unit the server takes: 1 to 65536 */
  readonly blockBytesMin: number;
  /** longest payload of one request */
  readonly payloadBytesMax: number;
  /** see eraOf; undefined: the server says nothing of it */
  readonly era: number | undefined;
}

export interface OptionReply {
  readonly option: number;
  readonly type: number;
  readonly data: Buffer;
}

/** One INFO or GO that asks for the block sizes and the description. */
export function encodeInfoRequest(option: number, exportName: string): Buffer {
  const name = Buffer.from(exportName, 'utf8');
  const dataBytes = 4 + name.length + 2 + 4;
  const out = Buffer.alloc(OPTION_HEADER_BYTES + dataBytes);
  encodeOptionHeader(out, option, dataBytes);
  out.writeUInt32BE(name.length, 16);
  name.copy(out, 20);
  out.writeUInt16BE(2, 20 + name.length);
  out.writeUInt16BE(INFO.BLOCK_SIZE, 22 + name.length);
  out.writeUInt16BE(INFO.DESCRIPTION, 24 + name.length);
  return out;
}

export function encodeAbortOption(): Buffer {
  const out = Buffer.alloc(OPTION_HEADER_BYTES);
  encodeOptionHeader(out, OPTION.ABORT, 0);
  return out;
}

function encodeOptionHeader(out: Buffer, option: number, dataBytes: number): void {
  out.writeUInt32BE(OPTION_MAGIC_HIGH, 0);
  out.writeUInt32BE(OPTION_MAGIC_LOW, 4);
  out.writeUInt32BE(option, 8);
  out.writeUInt32BE(dataBytes, 12);
}

/** Writes a request header at `at`. @param lengthBytes fits 32 bits; */
export function encodeRequest(
  out: Buffer,
  at: number,
  request: {
    readonly type: number;
    readonly flags: number;
    readonly offsetBytes: number;
    readonly lengthBytes: number;
  },
  cookie: { readonly high: number; readonly low: number },
): void {
  out.writeUInt32BE(REQUEST_MAGIC, at);
  out.writeUInt16BE(request.flags, at + 4);
  out.writeUInt16BE(request.type, at + 6);
  out.writeUInt32BE(cookie.high, at + 8);
  out.writeUInt32BE(cookie.low, at + 12);
  out.writeUInt32BE(Math.floor(request.offsetBytes / 2 ** 32), at + 16);
  out.writeUInt32BE(request.offsetBytes % 2 ** 32, at + 20);
  out.writeUInt32BE(request.lengthBytes, at + 24);
}

/** Handshake flags of the server. @throws StorageError PROTOCOL_ERROR unless it speaks fixed
 *  newstyle */
export function decodeGreeting(bytes: Buffer): number {
  const isNbd =
    bytes.length >= GREETING_BYTES &&
    bytes.readUInt32BE(0) === GREETING_MAGIC_HIGH &&
    bytes.readUInt32BE(4) === GREETING_MAGIC_LOW &&
    bytes.readUInt32BE(8) === OPTION_MAGIC_HIGH &&
    bytes.readUInt32BE(12) === OPTION_MAGIC_LOW;
  const flags = isNbd ? bytes.readUInt16BE(16) : 0;
  if ((flags & HANDSHAKE_FIXED_NEWSTYLE) === 0) {
    throw new StorageError('PROTOCOL_ERROR', 'the server does not speak fixed newstyle NBD');
  }
  return flags;
}

/** Length of the data that follows an option reply header. @throws StorageError PROTOCOL_ERROR */
export function optionReplyDataBytes(header: Buffer): number {
  const high = header.readUInt32BE(0);
  if (high !== OPTION_REPLY_MAGIC_HIGH || header.readUInt32BE(4) !== OPTION_REPLY_MAGIC_LOW) {
    throw new StorageError('PROTOCOL_ERROR', 'NBD option reply has a wrong magic number');
  }
  const dataBytes = header.readUInt32BE(16);
  if (dataBytes > OPTION_REPLY_BYTES_MAX) {
    throw new StorageError(
      'PROTOCOL_ERROR',
      `NBD option reply of ${dataBytes} bytes is longer than ${OPTION_REPLY_BYTES_MAX}`,
    );
  }
  return dataBytes;
}

/** Collects the information replies of INFO and GO. */
export class ExportInfoBuilder {
  #sizeBytes: number | undefined;
  #flags = 0;
  #blockBytesMin = 1;
  #payloadBytesMax = 32 * 1024 * 1024;
  #era: number | undefined;

  /** @throws StorageError PROTOCOL_ERROR | OUT_OF_RANGE for an export larger than 2^53 bytes */
  add(data: Buffer): void {
    if (data.length < 2) throw malformed('information without a type');
    const type = data.readUInt16BE(0);
    if (type === INFO.EXPORT) {
      if (data.length !== 12) throw malformed('export information of a wrong length');
      const size = data.readBigUInt64BE(2);
      if (size > BigInt(Number.MAX_SAFE_INTEGER)) {
        throw new StorageError('OUT_OF_RANGE', `export of ${size} bytes is too large`);
      }
      this.#sizeBytes = Number(size);
      this.#flags = data.readUInt16BE(10);
    } else if (type === INFO.BLOCK_SIZE) {
      if (data.length !== 14) throw malformed('block size information of a wrong length');
      this.#blockBytesMin = data.readUInt32BE(2);
      this.#payloadBytesMax = data.readUInt32BE(10);
    } else if (type === INFO.DESCRIPTION) this.#era = eraOf(data.toString('utf8', 2));
  }

  /** @throws StorageError PROTOCOL_ERROR when the server did not tell the size, or told
   *          impossible block sizes */
  build(): ExportInfo {
    const min = this.#blockBytesMin;
    if (this.#sizeBytes === undefined) throw malformed('no export information');
    if (min === 0 || min > 65536 || (min & (min - 1)) !== 0 || this.#payloadBytesMax < min) {
      throw malformed(`block sizes ${min} and ${this.#payloadBytesMax}`);
    }
    return {
      sizeBytes: this.#sizeBytes,
      flags: this.#flags,
      blockBytesMin: min,
      payloadBytesMax: this.#payloadBytesMax,
      era: this.#era,
    };
  }
}

function malformed(what: string): StorageError {
  return new StorageError('PROTOCOL_ERROR', `NBD server sent ${what}`);
}

/** The refusal of an option as an error: NOT_FOUND for an unknown export, UNAVAILABLE otherwise. */
export function optionError(reply: OptionReply, exportName: string): StorageError {
  const text = reply.data.subarray(0, 200).toString('utf8');
  const code = reply.type === OPTION_REPLY.ERR_UNKNOWN ? 'NOT_FOUND' : 'UNAVAILABLE';
  const number = `0x${reply.type.toString(16)}`;
  return new StorageError(code, `NBD server refuses export "${exportName}" (${number}): ${text}`);
}
