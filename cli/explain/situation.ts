/** What is the matter with one replica, as one word of a closed list: hints hang on it. Pure. */
import type { EngineEvent, EngineReplicaStatus, EngineStatus } from '../../proto/control.js';

export type ReplicaSituation =
  /** it holds every acknowledged write and is read */
  | 'in-sync'
  /** it takes every write, and what it misses is copied */
  | 'rebuilding'
  /** added, and not made or not filled yet */
  | 'new'
  /** it failed, and the record does not say so yet: acknowledgements wait for that (P3) */
  | 'excluding'
  /** the volume does not serve, and a start needs this one (R4) */
  | 'needed'
  /** out, and its daemon does not answer */
  | 'unreachable'
  /** out, and its daemon answers and does not have it */
  | 'gone'
  /** out, because its disk failed or its metadata is damaged */
  | 'disk'
  /** out, because its disk has no space */
  | 'full'
  /** out on purpose for a while: it was much slower than its peers */
  | 'slow'
  /** out, and another engine has opened it */
  | 'fenced'
  /** out, and the address leads to something else */
  | 'foreign'
  /** out, and on its way back, or for a reason that has no word of its own */
  | 'out';

const BY_CODE: Readonly<Record<string, ReplicaSituation>> = {
  UNAVAILABLE: 'unreachable',
  DEADLINE: 'unreachable',
  CLOSED: 'unreachable',
  NOT_FOUND: 'gone',
  IO_ERROR: 'disk',
  REPLICA_FAILED: 'disk',
  CORRUPT_METADATA: 'disk',
  DISK_TRUNCATED: 'disk',
  DISK_ROLLED_BACK: 'disk',
  DISK_MISMATCH: 'disk',
  DISK_FOREIGN: 'disk',
  NO_SPACE: 'full',
  STALE_EPOCH: 'fenced',
  IDENTITY_MISMATCH: 'foreign',
  CONFLICT: 'foreign',
};

/** The code that a reason begins with, as in `UNAVAILABLE: connection refused`; '' if none. */
export function codeOfReason(reason: string): string {
  return /^([A-Z_]+): /.exec(reason)?.[1] ?? '';
}

/** @param volume  state of the volume
 *  @param events  of the volume, oldest first: they tell that one was set aside for being slow */
export function situationOf(
  replica: EngineReplicaStatus,
  volume: EngineStatus['state'],
  events: readonly EngineEvent[],
): ReplicaSituation {
  const { state, recordedState } = replica;
  if (state === 'in-sync' || state === 'rebuilding') return state;
  if (recordedState === 'in-sync') return volume === 'faulted' ? 'needed' : 'excluding';
  const code = codeOfReason(replica.reason);
  // The reason is that it was set aside until an attempt to bring it back has another one.
  if (replica.attempts === 0 && wasSlow(replica.replicaId, events)) return 'slow';
  if (recordedState === 'rebuilding' && (code === '' || code === 'ABORTED')) return 'new';
  return BY_CODE[code] ?? 'out';
}

function wasSlow(replicaId: string, events: readonly EngineEvent[]): boolean {
  const last = events.findLast(
    ({ replica, kind }) => replica === replicaId && (kind === 'slow' || kind === 'in-sync'),
  );
  return last?.kind === 'slow';
}
