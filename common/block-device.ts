/**
 * The seam between policy and hardware: a flat array of bytes with direct I/O, and aligned memory
 * for it.
 *
 * `native/` implements it over io_uring or a thread pool; tests and the simulator implement it in
 * memory. One conformance suite (`test/conformance/block-device.ts`) runs on every implementation.
 */

/** Alignment of every buffer that a BufferPool hands out; enough for every device we know. */
export const BUFFER_ALIGNMENT = 4096;

/** A pool buffer: owned by exactly one holder, from `acquire` until its `release`.
 *  While an operation of a BlockDevice is in flight on it the device borrows it: neither release
 *  nor write to it. */
export interface AlignedBuffer {
  /** Exactly the bytes asked for; address is a multiple of BUFFER_ALIGNMENT. */
  readonly bytes: Buffer;
  /** Gives the memory back; the view must not be touched afterwards (debug builds poison it).
   *  A second release is a programmer error and asserts. */
  release(): void;
}

export interface BufferPool {
  /** Bytes handed out and not yet released. */
  readonly usedBytes: number;
  readonly limitBytes: number;
  /** @param lengthBytes positive, at most 4 MiB. Contents are undefined.
   *  @throws StorageError OVERLOADED when the limit would be passed (callers admit by bytes
   *    first) */
  acquire(lengthBytes: number): AlignedBuffer;
}

/** Direct I/O on one file or block device. No ordering between operations in flight; no caching.
 *  All offsets and lengths are multiples of `sectorSize`; memory comes from a BufferPool, at an
 *  offset in the buffer that is a multiple of `sectorSize`. A transfer is whole or an error: short
 *  ones are resubmitted inside. */
export interface BlockDevice {
  readonly path: string;
  readonly kind: 'file' | 'block' | 'memory';
  readonly sizeBytes: number;
  /** logical sector size: 512 or 4096 */
  readonly sectorSize: number;
  /** Reads `view.length` bytes; `view` is a subarray of a pool buffer and is borrowed until
   *  settled.
   *  @throws StorageError IO_ERROR (details.errno) | OUT_OF_RANGE | CLOSED */
  read(offsetBytes: number, view: Buffer): Promise<void>;
  /** @throws StorageError IO_ERROR | NO_SPACE | OUT_OF_RANGE | CLOSED; contents of the range are
   *    then unknown */
  write(offsetBytes: number, view: Buffer): Promise<void>;
  /** Resolves when everything whose write resolved before this call is on stable storage: fdatasync
   *  on a file, the same call (device cache flush) on a block device. Rule D1. After an error
   *  nothing may be assumed (D3). */
  flush(): Promise<void>;
  /** Gives the range back to the device (hole punch or BLKDISCARD). Contents are undefined
   *  afterwards. Resolves without effect where the device cannot. */
  discard(offsetBytes: number, lengthBytes: number): Promise<void>;
  /** The range reads back as zeroes. `mayUnmap` lets the device free it. */
  writeZeroes(
    offsetBytes: number,
    lengthBytes: number,
    options: { mayUnmap: boolean },
  ): Promise<void>;
  /** Refuses new work, waits for what is in flight, closes. Idempotent. */
  close(): Promise<void>;
}
