/**
 * The seam between the replica's data service and its disk: one copy of one volume.
 *
 * The data service (stream, epochs, batching) calls this; `replica/store/` implements it over a
 * BlockDevice and level.
 */
import type { AlignedBuffer } from '../common/block-device.js';
import type { ExtentInfo, ExtentTag, RegionInfo, Tag } from '../proto/control.js';

export interface StoredRead {
  /** The data in pool memory, `lengthBytes` of it; the caller owns it and releases it. Undefined:
   *  all blocks are zero. */
  readonly data: AlignedBuffer | undefined;
  /** crc32c per block, little endian u32, `lengthBytes / BLOCK_SIZE` of them; for absent blocks
   *  that of 4096 zero bytes. */
  readonly checksums: Buffer;
}

export interface SparseRead {
  /** The present blocks, packed in order, in pool memory; the caller owns it and releases it.
   *  Undefined: none is present. */
  readonly data: AlignedBuffer | undefined;
  /** One bit per block of the range, the first in the lowest bit, filled up to whole words of four
   *  bytes, then a crc32c per present block: as on the wire. */
  readonly checksums: Buffer;
}

/** What a range of one extent is to hold. The caller has verified that it goes together. */
export interface Replacement {
  /** One bit per block of the range, the first in the lowest bit. Borrowed until `replace`
   *  returns. */
  readonly bitmap: Buffer;
  /** little endian u32 per set bit; borrowed likewise */
  readonly checksums: Buffer;
  /** Pool memory, from the block of the first set bit to that of the last one, with zeroes where a
   *  bit between them is not set; ownership passes to the store. Undefined: no bit is set. */
  readonly data: AlignedBuffer | undefined;
}

export interface BlockHashes {
  /** Two bitmaps as on the wire: present blocks, then bad ones. */
  readonly bitmaps: Buffer;
  /** 16 bytes per block; those of 4096 zero bytes for an absent block, 16 zero bytes for one that
   *  the device could not read */
  readonly hashes: Buffer;
}

export interface MapRun {
  readonly blocks: number;
  readonly hole: boolean;
}

/** Offsets and lengths: whole blocks, inside the volume, at most WIRE_IO_BYTES_MAX for read and
 *  write. The engine's range lock keeps overlapping writes apart; the store still never corrupts
 *  itself if they overlap. A failure of device or metadata on a write, trim, zeroes, flush or clean
 *  fails the store for good (P8): every later call throws REPLICA_FAILED until the replica is
 *  reopened. A failed read does not. */
export interface ReplicaStore {
  readonly volume: string;
  readonly replicaId: string;
  readonly sizeBytes: number;
  readonly failedReason: string | undefined;
  /** Bytes of extents that this replica has allocated on the disk. */
  readonly allocatedBytes: number;
  /** Verifies every present block against its stored checksum.
   *  With `raw` nothing is verified and the checksums are computed from what was read (comparison
   *  after a dirty start).
   *  @throws StorageError CORRUPT_BLOCK (details.badBlock: index in the request) | IO_ERROR */
  read(offsetBytes: number, lengthBytes: number, options?: { raw?: boolean }): Promise<StoredRead>;
  /** As read, but only the present blocks come. */
  readSparse(
    offsetBytes: number,
    lengthBytes: number,
    options?: { raw?: boolean },
  ): Promise<SparseRead>;
  /** A hash per block, and which blocks are bad: present, and not what their checksum says (never
   *  with `raw`), or not readable. A bad block is no error. At most WIRE_IO_BYTES_MAX.
   *  @throws StorageError IO_ERROR only for what concerns no single block */
  hash(offsetBytes: number, lengthBytes: number, options?: { raw?: boolean }): Promise<BlockHashes>;
  /** Resolves when the write is in the device (not flushed) and metadata that it needed has reached
   *  the operating system (it survives kill -9). P1: the region's dirty mark is durable before the
   *  data write starts.
   *  @param data      pool memory, a multiple of BLOCK_SIZE; ownership passes to the store, which
   *    releases it
   *  @param checksums little endian u32 per block, already verified by the caller; borrowed only
   *    until this call returns
   *  @throws NO_SPACE (nothing changed) | IO_ERROR | REPLICA_FAILED */
  write(offsetBytes: number, data: AlignedBuffer, checksums: Buffer): Promise<void>;
  /** Afterwards the range holds exactly the given blocks, the others of it are absent. As durable
   *  as a write, and marked like one (P1); where nothing was and nothing comes, nothing happens.
   *  @param offsetBytes  whole blocks inside one extent
   *  @throws NO_SPACE (nothing changed) | IO_ERROR | REPLICA_FAILED */
  replace(offsetBytes: number, lengthBytes: number, replacement: Replacement): Promise<void>;
  /** Reads back as zeroes; whole extents are freed (P9: reused only after the metadata is synced).
   *  Any length. */
  trim(offsetBytes: number, lengthBytes: number): Promise<void>;
  /** As trim; with `noHole` the blocks are written as zeroes and stay allocated. */
  writeZeroes(
    offsetBytes: number,
    lengthBytes: number,
    options: { noHole: boolean },
  ): Promise<void>;
  /** D1, P8: all resolved writes and metadata are on stable storage. Concurrent calls share device
   *  flushes (group commit). */
  flush(): Promise<void>;
  /** Allocation at block precision from metadata alone; runs merged; at most `runsMax`. */
  map(offsetBytes: number, lengthBytes: number, runsMax: number): Promise<MapRun[]>;
  /** P2: one synced batch stores checksums and `tag` of the region's written extents and of the
   *  region itself, and removes the dirty mark. The caller has held off writes and flushed every
   *  member. A clean region takes the tag, too.
   *  @param tag  never used twice
   *  @throws CONFLICT if a write in the region is in flight here */
  clean(regionNumber: number, tag: Tag): Promise<void>;
  /** As clean, after this replica was made equal to a clean source: the region and its extents get
   *  the source's tags, in one synced batch after a flush.
   *  @param tag         {0, 0} only without extents: the source was never written there
   *  @param extentTags  exactly the extents of the region that are allocated
   *  @throws CONFLICT (a write in the region is in flight, or other extents are allocated here;
   *    nothing changed) | INVALID_ARGUMENT */
  cleanAs(regionNumber: number, tag: Tag, extentTags: readonly ExtentTag[]): Promise<void>;
  /** Region numbers with a dirty mark, ascending. */
  dirtyRegions(): number[];
  /** Regions of [first, first + count), ascending, without those that are clean, without tag and
   *  without extents. */
  regions(first: number, count: number): RegionInfo[];
  /** Extents of a region that are allocated or were written since its mark, ascending. Each is as
   *  it was at some time during the call. */
  extents(regionNumber: number): Promise<ExtentInfo[]>;
}
