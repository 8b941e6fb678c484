/**
 * The part of the FUSE kernel protocol that a file system with one file needs. Source:
 * linux/fuse.h, protocol 7.31 and later. Integers are in host order; every host we run on is
 * little-endian.
 */
import { StorageError } from '../../common/errors.js';

export const FUSE_OP = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  INTERRUPT: 36,
  DESTROY: 38,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
} as const;

export const FUSE_INIT_FLAG = {
  ASYNC_DIO: 1 << 15,
  BIG_WRITES: 1 << 5,
  MAX_PAGES: 1 << 22,
} as const;
export const FOPEN = {
  DIRECT_IO: 1 << 0,
  NOFLUSH: 1 << 5,
  PARALLEL_DIRECT_WRITES: 1 << 6,
} as const;
export const FALLOC = { KEEP_SIZE: 0x01, PUNCH_HOLE: 0x02, ZERO_RANGE: 0x10 } as const;
export const ERRNO = { NOENT: 2, IO: 5, INVAL: 22, ROFS: 30, NOSYS: 38, OPNOTSUPP: 95 } as const;

export const FUSE_MAJOR = 7;
/** Newest minor version that we know; the smaller of ours and the kernel's counts. */
export const FUSE_MINOR = 38;
/** Oldest kernel protocol with everything used here (max_pages, 24-byte init extensions): Linux
 *  4.20. */
export const FUSE_MINOR_MIN = 28;

export const IN_HEADER_BYTES = 40;
export const OUT_HEADER_BYTES = 16;
export const WRITE_HEADER_BYTES = IN_HEADER_BYTES + 40;
export const ROOT_NODE = 1;
export const FILE_NODE = 2;
const ATTR_BYTES = 88;
const PAGE_BYTES = 4096;

export interface FuseInit {
  readonly major: number;
  readonly minor: number;
  readonly flags: number;
}

export interface FuseReply {
  /** OUT_HEADER_BYTES free, then the body */
  readonly bytes: Buffer;
}

/** Offset or length field. @throws StorageError OUT_OF_RANGE past 2^53 */
export function readU64(bytes: Buffer, at: number): number {
  const value = bytes.readUInt32LE(at + 4) * 2 ** 32 + bytes.readUInt32LE(at);
  if (!Number.isSafeInteger(value)) {
    throw new StorageError('OUT_OF_RANGE', 'a FUSE request names an offset beyond 2^53');
  }
  return value;
}

function writeU64(bytes: Buffer, value: number, at: number): void {
  bytes.writeUInt32LE(value % 2 ** 32, at);
  bytes.writeUInt32LE(Math.floor(value / 2 ** 32), at + 4);
}

/** Fills the header of a reply of `lengthBytes` in all. The two halves name the request that is
 *  answered. */
export function encodeOutHeader(
  out: Buffer,
  lengthBytes: number,
  errno: number,
  unique: { readonly uniqueLow: number; readonly uniqueHigh: number },
): void {
  out.writeUInt32LE(lengthBytes, 0);
  out.writeInt32LE(-errno, 4);
  out.writeUInt32LE(unique.uniqueLow, 8);
  out.writeUInt32LE(unique.uniqueHigh, 12);
}

export function decodeInit(bytes: Buffer): FuseInit {
  if (bytes.length < IN_HEADER_BYTES + 16) {
    throw new StorageError('PROTOCOL_ERROR', 'FUSE INIT is too short');
  }
  return {
    major: bytes.readUInt32LE(IN_HEADER_BYTES),
    minor: bytes.readUInt32LE(IN_HEADER_BYTES + 4),
    flags: bytes.readUInt32LE(IN_HEADER_BYTES + 12),
  };
}

/** `ioBytesMax`: a multiple of the page size, at most 1 MiB. `backgroundMax`: below 65536. */
export interface InitLimits {
  readonly ioBytesMax: number;
  readonly backgroundMax: number;
}

/** Limits that we ask for. `ioBytesMax` is a multiple of the page size and at most 1 MiB.
 *  Background requests are those of asynchronous direct I/O: all that the loop device sends. */
