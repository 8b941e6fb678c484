/**
 * The only face of the native module: direct I/O, aligned memory, checksums and hashes, locks and
 * the FUSE channel.
 *
 * One instance per thread: devices, buffers and channels belong to the thread that made them. How
 * it works: ADR-0001.
 */
import type { BlockDevice, BufferPool } from '../common/block-device.js';
import type { Clock } from '../common/clock.js';
import { addon } from './addon.js';
import { NativeBufferPool } from './buffer-pool.js';
import type { IoBackend } from './direct-device.js';
import { ringRefusal } from './io-channel.js';
import { type OpenOptions, openDirectDevice } from './open-device.js';

export { BLOCK_HASH_BYTES, hashBlocks } from './block-hash.js';
export { copyAndChecksum, crc32c, crc32cBlocks, crc32cVerify, ZERO_BLOCK_CRC } from './checksum.js';
export { FdChannel } from './fd-channel.js';
export { type FileLock, lockFile } from './file-lock.js';
export { fuseMount, fuseUnmount } from './fuse-mount.js';
export type { IoBackend, OpenOptions };

/** A BlockDevice with the facts that doctor and benchmarks show. */
export interface DirectBlockDevice extends BlockDevice {
  readonly backend: IoBackend;
  /** false: the file system refuses O_DIRECT, so the page cache is used; flush is as durable,
   *  memory use is not ours */
  readonly directIo: boolean;
  /** false once the device has refused a discard */
  readonly discardSupported: boolean;
}

export interface NativeCapabilities {
  readonly ioUring: boolean;
  /** why not, when `ioUring` is false */
  readonly ioUringReason?: string;
  readonly crc32c: 'sse4.2' | 'armv8' | 'table';
}

/** Opens an existing file or block device for direct I/O. Its size is taken now, rounded down to
 *  whole sectors. Besides the errors of BlockDevice its operations reject with OVERLOADED when 1024
 *  are in flight and 16 Ki wait, and with READ_ONLY. Misaligned offsets, lengths and memory are
 *  programmer errors and assert.
 *  @throws StorageError NOT_FOUND | PERMISSION | READ_ONLY | DISK_LOCKED | INVALID_ARGUMENT
 *  (neither file nor block
 *          device) | UNSUPPORTED (sectors above 4096 bytes, or io_uring asked for and forbidden
 *          here) | IO_ERROR */
export function openBlockDevice(
  path: string,
  options: OpenOptions = {},
): Promise<DirectBlockDevice> {
  return openDirectDevice(path, options);
}

/** Aligned memory in size classes from 4 KiB to 4 MiB, grown in chunks on demand. `limitBytes`
 *  counts the bytes asked for; a class may use up to a third more. Chunks idle for one to two
 *  seconds return their pages to the system. With AUROCHS_DEBUG_BUFFERS=1, and under vitest,
 *  released buffers are poisoned and the poison is checked. */
export function createBufferPool(options: { limitBytes: number; clock?: Clock }): BufferPool {
  return new NativeBufferPool(options);
}

/** What this host offers; opens this thread's ring to find out. */
export function nativeCapabilities(): NativeCapabilities {
  const refusal = ringRefusal();
  return {
    ioUring: refusal === undefined,
    ...(refusal === undefined ? {} : { ioUringReason: refusal }),
    crc32c: addon.crc32cName(),
  };
}
