/**
 * The tag of each region's last clean, of one replica.
 *
 * A tag names content: regions with equal tags that are both clean hold the same, with no look at
 * their extents. {0, 0} says that the region was never cleaned; if it is clean all the same it was
 * never written. What is kept here is what the metadata holds; 16 bytes per region, in chunks that
 * exist only where used.
 */
import type { Tag } from '../../proto/control.js';
import { readU64, writeU64 } from './extent-record.js';
import { checkSeal, seal } from './sealed-value.js';

const CHUNK_REGIONS = 256;
const TAG_FORMAT = 1;
const TAG_BODY_BYTES = 24;

export const NO_TAG: Tag = { epoch: 0, counter: 0 };

export function isNoTag(tag: Tag): boolean {
  return tag.epoch === 0 && tag.counter === 0;
}

export function sameTag(a: Tag, b: Tag): boolean {
  return a.epoch === b.epoch && a.counter === b.counter;
}

export class RegionTags {
  readonly #chunks = new Map<number, Float64Array>();

  get(region: number): Tag {
    const chunk = this.#chunks.get(Math.floor(region / CHUNK_REGIONS));
    if (chunk === undefined) return NO_TAG;
    const at = 2 * (region % CHUNK_REGIONS);
    return { epoch: chunk[at] ?? 0, counter: chunk[at + 1] ?? 0 };
  }

  set(region: number, tag: Tag): void {
    const index = Math.floor(region / CHUNK_REGIONS);
    const chunk = this.#chunks.get(index) ?? new Float64Array(2 * CHUNK_REGIONS);
    this.#chunks.set(index, chunk);
    const at = 2 * (region % CHUNK_REGIONS);
    chunk[at] = tag.epoch;
    chunk[at + 1] = tag.counter;
  }
}

/** The stored form of a tag; the same for the same key and tag. */
export function sealedTag(key: Buffer, tag: Tag): { value: Buffer; crc: number } {
  const body = Buffer.alloc(TAG_BODY_BYTES);
  body[0] = TAG_FORMAT;
  writeU64(body, 8, tag.epoch);
  writeU64(body, 16, tag.counter);
  return seal(key, body);
}

/** Undefined: damaged. */
export function openTag(key: Buffer, value: Buffer): { tag: Tag; crc: number } | undefined {
  const crc = checkSeal(key, value);
  if (crc === undefined || value[0] !== TAG_FORMAT) return undefined;
  if (value.length < TAG_BODY_BYTES) return undefined;
  const tag = { epoch: readU64(value, 8), counter: readU64(value, 16) };
  const whole = Number.isSafeInteger(tag.epoch) && Number.isSafeInteger(tag.counter);
  return whole && !isNoTag(tag) ? { tag, crc } : undefined;
}
