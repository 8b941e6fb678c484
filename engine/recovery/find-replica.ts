/** Finds the daemon that holds one replica now: by its identity, at any of the addresses (R8). */
import { StorageError, toStorageError } from '../../common/errors.js';
import type { IdentifyReply, ReplicaControl, ReplicaInfo } from '../../proto/control.js';
import type { MemberRecord, MembershipRecord } from '../core/replica-set.js';

export interface FindReplica {
  readonly volume: string;
  readonly replicaId: string;
  readonly member: MemberRecord | undefined;
  readonly addresses: readonly string[];
  readonly dial: (address: string) => ReplicaControl;
  /** to make a new member that was recorded and never made */
  readonly sizeBytes: number;
  readonly record: MembershipRecord;
}

export interface Place {
  readonly address: string;
  readonly control: ReplicaControl;
  /** as its daemon knew it before it was opened; undefined: it has just been made */
  readonly info: ReplicaInfo | undefined;
}

interface Answer {
  readonly address: string;
  readonly control: ReplicaControl | undefined;
  readonly reply: IdentifyReply | undefined;
  readonly error: StorageError | undefined;
}

/** Asks all addresses at once; the control connection to the right one is the caller's.
 *  @throws StorageError UNAVAILABLE | NOT_FOUND, saying what each address answered | CONFLICT: two
 *    daemons have it (scenario 56) | why a new one could not be made */
export async function findReplica(wish: FindReplica): Promise<Place> {
  const last = wish.member?.address ?? '';
  const addresses = [...new Set([...(last === '' ? [] : [last]), ...wish.addresses])];
  const answers = await Promise.all(addresses.map((address) => ask(wish, address)));
  let place: Place | undefined;
  try {
    place = choose(wish, answers) ?? (await makeIt(wish, answers));
  } finally {
    for (const { control } of answers) if (control !== place?.control) control?.close();
  }
  if (place !== undefined) return place;
  throw notFound(wish, answers);
}

async function ask(wish: FindReplica, address: string): Promise<Answer> {
  let control: ReplicaControl | undefined;
  try {
    control = wish.dial(address);
    const reply = await control.identify({ volume: wish.volume });
    return { address, control, reply, error: undefined };
  } catch (cause) {
    const error = toStorageError(cause, `identify ${address}`);
    return { address, control, reply: undefined, error };
  }
}

/** @throws StorageError CONFLICT: which of the two is the one that left cannot be told */
function choose(wish: FindReplica, answers: readonly Answer[]): Place | undefined {
  const { volume, replicaId } = wish;
  let found: Place | undefined;
  let holder: string | undefined;
  for (const { address, control, reply } of answers) {
    const info = reply?.replicas.find((r) => r.volume === volume && r.replicaId === replicaId);
    if (reply === undefined || control === undefined || info === undefined) continue;
    if (holder !== undefined && holder !== reply.daemonId) {
      const text = `replica ${replicaId} is both at ${found?.address} and at ${address}`;
      throw new StorageError('CONFLICT', text, {
        ...{ volume, replica: replicaId },
        hint: 'is one of the disks a copy of the other? stop the daemon that has the copy',
      });
    }
    found ??= { address, control, info };
    holder = reply.daemonId;
  }
  return found;
}

/** A new member was recorded before it was made: the daemon that it was meant for makes it. */
async function makeIt(wish: FindReplica, answers: readonly Answer[]): Promise<Place | undefined> {
  const { volume, replicaId, member, sizeBytes, record } = wish;
  if (member?.state !== 'rebuilding') return undefined;
  const place = answers.find(
    ({ address, reply }) =>
      address === member.address && reply?.replicas.every((r) => r.volume !== volume) === true,
  );
  if (place?.control === undefined) return undefined;
  await place.control.createReplica({ volume, replicaId, sizeBytes, membership: record });
  return { address: place.address, control: place.control, info: undefined };
}

function notFound(wish: FindReplica, answers: readonly Answer[]): StorageError {
  const silent = answers.find(({ error }) => error !== undefined);
  const details = { volume: wish.volume, replica: wish.replicaId };
  if (silent?.error !== undefined) {
    const text = `replica ${wish.replicaId} is not found: ${silent.error.message}`;
    return new StorageError('UNAVAILABLE', text, details);
  }
  const text = `no daemon has replica ${wish.replicaId}`;
  return new StorageError('NOT_FOUND', text, {
    ...details,
    hint: 'if its disk is lost for good, replace the replica',
  });
}
