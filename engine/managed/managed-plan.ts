/**
 * Decides how a volume is opened whose membership record is kept by an authority outside the
 * replicas (R4, R5, P10, P12). Pure.
 *
 * The authority's record is linearizable: it says who holds every acknowledged write. So a member
 * that cannot be opened is no obstacle; it is excluded, in the authority, before the volume serves.
 * Two things still stop the start: a replica that knows a newer record than the authority (its
 * state was restored from an old backup), and members that may lack acknowledged writes while
 * another one that does not is missing.
 */
import { StorageError } from '../../common/errors.js';
import type { OpenReplicaReply } from '../../proto/control.js';
import type { MemberRecord, MembershipRecord } from '../core/replica-set.js';
import type { Answer, PlannedMember } from '../standalone/open-plan.js';

/** The in-sync members of the record and where they are now.
 *  @throws StorageError MEMBERSHIP_UNPROVEN: a replica knows a newer record (P12) */
export function planMembers(
  volume: string,
  record: MembershipRecord,
  answers: readonly Answer[],
): PlannedMember[] {
  for (const { address, reply } of answers) {
    for (const info of reply?.replicas ?? []) {
      if (info.volume !== volume || info.membership.generation <= record.generation) continue;
      throw new StorageError(
        'MEMBERSHIP_UNPROVEN',
        `replica ${info.replicaId} at ${address} knows generation ${info.membership.generation} ` +
          `of volume ${volume}, the manager only ${record.generation}`,
        {
          volume,
          replica: info.replicaId,
          hint: "the manager's state is older than the volume: was it restored from a backup?",
        },
      );
    }
  }
  return record.members
    .filter((m) => m.state === 'in-sync')
    .map((m) => ({
      replicaId: m.replicaId,
      address: placeOf(volume, m, answers) ?? m.address,
    }));
}

function placeOf(
  volume: string,
  member: MemberRecord,
  answers: readonly Answer[],
): string | undefined {
  return answers.find(({ reply }) =>
    reply?.replicas.some((r) => r.volume === volume && r.replicaId === member.replicaId),
  )?.address;
}

/** The record to begin the tenure with: members that could not be opened are excluded.
 *  @throws StorageError UNAVAILABLE (none could be opened) | MEMBERSHIP_UNPROVEN (P10) */
export function firstRecord(
  record: MembershipRecord,
  opened: ReadonlyMap<string, OpenReplicaReply>,
  wish: { readonly volume: string; readonly engineId: string; readonly reasons: string },
): MembershipRecord {
  const { volume, engineId, reasons } = wish;
  const inSync = record.members.filter((m) => m.state === 'in-sync');
  const missing = inSync.filter((m) => !opened.has(m.replicaId)).map((m) => m.replicaId);
  if (opened.size === 0) {
    throw new StorageError(
      'UNAVAILABLE',
      `no in-sync replica of volume ${volume} can be opened: ${reasons}`,
      { volume, hint: 'bring one of them back' },
    );
  }
  const lossy = [...opened.values()].every((reply) => reply.lossy);
  if (lossy && missing.length > 0) {
    throw new StorageError(
      'MEMBERSHIP_UNPROVEN',
      `volume ${volume} waits for replica ${missing.join(', ')}: the others lost power and may ` +
        `lack acknowledged writes (${reasons})`,
      { volume, hint: 'bring that replica back; a salvage may lose acknowledged writes' },
    );
  }
  const members = record.members.map(
    (m): MemberRecord => (missing.includes(m.replicaId) ? { ...m, state: 'failed' } : m),
  );
  const generation = record.generation + 1;
  return { epoch: record.epoch, generation, engineId, era: record.era, members };
}
