/**
 * After an unclean stop: makes the record of one extent true again, from what the device holds.
 *
 * Present blocks: their checksums in memory were lost with the process, so they are computed anew;
 * whether the content is the right one is for the comparison with other replicas to say. Absent
 * blocks: a write that died before its present bit was stored may have left bytes there; they are
 * zeroed, so that they never come back as the content of a later write.
 */

import { bitIsSet } from '../../common/bitmap.js';
import { BLOCK_SIZE, BLOCKS_PER_EXTENT, KIB } from '../../common/units.js';
import { crc32cBlocks, ZERO_BLOCK_CRC } from '../../native/index.js';
import { CHECKSUMS_AT, PRESENT_AT, SLOT_BYTES } from './extent-record.js';
import type { StoreContext } from './store-context.js';

const PIECE_BLOCKS = (256 * KIB) / BLOCK_SIZE;

/** @param extent its pinned slot and its place; nothing is written to it meanwhile
 *  @throws StorageError IO_ERROR | OVERLOADED; the record is unchanged or partly true, and still
 *    unproven */
export async function proveExtent(
  context: StoreContext,
  extent: { readonly slot: number; readonly physical: number },
): Promise<void> {
  const { proofTurn } = context.disk;
  await proofTurn.acquire(1);
  try {
    let zeroed = false;
    for (let block = 0; block < BLOCKS_PER_EXTENT; block += PIECE_BLOCKS) {
      zeroed = (await provePiece(context, extent, block)) || zeroed;
    }
    if (zeroed) await context.disk.flush();
  } finally {
    proofTurn.release(1);
  }
}

/** True if something had to be zeroed. */
async function provePiece(
  context: StoreContext,
  { slot, physical }: { readonly slot: number; readonly physical: number },
  first: number,
): Promise<boolean> {
  const { cache, device, pool } = context.disk;
  const buffer = pool.acquire(PIECE_BLOCKS * BLOCK_SIZE);
  try {
    const found = Buffer.allocUnsafe(4 * PIECE_BLOCKS);
    await device.read(context.deviceOffset(physical, first), buffer.bytes);
    crc32cBlocks(buffer.bytes, 0, buffer.bytes.length, found, 0);
    const base = slot * SLOT_BYTES;
    const stray: number[] = [];
    for (let n = 0; n < PIECE_BLOCKS; n += 1) {
      const block = first + n;
      const checksum = found.readUInt32LE(4 * n);
      if (bitIsSet(cache.slab, base + PRESENT_AT, block)) {
        cache.slab.writeUInt32LE(checksum, base + CHECKSUMS_AT + 4 * block);
      } else if (checksum !== ZERO_BLOCK_CRC) stray.push(block);
    }
    for (const block of stray) {
      const at = context.deviceOffset(physical, block);
      await device.writeZeroes(at, BLOCK_SIZE, { mayUnmap: true });
    }
    return stray.length > 0;
  } finally {
    buffer.release();
  }
}
