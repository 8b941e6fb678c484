/**
 * The only face of the native module: direct I/O, aligned memory, checksums, locks and the FUSE channel.
 */
import type { BlockDevice, BufferPool } from '../common/block-device.js';
import { StorageError } from '../common/errors.js';

export type IoBackend = 'io_uring' | 'threads';

export interface OpenOptions {
  readonly readOnly?: boolean;
  /** A second exclusive holder gets DISK_LOCKED: flock on the file, O_EXCL as well on a block device. */
  readonly exclusive?: boolean;
  readonly backend?: 'auto' | IoBackend;
}

/** A BlockDevice with the facts that doctor and benchmarks show. */
export interface DirectBlockDevice extends BlockDevice {
  readonly backend: IoBackend;
  /** false: the file system refuses O_DIRECT (tmpfs), so the page cache is used */
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

export interface FileLock {
  /** Idempotent. */
  release(): void;
}

/** crc32c of 4096 zero bytes. */
export const ZERO_BLOCK_CRC = 0x98f94189;

function notBuilt(): never {
  throw new StorageError('UNSUPPORTED', 'the native module is not written yet');
}

/** Opens a file or a block device for direct I/O.
 *  @throws StorageError NOT_FOUND | PERMISSION | DISK_LOCKED | UNSUPPORTED | IO_ERROR */
export function openBlockDevice(
  _path: string,
  _options: OpenOptions = {},
): Promise<DirectBlockDevice> {
  return notBuilt();
}

/** Aligned memory in size classes up to 4 MiB, grown in chunks on demand, given back when idle. */
export function createBufferPool(_options: { limitBytes: number }): BufferPool {
  return notBuilt();
}

/** flock on a lock file, which is created if missing. @throws StorageError DISK_LOCKED if held elsewhere */
export function lockFile(_path: string): Promise<FileLock> {
  return notBuilt();
}

export function crc32c(_bytes: Buffer): number {
  return notBuilt();
}

/** Writes the crc32c of each 4096-byte block as little-endian u32 to `out`. */
export function crc32cBlocks(
  _src: Buffer,
  _srcOffset: number,
  _lengthBytes: number,
  _out: Buffer,
  _outOffset: number,
): void {
  notBuilt();
}

/** Index of the first block whose crc32c differs from `expected`, or -1. */
export function crc32cVerify(
  _src: Buffer,
  _srcOffset: number,
  _lengthBytes: number,
  _expected: Buffer,
  _expectedOffset: number,
): number {
  return notBuilt();
}

/** Copies and checksums the copy in one pass. */
export function copyAndChecksum(
  _src: Buffer,
  _srcOffset: number,
  _dst: Buffer,
  _dstOffset: number,
  _lengthBytes: number,
  _out: Buffer,
  _outOffset: number,
): void {
  notBuilt();
}

export function nativeCapabilities(): NativeCapabilities {
  return notBuilt();
}

/** Mounts a FUSE file system whose requests arrive on the returned descriptor (non-blocking, close-on-exec).
 *  @param options.options  comma-separated, added to fd, rootmode, user_id and group_id; for example
 *                          `allow_other,max_read=1048576` */
export function fuseMount(_dir: string, _options: { source: string; options?: string }): number {
  return notBuilt();
}

export function fuseUnmount(_dir: string, _options: { lazy?: boolean } = {}): void {
  notBuilt();
}

/** A message descriptor such as /dev/fuse on the event loop. Owns the descriptor. */
export class FdChannel {
  constructor(readonly fd: number) {}

  /** One message into `view`; its length. One read at a time.
   *  @throws StorageError CLOSED (unmounted or closed) | IO_ERROR */
  read(_view: Buffer): Promise<number> {
    return notBuilt();
  }

  /** One writev, at once; the bytes taken. @throws StorageError IO_ERROR (details.errno) | CLOSED */
  write(_views: readonly Buffer[]): number {
    return notBuilt();
  }

  /** A pending read is rejected with CLOSED. Idempotent. */
  close(): void {
    notBuilt();
  }
}
