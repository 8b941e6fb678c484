/**
 * Header blocks (HPACK, RFC 7541) without a dynamic table: we announce table size 0, so a correct
 * peer refers to the static table only, and what it adds does not fit. We write literals, never
 * indexed, which needs no state on either side.
 */
import { StorageError } from '../../common/errors.js';
import { decodeHuffman } from './huffman.js';

export type HeaderList = ReadonlyArray<readonly [string, string]>;

/** Largest header list after decoding, counted as RFC 9113 10.5.1 does: name + value + 32. */
export const HEADER_LIST_BYTES_MAX = 16384;

/** RFC 7541, appendix A: `name` or `name=value`, index 1 first. */
const STATIC_TABLE: HeaderList = [
  ':authority|:method=GET|:method=POST|:path=/|:path=/index.html|:scheme=http|:scheme=https',
  ':status=200|:status=204|:status=206|:status=304|:status=400|:status=404|:status=500',
  'accept-charset|accept-encoding=gzip, deflate|accept-language|accept-ranges|accept',
  'access-control-allow-origin|age|allow|authorization|cache-control|content-disposition',
  'content-encoding|content-language|content-length|content-location|content-range',
  'content-type|cookie|date|etag|expect|expires|from|host|if-match|if-modified-since',
  'if-none-match|if-range|if-unmodified-since|last-modified|link|location|max-forwards',
  'proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|server',
  'set-cookie|strict-transport-security|transfer-encoding|user-agent|vary|via',
  'www-authenticate',
]
  .flatMap((line) => line.split('|'))
  .map((item) => {
    const split = item.indexOf('=');
    return split < 0 ? [item, ''] : [item.substring(0, split), item.substring(split + 1)];
  });

function corrupt(what: string): StorageError {
  return new StorageError('CORRUPT_MESSAGE', `header block: ${what}`);
}

class BlockReader {
  at = 0;

  constructor(readonly bytes: Buffer) {}

  get first(): number {
    return this.bytes[this.at] ?? 0;
  }

  /** An integer with a prefix of `bits` bits (RFC 7541, 5.1). */
  integer(bits: number): number {
    const mask = 2 ** bits - 1;
    let value = this.#byte() & mask;
    if (value < mask) return value;
    for (let factor = 1; factor <= 2 ** 21; factor *= 128) {
      const byte = this.#byte();
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
    }
    throw corrupt('integer too long');
  }

  string(): string {
    const huffman = this.first >= 0x80;
    const length = this.integer(7);
    if (length > this.bytes.length - this.at) throw corrupt('text passes the end');
    const text = this.bytes.subarray(this.at, this.at + length);
    this.at += length;
    return huffman ? decodeHuffman(text) : text.toString('latin1');
  }

  #byte(): number {
    const byte = this.bytes[this.at];
    if (byte === undefined) throw corrupt('it is cut');
    this.at += 1;
    return byte;
  }
}

/** The headers in order; names as sent. @throws StorageError CORRUPT_MESSAGE | LIMIT_EXCEEDED */
export function decodeHeaders(block: Buffer): Array<readonly [string, string]> {
  const reader = new BlockReader(block);
  const headers: Array<readonly [string, string]> = [];
  let listBytes = 0;
  while (reader.at < block.length) {
    const header = decodeField(reader, headers.length === 0);
    if (header === undefined) continue;
    listBytes += header[0].length + header[1].length + 32;
    if (listBytes > HEADER_LIST_BYTES_MAX) {
      throw new StorageError('LIMIT_EXCEEDED', `headers pass ${HEADER_LIST_BYTES_MAX} bytes`);
    }
    headers.push(header);
  }
  return headers;
}

function decodeField(reader: BlockReader, atStart: boolean): readonly [string, string] | undefined {
  const first = reader.first;
  if (first >= 0x80) return staticEntry(reader.integer(7));
  if ((first & 0xe0) === 0x20) {
    // Table size update: allowed before the first header, and to nothing but what we announced.
    const size = reader.integer(5);
    if (!atStart || size !== 0) throw corrupt(`table size ${size}`);
    return undefined;
  }
  // With indexing (01), without (0000), never (0001): all the same where nothing is kept.
  const index = reader.integer((first & 0x40) !== 0 ? 6 : 4);
  const name = index === 0 ? reader.string() : staticEntry(index)[0];
  return [name, reader.string()];
}

function staticEntry(index: number): readonly [string, string] {
  const entry = STATIC_TABLE[index - 1];
  if (entry === undefined) throw corrupt(`index ${index} is not in the static table`);
  return entry;
}

/** A header block of literals. Names in lower case; names and values latin1. */
export function encodeHeaders(headers: HeaderList): Buffer {
  const pieces: Buffer[] = [];
  for (const [name, value] of headers) {
    pieces.push(Buffer.of(0), encodeString(name), encodeString(value));
  }
  return Buffer.concat(pieces);
}

function encodeString(text: string): Buffer {
  const bytes = Buffer.from(text, 'latin1');
  const header: number[] = [Math.min(bytes.length, 127)];
  if (bytes.length >= 127) {
    let rest = bytes.length - 127;
    for (; rest >= 128; rest >>>= 7) header.push((rest & 0x7f) | 0x80);
    header.push(rest);
  }
  return Buffer.concat([Buffer.from(header), bytes]);
}
