/** Single steps of opening a volume: asking a daemon, opening one member. */
import { StorageError, toStorageError } from '../../common/errors.js';
import type { OpenReplicaReply, ReplicaControl } from '../../proto/control.js';
import type { Answer, PlannedMember } from './open-plan.js';

/** A control connection to the daemon at an address; the caller closes it. */
export type Dial = (address: string) => ReplicaControl;

/** One member, opened with our epoch. */
export interface OpenedMember {
  readonly replicaId: string;
  readonly address: string;
  readonly control: ReplicaControl;
  readonly opened: OpenReplicaReply;
}

/** What the daemon at an address has of a volume; never throws. */
export async function identify(dial: Dial, volume: string, address: string): Promise<Answer> {
  const client = dial(address);
  try {
    return { address, reply: await client.identify({ volume }) };
  } catch (error) {
    return { address, reply: undefined, error: toStorageError(error, `identify ${address}`) };
  } finally {
    client.close();
  }
}

export interface OpenMemberWish {
  readonly volume: string;
  readonly engineId: string;
  readonly epoch: number;
  readonly sizeBytes: number;
}

/** P4: when it resolves, the member has the epoch durably and every older tenure is fenced there.
 *  @throws StorageError STALE_EPOCH | MEMBERSHIP_UNPROVEN (it cannot be loaded) | CONFLICT (size)
 *    | why it cannot be reached */
export async function openMember(
  dial: Dial,
  member: PlannedMember,
  wish: OpenMemberWish,
): Promise<OpenedMember> {
  const control = dial(member.address);
  const { replicaId, address } = member;
  const { volume, engineId, epoch, sizeBytes } = wish;
  try {
    const opened = await control.openReplica({ volume, replicaId, epoch, engineId });
    if (opened.info.sizeBytes !== sizeBytes) {
      const own = opened.info.sizeBytes;
      const text = `replica ${replicaId} has ${own} bytes, the volume ${sizeBytes}`;
      throw new StorageError('CONFLICT', text, { volume, replica: replicaId });
    }
    return { replicaId, address, control, opened };
  } catch (error) {
    control.close();
    throw cannotLoad(member, volume, error);
  }
}

const LOAD_REASONS = new Set(['REPLICA_FAILED', 'CORRUPT_METADATA', 'IO_ERROR', 'NO_SPACE']);

/** P8, R4: a member that has failed and cannot be loaded anew is as good as missing. */
function cannotLoad(member: PlannedMember, volume: string, cause: unknown): StorageError {
  const error = toStorageError(cause, `open replica ${member.replicaId}`);
  if (!LOAD_REASONS.has(error.code)) return error;
  const text = `volume ${volume} cannot be opened without its in-sync replica ${member.replicaId}`;
  return new StorageError(
    'MEMBERSHIP_UNPROVEN',
    `${text} at ${member.address}, which cannot be loaded: ${error.message}`,
    {
      volume,
      replica: member.replicaId,
      hint: 'mend its disk; --salvage opens what is left and may lose acknowledged writes',
    },
    { cause },
  );
}
