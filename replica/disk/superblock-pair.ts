/** Reads and writes both copies of a superblock, and looks whether a disk is empty. */
import type { BlockDevice, BufferPool } from '../../common/block-device.js';
import { BLOCK_SIZE, MIB, roundDown } from '../../common/units.js';
import {
  decodeSuperblock,
  encodeSuperblock,
  isZero,
  SUPERBLOCK_BYTES,
  SUPERBLOCK_OFFSETS,
  type Superblock,
  type SuperblockCopy,
} from './superblock.js';

/** Spread over the disk, besides its first and last MiB. */
const SAMPLES = 64;

export interface DeviceAccess {
  readonly device: BlockDevice;
  readonly pool: BufferPool;
}

/** A copy that cannot be read counts as damaged: if the other one is older, the metadata knows.
 *  @throws StorageError IO_ERROR if no copy can be read */
export async function readSuperblocks(access: DeviceAccess): Promise<SuperblockCopy[]> {
  const copies: SuperblockCopy[] = [];
  const errors: unknown[] = [];
  for (const offset of SUPERBLOCK_OFFSETS) {
    try {
      copies.push(await readAt(access, offset, SUPERBLOCK_BYTES, decodeSuperblock));
    } catch (error) {
      errors.push(error);
      copies.push({ kind: 'damaged' });
    }
  }
  if (errors.length === SUPERBLOCK_OFFSETS.length) throw errors[0];
  return copies;
}

/** One copy after the other, each on stable storage before the next is touched: a torn write harms
 *  only one.
 *  @param offsets  copies to write; default both */
export async function writeSuperblocks(
  access: DeviceAccess,
  superblock: Superblock,
  offsets: readonly number[] = SUPERBLOCK_OFFSETS,
): Promise<void> {
  const { device, pool } = access;
  const buffer = pool.acquire(SUPERBLOCK_BYTES);
  try {
    encodeSuperblock(superblock).copy(buffer.bytes);
    for (const offset of offsets) {
      await device.write(offset, buffer.bytes);
      await device.flush();
    }
  } finally {
    buffer.release();
  }
}

/** The first offset found that is not zero: the first and last MiB are read whole, the rest is
 *  sampled.
 *  @param ignoreSuperblocks  left-overs of our own interrupted formatting do not count */
export async function findContent(
  access: DeviceAccess,
  options: { ignoreSuperblocks: boolean },
): Promise<number | undefined> {
  const { sizeBytes } = access.device;
  const pieces = new Map<number, number>([[0, MIB]]);
  for (let n = 1; n < SAMPLES; n += 1) {
    const at = roundDown(Math.floor((sizeBytes / SAMPLES) * n), BLOCK_SIZE);
    if (at >= MIB) pieces.set(at, BLOCK_SIZE);
  }
  pieces.set(roundDown(sizeBytes, BLOCK_SIZE) - MIB, MIB);
  for (const [offset, length] of pieces) {
    const found = await readAt(access, offset, length, (bytes) => {
      if (offset === 0 && options.ignoreSuperblocks) {
        for (const at of SUPERBLOCK_OFFSETS) bytes.fill(0, at, at + SUPERBLOCK_BYTES);
      }
      return firstContent(bytes);
    });
    if (found !== undefined) return offset + found;
  }
  return undefined;
}

function firstContent(bytes: Buffer): number | undefined {
  for (let at = 0; at < bytes.length; at += BLOCK_SIZE) {
    if (!isZero(bytes.subarray(at, at + BLOCK_SIZE))) return at;
  }
  return undefined;
}

async function readAt<T>(
  { device, pool }: DeviceAccess,
  offsetBytes: number,
  lengthBytes: number,
  judge: (bytes: Buffer) => T,
): Promise<T> {
  const buffer = pool.acquire(lengthBytes);
  try {
    await device.read(offsetBytes, buffer.bytes);
    return judge(buffer.bytes);
  } finally {
    buffer.release();
  }
}
