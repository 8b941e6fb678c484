/** The record of the disk in its metadata: the other half of the superblock, and the judge of its
 *  nonce. */
import { StorageError } from '../../common/errors.js';
import { DISK_KEY } from '../store/keys.js';
import { jsonBody, openJson } from '../store/sealed-value.js';
import type { Superblock } from './superblock.js';

const DISK_RECORD_FORMAT = 1;

export interface Nonce {
  readonly value: string;
  readonly count: number;
}

export interface DiskRecord {
  readonly diskId: string;
  readonly pairId: string;
  /** what the superblock holds, or held before `intent` */
  readonly nonce: Nonce;
  /** what the superblock is being changed to */
  readonly intent: Nonce | undefined;
  /** never used before: replica numbers are not used twice */
  readonly nextReplicaNumber: number;
}

export function diskRecordBody(record: DiskRecord): Buffer {
  return jsonBody(DISK_RECORD_FORMAT, record);
}

/** @throws StorageError CORRUPT_METADATA */
export function parseDiskRecord(value: Buffer | undefined): DiskRecord {
  const found = value === undefined ? undefined : openJson(DISK_KEY, value, DISK_RECORD_FORMAT);
  if (typeof found === 'object' && found !== null) {
    const { diskId, pairId, nonce, intent, nextReplicaNumber } = found as Record<string, unknown>;
    const texts = typeof diskId === 'string' && typeof pairId === 'string';
    if (texts && isNonce(nonce) && (intent === undefined || isNonce(intent))) {
      if (typeof nextReplicaNumber === 'number' && Number.isSafeInteger(nextReplicaNumber)) {
        return { diskId, pairId, nonce, intent, nextReplicaNumber };
      }
    }
  }
  throw new StorageError(
    'CORRUPT_METADATA',
    'the disk record of the metadata is missing or damaged',
  );
}

/** Refuses a disk and metadata that do not belong together, or of which one is older than the
 *  other.
 *  @throws StorageError DISK_MISMATCH | DISK_ROLLED_BACK */
export function checkPair(record: DiskRecord, superblock: Superblock): void {
  const details = { disk: superblock.diskId };
  if (record.diskId !== superblock.diskId || record.pairId !== superblock.pairId) {
    throw new StorageError('DISK_MISMATCH', 'disk and metadata were not made together', details);
  }
  const { nonce, intent } = record;
  const is = (expected: Nonce | undefined): boolean =>
    expected?.value === superblock.nonce && expected.count === superblock.nonceCount;
  if (is(nonce) || is(intent)) return;
  const older = superblock.nonceCount < nonce.count ? 'the disk' : 'the metadata';
  throw new StorageError(
    'DISK_ROLLED_BACK',
    `${older} is an older copy: disk at ${superblock.nonceCount}, metadata at ${nonce.count}`,
    {
      ...details,
      hint: 'replace the replicas of this disk; an old copy may lack acknowledged writes',
    },
  );
}

function isNonce(value: unknown): value is Nonce {
  if (typeof value !== 'object' || value === null) return false;
  const { value: text, count } = value as Record<string, unknown>;
  return typeof text === 'string' && typeof count === 'number' && Number.isSafeInteger(count);
}
