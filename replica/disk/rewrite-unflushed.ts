/**
 * After a flush that failed: writes what dirty regions show back to the device, and flushes it.
 *
 * A device, and even more a page cache, may go on showing content that it does not hold durably and
 * will not write again (D3). Whoever compares such a copy with a good one finds them equal, and
 * trusts it; a power cut later takes the content away, though a flush was answered in between (D1,
 * R2). So that from now on what is shown is what is kept, every block in question is written anew.
 */
import { EXTENT_SIZE, EXTENTS_PER_REGION, KIB } from '../../common/units.js';
import type { StoreCounters } from '../store/store-counters.js';
import type { ScannedReplica } from './metadata-scan.js';
import { DATA_OFFSET_BYTES } from './superblock.js';
import type { DeviceAccess } from './superblock-pair.js';

const PIECE_BYTES = 256 * KIB;

/** Nothing else of these replicas is in use. A piece that cannot be read is left as it is: its
 *  blocks fail when they are read.
 *  @throws StorageError IO_ERROR | NO_SPACE (of a write or of the flush) */
export async function rewriteUnflushed(
  access: DeviceAccess & { readonly counters: StoreCounters },
  replicas: readonly ScannedReplica[],
): Promise<void> {
  const { device, pool, counters } = access;
  const buffer = pool.acquire(PIECE_BYTES);
  try {
    for (const { map, dirtyRegions } of replicas) {
      for (const region of dirtyRegions) {
        const first = region * EXTENTS_PER_REGION;
        const end = Math.min(first + EXTENTS_PER_REGION, map.extents);
        for (let extent = first; extent < end; extent += 1) {
          const physical = map.get(extent);
          if (physical === -1) continue;
          const at = DATA_OFFSET_BYTES + physical * EXTENT_SIZE;
          for (let done = 0; done < EXTENT_SIZE; done += PIECE_BYTES) {
            if (!(await isReadable(access, at + done, buffer.bytes))) continue;
            counters.deviceWrites += 1;
            await device.write(at + done, buffer.bytes);
          }
        }
      }
    }
    await device.flush();
  } finally {
    buffer.release();
  }
}

async function isReadable(
  { device }: DeviceAccess,
  offsetBytes: number,
  view: Buffer,
): Promise<boolean> {
  try {
    await device.read(offsetBytes, view);
    return true;
  } catch {
    return false;
  }
}
