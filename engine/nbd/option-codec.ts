/** Bytes of the option phase: data of options in, replies out. Every length is checked against
 *  what is there. */
import assert from 'node:assert';
import {
  OPTION_REPLY_HEADER_BYTES,
  OPTION_REPLY_MAGIC_HIGH,
  OPTION_REPLY_MAGIC_LOW,
  STRING_BYTES_MAX,
} from './constants.js';

/** Refuses what is not valid: overlong sequences, surrogates, truncated ends. */
const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

export function encodeOptionReply(option: number, type: number, data?: Buffer): Buffer {
  const dataBytes = data?.length ?? 0;
  const reply = Buffer.allocUnsafe(OPTION_REPLY_HEADER_BYTES + dataBytes);
  reply.writeUInt32BE(OPTION_REPLY_MAGIC_HIGH, 0);
  reply.writeUInt32BE(OPTION_REPLY_MAGIC_LOW, 4);
  reply.writeUInt32BE(option, 8);
  reply.writeUInt32BE(type, 12);
  reply.writeUInt32BE(dataBytes, 16);
  data?.copy(reply, OPTION_REPLY_HEADER_BYTES);
  return reply;
}

/** A string of the protocol, or undefined: over 4096 bytes, not UTF-8, or with a NUL. */
export function decodeText(bytes: Buffer): string | undefined {
  if (bytes.length > STRING_BYTES_MAX || bytes.includes(0)) return undefined;
  try {
    return UTF8.decode(bytes);
  } catch {
    return undefined;
  }
}

/** Walks option data; after the first thing that does not fit `failed` stays true. */
class OptionReader {
  failed = false;
  #at = 0;

  constructor(readonly data: Buffer) {}

  uint(sizeBytes: 2 | 4): number {
    if (this.data.length - this.#at < sizeBytes) this.failed = true;
    if (this.failed) return 0;
    const value = this.data.readUIntBE(this.#at, sizeBytes);
    this.#at += sizeBytes;
    return value;
  }

  text(): string {
    const lengthBytes = this.uint(4);
    if (this.data.length - this.#at < lengthBytes) this.failed = true;
    if (this.failed) return '';
    const text = decodeText(this.data.subarray(this.#at, this.#at + lengthBytes));
    if (text === undefined) this.failed = true;
    this.#at += lengthBytes;
    return text ?? '';
  }

  /** True if everything fitted and nothing is left over. */
  finish(): boolean {
    return !this.failed && this.#at === this.data.length;
  }
}

export interface InfoRequest {
  readonly name: string;
  /** information types asked for, each once, unknown ones included */
  readonly wanted: ReadonlySet<number>;
}

/** Data of INFO and GO. Undefined: malformed. */
export function decodeInfoRequest(data: Buffer): InfoRequest | undefined {
  const reader = new OptionReader(data);
  const name = reader.text();
  const count = reader.uint(2);
  const wanted = new Set<number>();
  for (let i = 0; i < count && !reader.failed; i += 1) wanted.add(reader.uint(2));
  return reader.finish() ? { name, wanted } : undefined;
}

export interface ContextQuery {
  readonly name: string;
  readonly queries: readonly string[];
}

/** Data of LIST_META_CONTEXT and SET_META_CONTEXT. Undefined: malformed. */
export function decodeContextQuery(data: Buffer): ContextQuery | undefined {
  const reader = new OptionReader(data);
  const name = reader.text();
  const count = reader.uint(4);
  const queries: string[] = [];
  // each query takes at least 4 bytes of data, so the loop ends with the data
  for (let i = 0; i < count && !reader.failed; i += 1) queries.push(reader.text());
  return reader.finish() ? { name, queries } : undefined;
}

/** Big-endian record of 16, 32 and 64-bit numbers: `record([[2, type], [8, size]])`. */
export function record(fields: ReadonlyArray<readonly [2 | 4 | 8, number]>): Buffer {
  const sizeBytes = fields.reduce((sum, field) => sum + field[0], 0);
  const bytes = Buffer.allocUnsafe(sizeBytes);
  let at = 0;
  for (const [width, value] of fields) {
    assert(Number.isSafeInteger(value) && value >= 0);
    if (width === 8) bytes.writeBigUInt64BE(BigInt(value), at);
    else bytes.writeUIntBE(value, at, width);
    at += width;
  }
  return bytes;
}
