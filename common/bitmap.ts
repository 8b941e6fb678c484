/** Bitmaps inside a larger buffer: bit n of the map that starts at `base` is bit n % 8 of byte base
 *  + n / 8. Ranges are [first, first + count), count at least 1. */

/** Mask of the bits [from, to) of one byte, 0 <= from < to <= 8. */
function mask(from: number, to: number): number {
  return ((1 << to) - 1) & ~((1 << from) - 1);
}

export function bitIsSet(map: Uint8Array, base: number, bit: number): boolean {
  return ((map[base + (bit >> 3)] ?? 0) & (1 << (bit & 7))) !== 0;
}

export function allSet(map: Uint8Array, base: number, first: number, count: number): boolean {
  if (count === 1) return bitIsSet(map, base, first);
  const end = first + count;
  for (let bit = first; bit < end; ) {
    const from = bit & 7;
    const to = Math.min(8, from + (end - bit));
    const want = mask(from, to);
    if (((map[base + (bit >> 3)] ?? 0) & want) !== want) return false;
    bit += to - from;
  }
  return true;
}

export function anySet(map: Uint8Array, base: number, first: number, count: number): boolean {
  if (count === 1) return bitIsSet(map, base, first);
  const end = first + count;
  for (let bit = first; bit < end; ) {
    const from = bit & 7;
    const to = Math.min(8, from + (end - bit));
    if (((map[base + (bit >> 3)] ?? 0) & mask(from, to)) !== 0) return true;
    bit += to - from;
  }
  return false;
}

export function setBits(map: Uint8Array, base: number, first: number, count: number): void {
  const end = first + count;
  for (let bit = first; bit < end; ) {
    const from = bit & 7;
    const to = Math.min(8, from + (end - bit));
    const at = base + (bit >> 3);
    map[at] = (map[at] ?? 0) | mask(from, to);
    bit += to - from;
  }
}

export function clearBits(map: Uint8Array, base: number, first: number, count: number): void {
  const end = first + count;
  for (let bit = first; bit < end; ) {
    const from = bit & 7;
    const to = Math.min(8, from + (end - bit));
    const at = base + (bit >> 3);
    map[at] = (map[at] ?? 0) & ~mask(from, to);
    bit += to - from;
  }
}

/** End of the run of equal bits that starts at `first`, at most `end`. */
export function runEnd(map: Uint8Array, base: number, first: number, end: number): number {
  const value = bitIsSet(map, base, first);
  const full = value ? 0xff : 0;
  let bit = first + 1;
  while (bit < end) {
    if ((bit & 7) === 0 && bit + 8 <= end && map[base + (bit >> 3)] === full) bit += 8;
    else if (bitIsSet(map, base, bit) === value) bit += 1;
    else return bit;
  }
  return end;
}

/** Calls back for each run of bits equal to `value` inside the range. */
export function forEachRun(
  map: Uint8Array,
  base: number,
  range: { first: number; count: number; value: boolean },
  callback: (first: number, count: number) => void,
): void {
  const end = range.first + range.count;
  for (let bit = range.first; bit < end; ) {
    const next = runEnd(map, base, bit, end);
    if (bitIsSet(map, base, bit) === range.value) callback(bit, next - bit);
    bit = next;
  }
}

/** How many bits of the range are set; the range may be empty. */
export function countSet(map: Uint8Array, base: number, first: number, count: number): number {
  const end = first + count;
  let set = 0;
  for (let bit = first; bit < end; ) {
    const from = bit & 7;
    const to = Math.min(8, from + (end - bit));
    let byte = (map[base + (bit >> 3)] ?? 0) & mask(from, to);
    for (; byte !== 0; byte &= byte - 1) set += 1;
    bit += to - from;
  }
  return set;
}
