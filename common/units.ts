/** Sizes that every process agrees on, and their text form. The words: docs/glossary.md. */
import { StorageError } from './errors.js';

export const KIB = 1024;
export const MIB = 1024 * KIB;
export const GIB = 1024 * MIB;
export const TIB = 1024 * GIB;

/** Unit of NBD alignment and of LBA counting. */
export const SECTOR_SIZE = 512;
/** Unit of checksum and of the allocation bit. */
export const BLOCK_SIZE = 4096;
/** Unit of allocation, tag and copy. */
export const EXTENT_SIZE = MIB;
export const BLOCKS_PER_EXTENT = EXTENT_SIZE / BLOCK_SIZE;
/** Unit of the dirty mark. */
export const EXTENTS_PER_REGION = 64;
export const REGION_SIZE = EXTENT_SIZE * EXTENTS_PER_REGION;
/** Largest volume: offsets stay exact integers, extent numbers fit 32 bits with room. */
export const VOLUME_SIZE_MAX = 64 * TIB;
/** Largest single client request (NBD's own advice, 2^25). */
export const REQUEST_BYTES_MAX = 32 * MIB;
/** Largest single write or read on the wire between engine and replica: one extent. */
export const WIRE_IO_BYTES_MAX = EXTENT_SIZE;

const SUFFIXES: ReadonlyArray<readonly [string, number]> = [
  ['TiB', TIB],
  ['GiB', GIB],
  ['MiB', MIB],
  ['KiB', KIB],
];

/** Parses `10GiB`, `512MiB`, `4096` (bytes). Exact: no floats, no decimal units.
 *  @throws StorageError INVALID_ARGUMENT naming the text and the accepted forms */
export function parseSize(text: string): number {
  const match = /^([0-9]{1,16})(B|KiB|MiB|GiB|TiB)?$/.exec(text);
  const unit = match?.[2];
  const factor = unit === undefined || unit === 'B' ? 1 : SUFFIXES.find((s) => s[0] === unit)?.[1];
  const bytes = match === null || factor === undefined ? Number.NaN : Number(match[1]) * factor;
  if (!Number.isSafeInteger(bytes)) {
    throw new StorageError('INVALID_ARGUMENT', `size "${text.slice(0, 40)}" is not like 10GiB`, {
      hint: 'use a whole number with KiB, MiB, GiB or TiB',
    });
  }
  return bytes;
}

/** Shortest exact form with a binary unit, else one decimal: 1073741824 -> "1GiB", 1500 ->
 *  "1.5KiB". */
export function formatSize(bytes: number): string {
  for (const [suffix, factor] of SUFFIXES) {
    if (bytes >= factor) {
      const value = bytes / factor;
      return `${Number.isInteger(value) ? value : value.toFixed(1)}${suffix}`;
    }
  }
  return `${bytes}B`;
}

export function roundDown(value: number, unit: number): number {
  return value - (value % unit);
}

export function roundUp(value: number, unit: number): number {
  const rest = value % unit;
  return rest === 0 ? value : value + unit - rest;
}
