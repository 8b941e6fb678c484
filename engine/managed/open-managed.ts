/**
 * Opens a volume whose membership record is kept by an authority outside the replicas.
 *
 * Order: read the record -> if this engine opens again after it had lost its members, take a new
 * epoch by compare-and-set -> find and open the in-sync members (P4) -> decide who is excluded. The
 * first record of the tenure, with the exclusions, is committed by the tenure when the members are
 * equal and the lease of the engine before is over.
 */
import { StorageError, toStorageError } from '../../common/errors.js';
import type { OpenReplicaReply } from '../../proto/control.js';
import type { MembershipAuthority } from '../core/membership-authority.js';
import { compareRecords, type MembershipRecord, type RecordVersion } from '../core/replica-set.js';
import type { EngineEnvironment } from '../engine-environment.js';
import { type Dial, identify, type OpenedMember, openMember } from '../standalone/open-member.js';
import type { OpenedVolume } from '../standalone/open-volume.js';
import { firstRecord, planMembers } from './managed-plan.js';

export interface OpenManagedWish {
  readonly volume: string;
  readonly sizeBytes: number;
  readonly engineId: string;
  /** the epoch that this engine was given, or has taken last */
  readonly epoch: number;
  /** highest generation of the tenure that was lost, stored or not; undefined: it opens the volume
   *  for the first time */
  readonly lostGenerationMax: number | undefined;
  /** the step to an epoch of its own that it tried last */
  readonly tried: RecordVersion | undefined;
  /** told of such a step before the authority hears of it */
  readonly onTry: (version: RecordVersion) => void;
  readonly controlDeadlineMs: number;
  /** told of the epoch before a member hears of it */
  readonly onEpoch: (epoch: number) => void;
}

/** The returned control clients are the caller's to close.
 *  @throws StorageError NOT_FOUND | STALE_EPOCH (another engine has the volume) | UNAVAILABLE |
 *    MEMBERSHIP_UNPROVEN | why a member refused */
export async function openManaged(
  authority: MembershipAuthority,
  wish: OpenManagedWish,
  environment: EngineEnvironment,
): Promise<OpenedVolume> {
  const record = await takeEpoch(authority, wish);
  const { volume, sizeBytes, engineId, controlDeadlineMs } = wish;
  const { network, log } = environment;
  const dial: Dial = (address) => network.control(address, controlDeadlineMs);
  const addresses = [...new Set(record.members.map((m) => m.address))].filter((a) => a !== '');
  const asked = addresses.map((address) => identify(dial, volume, address));
  const answers = await Promise.all(asked);
  const candidates = planMembers(volume, record, answers);
  const { epoch } = record;
  wish.onEpoch(epoch);
  const members: OpenedMember[] = [];
  const errors: StorageError[] = [];
  const opening = candidates.map(async (member) => {
    try {
      members.push(await openMember(dial, member, { volume, engineId, epoch, sizeBytes }));
    } catch (cause) {
      errors.push(toStorageError(cause, `open replica ${member.replicaId}`));
    }
  });
  await Promise.all(opening);
  try {
    const stale = errors.find((error) => error.code === 'STALE_EPOCH');
    if (stale !== undefined) throw stale;
    for (const { code, message } of errors) log.warn({ volume, code }, message);
    const reasons = errors.map((error) => error.message).join('; ');
    const opened = new Map(members.map((m): [string, OpenReplicaReply] => [m.replicaId, m.opened]));
    const first = firstRecord(record, opened, { volume, engineId, reasons });
    const previousEngineId = record.engineId;
    const plan = { sizeBytes, epoch, record: first, previousEngineId, warnings: [] };
    return { plan, members, authority, recorded: record };
  } catch (error) {
    for (const member of members) member.control.close();
    throw error;
  }
}

/** The record that this engine may go on from, under an epoch that is its own.
 *  @throws StorageError STALE_EPOCH | UNAVAILABLE (the record has just changed: try again) */
async function takeEpoch(
  authority: MembershipAuthority,
  wish: OpenManagedWish,
): Promise<MembershipRecord> {
  const { volume, epoch, engineId, lostGenerationMax } = wish;
  const record = await authority.read();
  if (record === undefined) {
    throw new StorageError('NOT_FOUND', `the manager knows no volume ${volume}`, { volume });
  }
  if (record.epoch !== epoch) {
    if (isOwnStep(record, wish)) return record;
    throw stale(volume, record.epoch);
  }
  if (lostGenerationMax === undefined) return record;
  // Members remember the epoch of the tenure that was lost: another one tells old and new apart.
  // No record of that tenure, not even one that is still on its way, has this generation.
  const generation = Math.max(record.generation, lostGenerationMax) + 1;
  const next = { ...record, epoch: record.epoch + 1, generation, engineId };
  wish.onTry(next);
  const outcome = await authority.commit(record, next);
  if (outcome.kind === 'stored') return next;
  const now = outcome.record;
  if (now.epoch !== epoch) throw stale(volume, now.epoch);
  const text = `the membership of volume ${volume} changed to generation ${now.generation}`;
  throw new StorageError('UNAVAILABLE', text, { volume });
}

/** An earlier attempt of this engine took the epoch and did not hear of it. The manager gives an
 *  epoch to another engine without a new generation. */
function isOwnStep(record: MembershipRecord, { tried, engineId }: OpenManagedWish): boolean {
  if (tried === undefined || record.engineId !== engineId) return false;
  return compareRecords(record, tried) === 0;
}

function stale(volume: string, epoch: number): StorageError {
  const text = `volume ${volume} has epoch ${epoch} now: it was attached by another engine`;
  return new StorageError('STALE_EPOCH', text, { volume, epoch });
}
