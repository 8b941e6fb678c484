/** The way to a volume: whatever command asks about one gets its client here. Today that is the
 *  control socket of a standalone engine (`--engine`). */
import path from 'node:path';
import { StorageError, toStorageError } from '../common/errors.js';
import {
  EngineControlClient,
  type EngineEvent,
  type EngineStatus,
  type RemoveReplicaReply,
  type RemoveReplicaRequest,
  type ScrubReport,
  type ScrubRequest,
} from '../proto/control.js';

/** What can be asked of a volume. Tests pass their own. Errors: what the engine says, UNAVAILABLE
 *  and DEADLINE. */
export interface VolumeClient {
  status(): Promise<EngineStatus>;
  /** oldest first, those with a larger number */
  events(afterSeq: number): Promise<readonly EngineEvent[]>;
  /** @returns the id of the new replica */
  addReplica(address: string): Promise<string>;
  removeReplica(request: RemoveReplicaRequest): Promise<RemoveReplicaReply>;
  scrub(action: ScrubRequest['action']): Promise<ScrubReport>;
  close(): void;
}

export type ConnectEngine = (address: string) => VolumeClient;

export interface VolumeAccess {
  /** address of the control socket, as the option gave it */
  readonly engine: string | undefined;
  readonly connect?: ConnectEngine;
}

/** Longer than the engine takes to store a change on every member, or to give one up. */
const CHANGE_DEADLINE_MS = 60_000;

function connectControl(address: string): VolumeClient {
  const client = new EngineControlClient({ address });
  const slow = { deadlineMs: CHANGE_DEADLINE_MS };
  return {
    status: () => client.status(),
    events: async (afterSeq) => (await client.events({ afterSeq })).events,
    addReplica: async (to) => (await client.addReplica({ address: to }, slow)).replicaId,
    removeReplica: (request) => client.removeReplica(request, slow),
    scrub: (action) => client.scrub({ action }, slow),
    close: () => client.close(),
  };
}

/** A relative socket path is meant from the working directory, as in every shell. */
export function absoluteAddress(address: string): string {
  const match = /^unix:(.+)$/.exec(address);
  return match?.[1] === undefined ? address : `unix:${path.resolve(match[1])}`;
}

/** The caller closes it.
 *  @throws StorageError INVALID_ARGUMENT (no address) | NOT_FOUND (the engine serves another
 *    volume) | what the call says, such as UNAVAILABLE or DEADLINE */
export async function openVolume(volume: string, access: VolumeAccess): Promise<VolumeClient> {
  const { engine, connect = connectControl } = access;
  if (engine === undefined) {
    throw new StorageError('INVALID_ARGUMENT', `no engine given for volume ${volume}`, {
      hint: 'add --engine unix:PATH, the control socket of the engine',
    });
  }
  const client = connect(absoluteAddress(engine));
  try {
    const served = (await client.status()).volume;
    if (served === volume) return client;
    throw new StorageError(
      'NOT_FOUND',
      `the engine at ${engine} serves volume ${served}, not ${volume}`,
    );
  } catch (error) {
    client.close();
    throw withoutEngine(error, volume);
  }
}

/** Opens the volume, works with it, and closes it.
 *  @throws as `openVolume`, and what `work` throws */
export async function withVolume<T>(
  volume: string,
  access: VolumeAccess,
  work: (client: VolumeClient) => Promise<T>,
): Promise<T> {
  const client = await openVolume(volume, access);
  try {
    return await work(client);
  } finally {
    client.close();
  }
}

/** Nobody answers: the person who asks wants to know why, and the engine cannot tell any more. */
function withoutEngine(cause: unknown, volume: string): StorageError {
  const error = toStorageError(cause, `ask about volume ${volume}`);
  if (error.code !== 'UNAVAILABLE' || error.details.hint !== undefined) return error;
  const hint =
    `start the engine; why it ended is the end of its log, what happened before is in ` +
    `${volume}.events.jsonl in its run folder`;
  return new StorageError(error.code, error.message, { ...error.details, hint }, { cause: error });
}
