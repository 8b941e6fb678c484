/** The stored form of a replica's record. */
import { StorageError } from '../../common/errors.js';
import { isName } from '../../common/names.js';
import { BLOCK_SIZE, VOLUME_SIZE_MAX } from '../../common/units.js';
import type { Member, Membership } from '../../proto/control.js';
import { jsonBody, openJson } from '../store/sealed-value.js';
import type { ReplicaRecord } from './disk.js';

const REPLICA_RECORD_FORMAT = 1;

export interface StoredReplica extends ReplicaRecord {
  /** closed in order: everything is on stable storage and every stored checksum is true */
  readonly closed: boolean;
  /** its removal has begun and will be finished */
  readonly deleting: boolean;
}

export function storedReplicaBody(record: StoredReplica): Buffer {
  return jsonBody(REPLICA_RECORD_FORMAT, record);
}

/** @throws StorageError CORRUPT_METADATA */
export function parseStoredReplica(key: Buffer, value: Buffer): StoredReplica {
  const record = withDefaults(openJson(key, value, REPLICA_RECORD_FORMAT));
  if (isStoredReplica(record)) return record;
  throw new StorageError('CORRUPT_METADATA', 'the record of a replica is damaged');
}

/** How opening a replica would find it that was left with this record.
 *  @param dirtyRegions  how many
 *  @param bootId        of the running kernel */
export function howItWasLeft(
  record: StoredReplica,
  dirtyRegions: number,
  bootId: string,
): { readonly lossy: boolean; readonly restartedDirty: boolean } {
  const restartedDirty = dirtyRegions > 0;
  const lostPower = !record.closed && record.bootId !== bootId;
  return { restartedDirty, lossy: restartedDirty && (record.lossy || lostPower) };
}

/** Fields that came later are not in older records. */
function withDefaults(found: unknown): unknown {
  if (typeof found !== 'object' || found === null) return found;
  const record: Record<string, unknown> = { previousEngineId: '', ...found };
  const { membership } = record;
  if (typeof membership !== 'object' || membership === null) return record;
  return { ...record, membership: { engineId: '', era: 0, ...membership } };
}

function isStoredReplica(value: unknown): value is StoredReplica {
  if (typeof value !== 'object' || value === null) return false;
  const record = value as Partial<Record<keyof StoredReplica, unknown>>;
  const names = [record.volume, record.replicaId];
  const texts = [
    ...[record.engineId, record.previousEngineId],
    ...[record.lastIncarnation, record.bootId],
  ];
  const flags = [record.lossy, record.closed, record.deleting];
  return (
    names.every((name) => typeof name === 'string' && isName(name)) &&
    texts.every((text) => typeof text === 'string') &&
    flags.every((flag) => typeof flag === 'boolean') &&
    isVolumeSize(record.sizeBytes) &&
    isCount(record.epoch) &&
    isMembership(record.membership)
  );
}

/** A size that a volume may have. */
export function isVolumeSize(value: unknown): value is number {
  return isCount(value) && value > 0 && value % BLOCK_SIZE === 0 && value <= VOLUME_SIZE_MAX;
}

function isMembership(value: unknown): value is Membership {
  if (typeof value !== 'object' || value === null) return false;
  const { epoch, generation, members, engineId, era } = value as Record<string, unknown>;
  const counts = [epoch, generation, era].every(isCount);
  const named = typeof engineId === 'string' && Array.isArray(members);
  return counts && named && members.every(isMember);
}

function isMember(value: unknown): value is Member {
  if (typeof value !== 'object' || value === null) return false;
  const { replicaId, address, state } = value as Record<string, unknown>;
  return (
    typeof replicaId === 'string' &&
    typeof address === 'string' &&
    (state === 'in-sync' || state === 'rebuilding' || state === 'failed')
  );
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}
