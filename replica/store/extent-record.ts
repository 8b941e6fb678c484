/**
 * The extent record: the same bytes in the cache and in the metadata
 * (docs/on-disk-format.md#extent-record).
 *
 * One layer exists so far, so an absent block reads as zeroes and the zero bitmap stays empty. Two
 * facts keep that true over a loss of power: a block's present bit is stored only after its data is
 * in the device, and an absent block of an allocated extent holds zeroes on the device, so that a
 * present bit that outlives its data shows zeroes and no old bytes.
 */
import assert from 'node:assert';
import { BLOCKS_PER_EXTENT } from '../../common/units.js';
import type { Tag } from '../../proto/control.js';
import { SEAL_BYTES } from './sealed-value.js';

export const EXTENT_FORMAT = 1;

const BITMAP_BYTES = BLOCKS_PER_EXTENT / 8;

/** Offsets inside a record, little endian. */
export const PHYSICAL_AT = 4;
export const TAG_EPOCH_AT = 8;
export const TAG_COUNTER_AT = 16;
export const PRESENT_AT = 24;
export const ZERO_AT = PRESENT_AT + BITMAP_BYTES;
export const CHECKSUMS_AT = ZERO_AT + BITMAP_BYTES;
export const RECORD_BODY_BYTES = CHECKSUMS_AT + 4 * BLOCKS_PER_EXTENT;
export const RECORD_BYTES = RECORD_BODY_BYTES + SEAL_BYTES;

/** In the cache only: blocks with a write in flight, after the record. */
export const BUSY_AT = RECORD_BYTES;
export const SLOT_BYTES = 1152;
assert(BUSY_AT + BITMAP_BYTES <= SLOT_BYTES);

/** "No physical extent". */
export const PHYSICAL_NONE = 0xffffffff;

/** Name of the content when the extent was cleaned last; {0, 0}: none. */
export function readTag(record: Buffer, base: number): Tag {
  return {
    epoch: readU64(record, base + TAG_EPOCH_AT),
    counter: readU64(record, base + TAG_COUNTER_AT),
  };
}

export function writeTag(record: Buffer, base: number, tag: Tag): void {
  writeU64(record, base + TAG_EPOCH_AT, tag.epoch);
  writeU64(record, base + TAG_COUNTER_AT, tag.counter);
}

/** Makes `record` that of an extent without content. */
export function blankRecord(record: Buffer, base: number): void {
  record.fill(0, base, base + SLOT_BYTES);
  record[base] = EXTENT_FORMAT;
  record.writeUInt32LE(PHYSICAL_NONE, base + PHYSICAL_AT);
}

export function writeU64(buffer: Buffer, offset: number, value: number): void {
  assert(Number.isSafeInteger(value) && value >= 0, `${value} is not a whole number`);
  buffer.writeUInt32LE(value % 0x100000000, offset);
  buffer.writeUInt32LE(Math.floor(value / 0x100000000), offset + 4);
}

/** NaN if it is not exact in a number: the caller's range check refuses it. */
export function readU64(buffer: Buffer, offset: number): number {
  const high = buffer.readUInt32LE(offset + 4);
  if (high > 0x1fffff) return Number.NaN;
  return high * 0x100000000 + buffer.readUInt32LE(offset);
}