export function encodeInitReply(init: FuseInit, limits: InitLimits): Buffer {
  const wanted = FUSE_INIT_FLAG.ASYNC_DIO | FUSE_INIT_FLAG.BIG_WRITES | FUSE_INIT_FLAG.MAX_PAGES;
  const out = Buffer.alloc(OUT_HEADER_BYTES + 64);
  const body = out.subarray(OUT_HEADER_BYTES);
  body.writeUInt32LE(FUSE_MAJOR, 0);
  body.writeUInt32LE(Math.min(init.minor, FUSE_MINOR), 4);
  body.writeUInt32LE(limits.ioBytesMax, 8);
  body.writeUInt32LE((init.flags & wanted) >>> 0, 12);
  body.writeUInt16LE(limits.backgroundMax, 16);
  body.writeUInt16LE(limits.backgroundMax, 18);
  body.writeUInt32LE(limits.ioBytesMax, 20);
  body.writeUInt32LE(1, 24);
  body.writeUInt16LE(limits.ioBytesMax / PAGE_BYTES, 28);
  return out;
}

export interface NodeAttributes {
  readonly node: number;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
}

function encodeAttributes(out: Buffer, at: number, attributes: NodeAttributes): void {
  const isRoot = attributes.node === ROOT_NODE;
  const fileMode = attributes.readOnly ? 0o100400 : 0o100600;
  writeU64(out, attributes.node, at);
  writeU64(out, attributes.sizeBytes, at + 8);
  writeU64(out, Math.floor(attributes.sizeBytes / 512), at + 16);
  out.writeUInt32LE(isRoot ? 0o040500 : fileMode, at + 60);
  out.writeUInt32LE(isRoot ? 2 : 1, at + 64);
  out.writeUInt32LE(PAGE_BYTES, at + 80);
}

/** Reply to GETATTR. Not cacheable: whoever asks after a resize must see the new size. */
export function encodeAttrReply(attributes: NodeAttributes): Buffer {
  const out = Buffer.alloc(OUT_HEADER_BYTES + 16 + ATTR_BYTES);
  encodeAttributes(out, OUT_HEADER_BYTES + 16, attributes);
  return out;
}

/** Reply to LOOKUP. */
export function encodeEntryReply(attributes: NodeAttributes): Buffer {
  const out = Buffer.alloc(OUT_HEADER_BYTES + 40 + ATTR_BYTES);
  writeU64(out, attributes.node, OUT_HEADER_BYTES);
  encodeAttributes(out, OUT_HEADER_BYTES + 40, attributes);
  return out;
}

export function encodeOpenReply(openFlags: number): Buffer {
  const out = Buffer.alloc(OUT_HEADER_BYTES + 16);
  out.writeUInt32LE(openFlags, OUT_HEADER_BYTES + 8);
  return out;
}

export function encodeWriteReply(writtenBytes: number): Buffer {
  const out = Buffer.alloc(OUT_HEADER_BYTES + 8);
  out.writeUInt32LE(writtenBytes, OUT_HEADER_BYTES);
  return out;
}

/** Reply to STATFS. The block size becomes the discard granularity of the loop device. */
export function encodeStatfsReply(sizeBytes: number, blockBytes: number): Buffer {
  const out = Buffer.alloc(OUT_HEADER_BYTES + 80);
  const body = out.subarray(OUT_HEADER_BYTES);
  writeU64(body, Math.floor(sizeBytes / blockBytes), 0);
  writeU64(body, 1, 24);
  body.writeUInt32LE(blockBytes, 40);
  body.writeUInt32LE(255, 44);
  body.writeUInt32LE(blockBytes, 48);
  return out;
}

/** Reply to READDIR: all entries at position 0, none after. */
export function encodeDirectoryReply(position: number, lengthBytesMax: number): Buffer {
  const entries = position > 0 ? [] : [entry(ROOT_NODE, 1, '.'), entry(FILE_NODE, 2, FILE_NAME)];
  const body = Buffer.concat(entries);
  const fits = body.length <= lengthBytesMax ? body : Buffer.alloc(0);
  return Buffer.concat([Buffer.alloc(OUT_HEADER_BYTES), fits]);
}

/** The one file. */
export const FILE_NAME = 'volume';

function entry(node: number, nextPosition: number, name: string): Buffer {
  const out = Buffer.alloc(24 + Math.ceil(name.length / 8) * 8);
  writeU64(out, node, 0);
  writeU64(out, nextPosition, 8);
  out.writeUInt32LE(name.length, 16);
  out.writeUInt32LE(node === ROOT_NODE ? 4 : 8, 20);
  out.write(name, 24, 'latin1');
  return out;
}
