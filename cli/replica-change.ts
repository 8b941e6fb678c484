/** Carries out what replica-plan.ts decided, step by step, and says what was done. */
import type { Clock } from '../common/clock.js';
import type { EngineStatus, RemoveReplicaReply } from '../proto/control.js';
import { situationOf } from './explain/situation.js';
import { nowText } from './explain/story.js';
import { interruptible } from './interrupt.js';
import type { LiveLine } from './live-line.js';
import { pollVolume } from './poll-volume.js';
import { rebuildText } from './progress-bar.js';
import { noReplica, type Step } from './replica-plan.js';
import { type VolumeAccess, withVolume } from './volume-client.js';

export interface ReplicaChange {
  readonly volume: string;
  readonly access: VolumeAccess;
  /** where a copy is added */
  readonly address: string;
  readonly deleteData: boolean;
  /** false: whoever asks comes back later */
  readonly wait: boolean;
  readonly clock: Clock;
  readonly live: LiveLine;
  readonly note: (text: string) => void;
}

export interface ChangeDone {
  /** the copy that was added, or was there already */
  readonly added: string | undefined;
  readonly removed: string | undefined;
  readonly data: RemoveReplicaReply | undefined;
  /** steps that are left to a repetition of the command */
  readonly left: number;
}

const EVERY_MS = 500;

/** Idempotent with its plan: what was interrupted is planned anew and goes on.
 *  @throws StorageError why a step could not be done */
export async function changeReplicas(
  steps: readonly Step[],
  change: ReplicaChange,
): Promise<ChangeDone> {
  const { volume, access, address, note } = change;
  let added: string | undefined;
  let removed: string | undefined;
  let data: RemoveReplicaReply | undefined;
  for (const [index, step] of steps.entries()) {
    if (step.kind === 'add') {
      added = await withVolume(volume, access, (client) => client.addReplica(address));
      note(`${added} is added at ${address}`);
    } else if (step.kind === 'wait') {
      added = step.replicaId ?? added;
      if (!change.wait) return { added, removed, data, left: steps.length - index };
      if (added !== undefined) await waitInSync(added, change);
    } else {
      removed = step.replicaId;
      data = await removeReplica(removed, change);
    }
  }
  return { added, removed, data, left: 0 };
}

export async function removeReplica(
  replicaId: string,
  { volume, access, deleteData, note }: Omit<ReplicaChange, 'address' | 'wait' | 'clock' | 'live'>,
): Promise<RemoveReplicaReply> {
  const request = { replicaId, deleteData, address: '' };
  const data = await withVolume(volume, access, (client) => client.removeReplica(request));
  note(`${replicaId} is taken off${dataText(replicaId, { volume, engine: access.engine }, data)}`);
  return data;
}

/** What became of the bytes. */
export function dataText(
  replicaId: string,
  { volume, engine }: { readonly volume: string; readonly engine: string | undefined },
  data: RemoveReplicaReply,
): string {
  const { dataDeleted, dataAddress, note } = data;
  if (dataDeleted) return ', its data is deleted';
  const why = note === '' ? '' : ` could not be deleted (${note}) and`;
  const later = `aurochs replica remove ${volume} ${replicaId} --delete-data`;
  const where = `--address ${dataAddress} --engine ${engine ?? ''}`;
  return `; its data${why} stays at ${dataAddress}, to delete it: ${later} ${where}`;
}

/** Shows how far it is until the replica is in-sync. */
async function waitInSync(replicaId: string, change: ReplicaChange): Promise<void> {
  const { volume, access, clock, live, note } = change;
  const text = 'not waiting any more: the copy goes on; repeat the command to wait again';
  const onSilent = (reason: string | undefined): void => {
    if (reason !== undefined) live.show(`the engine does not answer: ${reason}`, 'silent');
  };
  try {
    await interruptible(text, () =>
      pollVolume(volume, { ...access, clock, everyMs: EVERY_MS, onSilent }, async (client) => {
        const status = await client.status();
        const { line, topic, done } = waitingView(status, replicaId);
        if (done) return true;
        live.show(line, topic);
        return undefined;
      }),
    );
  } finally {
    live.clear();
  }
  note(`${replicaId} is in sync`);
}

interface WaitingView {
  readonly line: string;
  readonly topic: string;
  readonly done: boolean;
}

/** Pure. @throws StorageError NOT_FOUND: it was taken off meanwhile */
export function waitingView(status: EngineStatus, replicaId: string): WaitingView {
  const replica = status.replicas.find((one) => one.replicaId === replicaId);
  if (replica === undefined) throw noReplica(status, replicaId);
  const { state, progress, reason } = replica;
  if (state === 'in-sync') return { line: '', topic: '', done: true };
  if (status.state === 'faulted') {
    return {
      line: `${status.volume} does not serve: ${status.reason}`,
      topic: 'lost',
      done: false,
    };
  }
  if (state === 'rebuilding' && progress !== undefined) {
    const line = `${replicaId} ${rebuildText(progress, { bar: true })}`;
    return { line, topic: progress.phase, done: false };
  }
  const now = nowText(replica, situationOf(replica, status.state, []));
  return { line: `${replicaId} ${now}`, topic: `${state} ${reason}`, done: false };
}
