/**
 * The superblock: what a disk says about itself, in two copies (docs/on-disk-format.md#superblock).
 *
 * Encoding and judging only; reading and writing are in superblock-pair.ts.
 */
import { BLOCK_SIZE, KIB, MIB } from '../../common/units.js';
import { crc32c } from '../../native/index.js';
import { readU64, writeU64 } from '../store/extent-record.js';

export const SUPERBLOCK_BYTES = BLOCK_SIZE;
export const SUPERBLOCK_OFFSETS = [0, 512 * KIB] as const;
/** Physical extent 0 begins here. */
export const DATA_OFFSET_BYTES = MIB;
export const FORMAT_VERSION = 1;

const MAGIC = Buffer.from('AUROCHSD', 'latin1');
const TEXT_BYTES = 64;
const CRC_AT = SUPERBLOCK_BYTES - 4;

export interface Superblock {
  readonly version: number;
  readonly clusterId: string;
  readonly daemonId: string;
  readonly diskId: string;
  /** ties the disk to its metadata; drawn when both are made */
  readonly pairId: string;
  readonly sizeBytes: number;
  /** how often the nonce was changed */
  readonly nonceCount: number;
  /** random, new at each open and close; the metadata knows the current one */
  readonly nonce: string;
}

export type SuperblockCopy =
  | { readonly kind: 'good'; readonly superblock: Superblock }
  /** all zero */
  | { readonly kind: 'blank' }
  /** ours, but its checksum is wrong */
  | { readonly kind: 'damaged' }
  /** ours, of a version that this program does not know */
  | { readonly kind: 'newer'; readonly version: number }
  /** somebody else's bytes */
  | { readonly kind: 'foreign' };

/** Texts are at most 64 bytes of UTF-8, without NUL: see `fitsSuperblock`. */
export function encodeSuperblock(superblock: Superblock): Buffer {
  const bytes = Buffer.alloc(SUPERBLOCK_BYTES);
  MAGIC.copy(bytes, 0);
  bytes.writeUInt32LE(superblock.version, 8);
  writeU64(bytes, 16, superblock.sizeBytes);
  writeU64(bytes, 24, superblock.nonceCount);
  for (const [index, text] of textsOf(superblock).entries()) {
    bytes.write(text, 64 + index * TEXT_BYTES, TEXT_BYTES, 'utf8');
  }
  bytes.writeUInt32LE(crc32c(bytes.subarray(0, CRC_AT)), CRC_AT);
  return bytes;
}

export function decodeSuperblock(bytes: Buffer): SuperblockCopy {
  if (!bytes.subarray(0, MAGIC.length).equals(MAGIC)) {
    return { kind: isZero(bytes) ? 'blank' : 'foreign' };
  }
  if (crc32c(bytes.subarray(0, CRC_AT)) !== bytes.readUInt32LE(CRC_AT)) return { kind: 'damaged' };
  const version = bytes.readUInt32LE(8);
  if (version !== FORMAT_VERSION) return { kind: 'newer', version };
  const text = (index: number): string => {
    const at = 64 + index * TEXT_BYTES;
    const end = bytes.indexOf(0, at);
    return bytes.toString('utf8', at, Math.min(end === -1 ? at : end, at + TEXT_BYTES));
  };
  const [clusterId, daemonId, diskId, pairId, nonce] = [0, 1, 2, 3, 4].map(text) as [
    string,
    string,
    string,
    string,
    string,
  ];
  const sizeBytes = readU64(bytes, 16);
  const nonceCount = readU64(bytes, 24);
  if (!Number.isSafeInteger(sizeBytes) || !Number.isSafeInteger(nonceCount)) {
    return { kind: 'damaged' };
  }
  const ids = { clusterId, daemonId, diskId, pairId, nonce };
  return { kind: 'good', superblock: { version, ...ids, sizeBytes, nonceCount } };
}

export function fitsSuperblock(text: string): boolean {
  return text !== '' && !text.includes('\0') && Buffer.byteLength(text) <= TEXT_BYTES;
}

export function isZero(bytes: Buffer): boolean {
  for (let at = 0; at < bytes.length; at += 8) {
    if (bytes.readUInt32LE(at) !== 0 || bytes.readUInt32LE(at + 4) !== 0) return false;
  }
  return true;
}

function textsOf(superblock: Superblock): readonly string[] {
  const { clusterId, daemonId, diskId, pairId, nonce } = superblock;
  return [clusterId, daemonId, diskId, pairId, nonce];
}
