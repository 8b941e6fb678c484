/** Sparse reads, replaces and hashes in terms of blocks, on any store. */

import { createHash } from 'node:crypto';
import { bitIsSet, setBits } from '../../../common/bitmap.js';
import type { AlignedBuffer, BufferPool } from '../../../common/block-device.js';
import { BLOCK_SIZE } from '../../../common/units.js';
import { crc32c, hashBlocks } from '../../../native/index.js';
import { bitmapBytesOf } from '../../../proto/io-codec.js';
import type { ReplicaStore } from '../../../replica/replica-store.js';

/** Content of a range, block by block; undefined: absent. */
export type Blocks = ReadonlyArray<Buffer | undefined>;

export interface StoreUnderTest {
  readonly store: ReplicaStore;
  readonly pool: BufferPool;
}

/** Short names of contents, for comparisons that can be read; '-' : absent. */
export function names(content: Blocks): string[] {
  return content.map((block) =>
    block === undefined ? '-' : createHash('sha1').update(block).digest('hex').slice(0, 10),
  );
}

/** Makes the range that begins at `block` hold exactly this. */
export async function replace(
  { store, pool }: StoreUnderTest,
  block: number,
  content: Blocks,
): Promise<void> {
  const bitmap = Buffer.alloc(bitmapBytesOf(content.length));
  const checksums: number[] = [];
  const present: number[] = [];
  for (const [n, bytes] of content.entries()) {
    if (bytes === undefined) continue;
    setBits(bitmap, 0, n, 1);
    present.push(n);
    checksums.push(crc32c(bytes));
  }
  const [first] = present;
  let data: AlignedBuffer | undefined;
  if (first !== undefined) {
    const end = (present.at(-1) ?? first) + 1;
    data = pool.acquire((end - first) * BLOCK_SIZE);
    data.bytes.fill(0);
    for (const n of present) content[n]?.copy(data.bytes, (n - first) * BLOCK_SIZE);
  }
  const sums = Buffer.alloc(4 * checksums.length);
  for (const [n, sum] of checksums.entries()) sums.writeUInt32LE(sum, 4 * n);
  await store.replace(block * BLOCK_SIZE, content.length * BLOCK_SIZE, {
    ...{ bitmap, checksums: sums, data },
  });
}

/** What a sparse read says; its checksums were compared with what came. */
export async function readSparse(
  { store }: StoreUnderTest,
  block: number,
  blocks: number,
  options?: { raw?: boolean },
): Promise<Array<Buffer | undefined>> {
  const { data, checksums } = await store.readSparse(
    block * BLOCK_SIZE,
    blocks * BLOCK_SIZE,
    options,
  );
  const content: Array<Buffer | undefined> = [];
  let present = 0;
  for (let n = 0; n < blocks; n += 1) {
    if (!bitIsSet(checksums, 0, n)) {
      content.push(undefined);
      continue;
    }
    const from = present * BLOCK_SIZE;
    const bytes = Buffer.from(data?.bytes.subarray(from, from + BLOCK_SIZE) ?? []);
    if (crc32c(bytes) !== checksums.readUInt32LE(bitmapBytesOf(blocks) + 4 * present)) {
      throw new Error(`checksum of block ${block + n} is not of its data`);
    }
    content.push(bytes);
    present += 1;
  }
  const length = data?.bytes.length ?? 0;
  if (length !== present * BLOCK_SIZE || checksums.length !== bitmapBytesOf(blocks) + 4 * present) {
    throw new Error(`${length} bytes and ${checksums.length} of checksums for ${present} blocks`);
  }
  data?.release();
  return content;
}

export interface HashedBlock {
  readonly present: boolean;
  readonly bad: boolean;
  readonly hash: string;
}

export async function hashOf(
  { store }: StoreUnderTest,
  block: number,
  blocks: number,
  options?: { raw?: boolean },
): Promise<HashedBlock[]> {
  const { bitmaps, hashes } = await store.hash(block * BLOCK_SIZE, blocks * BLOCK_SIZE, options);
  const half = bitmapBytesOf(blocks);
  if (bitmaps.length !== 2 * half || hashes.length !== 16 * blocks) throw new Error('sizes');
  return Array.from({ length: blocks }, (_, n) => ({
    present: bitIsSet(bitmaps, 0, n),
    bad: bitIsSet(bitmaps, half, n),
    hash: hashes.toString('hex', 16 * n, 16 * (n + 1)),
  }));
}

/** Hash of one block's content; absent: of zeroes. */
export function blockHash(content: Buffer | undefined): string {
  const out = Buffer.alloc(16);
  hashBlocks(content ?? Buffer.alloc(BLOCK_SIZE), 0, BLOCK_SIZE, out, 0);
  return out.toString('hex');
}
