/** What is left to do to add or replace a copy, from how the volume is now: so a command that was
 *  interrupted can be repeated. Pure. */
import { StorageError } from '../common/errors.js';
import type { EngineReplicaStatus, EngineStatus } from '../proto/control.js';

export type Step =
  | { readonly kind: 'add' }
  /** until the replica is in-sync; without an id: the one that was added */
  | { readonly kind: 'wait'; readonly replicaId: string | undefined }
  | { readonly kind: 'remove'; readonly replicaId: string };

/** A member is on its way to in-sync, or is there. */
function isComing({ state, recordedState }: EngineReplicaStatus): boolean {
  return state !== 'failed' || recordedState === 'rebuilding';
}

/** @throws StorageError ALREADY_EXISTS: the daemon has a copy that failed */
export function planAdd(status: EngineStatus, address: string): readonly Step[] {
  const there = status.replicas.filter((replica) => replica.address === address);
  const coming = there.find(isComing);
  if (coming !== undefined) return [{ kind: 'wait', replicaId: coming.replicaId }];
  const [failed] = there;
  if (failed === undefined) return [{ kind: 'add' }, { kind: 'wait', replicaId: undefined }];
  const { replicaId } = failed;
  throw new StorageError(
    'ALREADY_EXISTS',
    `replica ${replicaId} of volume ${status.volume} is at ${address}, and out of use`,
    {
      replica: replicaId,
      hint:
        'it comes back by itself when its daemon has it; for a new disk there: ' +
        `aurochs replica replace ${status.volume} ${replicaId} ${address}`,
    },
  );
}

/** The old copy goes last: the volume never has fewer than before.
 *  @throws StorageError NOT_FOUND: there is no such replica, and nothing at the address */
export function planReplace(status: EngineStatus, old: string, address: string): readonly Step[] {
  const isMember = status.replicas.some(({ replicaId }) => replicaId === old);
  const coming = status.replicas.find(
    (replica) => replica.replicaId !== old && replica.address === address && isComing(replica),
  );
  if (!isMember && coming === undefined) throw noReplica(status, old);
  const fill: readonly Step[] =
    coming === undefined
      ? [{ kind: 'add' }, { kind: 'wait', replicaId: undefined }]
      : [{ kind: 'wait', replicaId: coming.replicaId }];
  return isMember ? [...fill, { kind: 'remove', replicaId: old }] : fill;
}

export function noReplica(
  { volume, replicas }: Pick<EngineStatus, 'volume' | 'replicas'>,
  replicaId: string,
): StorageError {
  const known = replicas.map((replica) => replica.replicaId).join(', ');
  return new StorageError('NOT_FOUND', `volume ${volume} has no replica ${replicaId}`, {
    volume,
    replica: replicaId,
    hint: `it has ${known || 'none'}`,
  });
}
