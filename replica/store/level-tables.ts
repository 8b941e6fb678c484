/**
 * Verifies the checksums inside LevelDB's table files before the library opens them.
 *
 * LevelDB keeps a checksum with each block of a table, and does not look at it when it reads:
 * damaged bytes reach its parser, which ends the process by an assertion, and with it the service
 * of every other disk. So each block is checked here. Format: a file is blocks, each followed by
 * one byte for its compression and a masked crc32c, and at the end a footer of 48 bytes that leads
 * to the index (table_format.md of LevelDB).
 */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { StorageError } from '../../common/errors.js';
import { crc32c } from '../../native/index.js';

const FOOTER_BYTES = 48;
const MAGIC = Buffer.from('57fb808b247547db', 'hex');
const TRAILER_BYTES = 5;
const CRC_MASK_DELTA = 0xa282ead8;

interface Handle {
  readonly offset: number;
  readonly size: number;
}

/** Reads every table of a database that nobody has open.
 *  @throws StorageError CORRUPT_METADATA naming the file and place | IO_ERROR */
export async function checkTables(directory: string): Promise<void> {
  for (const name of await readdir(directory)) {
    if (!/^[0-9]+\.(ldb|sst)$/.test(name)) continue;
    let bytes: Buffer;
    try {
      bytes = await readFile(join(directory, name));
    } catch (error) {
      throw new StorageError('IO_ERROR', `read metadata table ${name}`, {}, { cause: error });
    }
    const bad = findDamage(bytes);
    if (bad === undefined) continue;
    throw new StorageError('CORRUPT_METADATA', `metadata table ${name} is damaged: ${bad}`, {
      file: join(directory, name),
    });
  }
}

/** What is wrong with a table; undefined: nothing. Never throws, whatever the bytes are. */
export function findDamage(table: Buffer): string | undefined {
  const footer = table.length - FOOTER_BYTES;
  if (footer < 0 || !table.subarray(-MAGIC.length).equals(MAGIC)) return 'no footer';
  const cursor = { at: footer };
  const metaIndex = readHandle(table, cursor, table.length);
  const index = readHandle(table, cursor, table.length);
  if (metaIndex === undefined || index === undefined) return 'footer';
  for (const block of [metaIndex, index]) {
    const bad = checkBlock(table, block);
    if (bad !== undefined) return bad;
    // An index that is compressed cannot be followed; this project writes none.
    if (table[block.offset + block.size] !== 0) return `index at ${block.offset} is compressed`;
    const handles = handlesIn(table, block);
    if (handles === undefined) return `index at ${block.offset} is malformed`;
    for (const handle of handles) {
      const badBlock = checkBlock(table, handle);
      if (badBlock !== undefined) return badBlock;
    }
  }
  return undefined;
}

function checkBlock(table: Buffer, { offset, size }: Handle): string | undefined {
  const end = offset + size + TRAILER_BYTES;
  if (end > table.length - FOOTER_BYTES) return `block at ${offset} passes the end`;
  const masked = table.readUInt32LE(end - 4);
  const rotated = (masked - CRC_MASK_DELTA) >>> 0;
  const want = ((rotated >>> 17) | (rotated << 15)) >>> 0;
  // crc over the content and the compression byte
  return crc32c(table.subarray(offset, end - 4)) === want ? undefined : `block at ${offset}`;
}

/** The values of a block's entries, which are: shared, own and value length, key, value. */
function handlesIn(table: Buffer, block: Handle): Handle[] | undefined {
  const blockEnd = block.offset + block.size;
  if (block.size < 4) return undefined;
  const entriesEnd = blockEnd - 4 - 4 * table.readUInt32LE(blockEnd - 4);
  const handles: Handle[] = [];
  const cursor = { at: block.offset };
  while (cursor.at < entriesEnd) {
    const shared = readVarint(table, cursor, entriesEnd);
    const own = readVarint(table, cursor, entriesEnd);
    const valueBytes = readVarint(table, cursor, entriesEnd);
    if (shared === undefined || own === undefined || valueBytes === undefined) return undefined;
    cursor.at += own;
    const valueEnd = cursor.at + valueBytes;
    const handle = readHandle(table, cursor, Math.min(valueEnd, entriesEnd));
    if (handle === undefined || valueEnd > entriesEnd) return undefined;
    handles.push(handle);
    cursor.at = valueEnd;
  }
  return cursor.at === entriesEnd ? handles : undefined;
}

function readHandle(table: Buffer, cursor: { at: number }, end: number): Handle | undefined {
  const offset = readVarint(table, cursor, end);
  const size = readVarint(table, cursor, end);
  return offset === undefined || size === undefined ? undefined : { offset, size };
}

/** Seven bits per byte, low ones first. Seven bytes are more than a file can be long. */
function readVarint(table: Buffer, cursor: { at: number }, end: number): number | undefined {
  let value = 0;
  for (let shift = 1; shift < 2 ** 49; shift *= 128) {
    const byte = cursor.at < end ? table[cursor.at] : undefined;
    if (byte === undefined) return undefined;
    cursor.at += 1;
    value += (byte & 0x7f) * shift;
    if (byte < 0x80) return value;
  }
  return undefined;
}
