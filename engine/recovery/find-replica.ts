/** Finds the daemon that holds one replica now: by its identity, at any of the addresses (R8). */
import { StorageError, toStorageError } from '../../common/errors.js';
import type { IdentifyReply, ReplicaControl } from '../../proto/control.js';
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

interface Place {
  readonly address: string;
  readonly control: ReplicaControl;
}

interface Answer extends Place {
  readonly reply: IdentifyReply | undefined;
  readonly error: StorageError | undefined;
}

/** Asks all addresses at once; the control connection to the right one is the caller's.
 *  @throws StorageError UNAVAILABLE | NOT_FOUND, saying what each address answered */
export async function findReplica(wish: FindReplica): Promise<Place> {
  const { volume, replicaId, member } = wish;
  const last = member?.address ?? '';
  const addresses = [...new Set([...(last === '' ? [] : [last]), ...wish.addresses])];
  const answers = await Promise.all(addresses.map((address) => ask(wish, address)));
  const holds = (answer: Answer): boolean =>
    answer.reply?.replicas.some((r) => r.volume === volume && r.replicaId === replicaId) === true;
  const found = answers.find(holds) ?? (await makeIt(wish, answers));
  for (const { control } of answers) if (control !== found?.control) control.close();
  if (found !== undefined) return { address: found.address, control: found.control };
  throw notFound(wish, answers);
}

async function ask(wish: FindReplica, address: string): Promise<Answer> {
  const control = wish.dial(address);
  try {
    const reply = await control.identify({ volume: wish.volume });
    return { address, control, reply, error: undefined };
  } catch (cause) {
    const error = toStorageError(cause, `identify ${address}`);
    return { address, control, reply: undefined, error };
  }
}

/** A new member was recorded before it was made: the daemon that it was meant for makes it. */
async function makeIt(wish: FindReplica, answers: readonly Answer[]): Promise<Answer | undefined> {
  const { volume, replicaId, member, sizeBytes, record } = wish;
  if (member?.state !== 'rebuilding') return undefined;
  const place = answers.find(
    ({ address, reply }) =>
      address === member.address && reply?.replicas.every((r) => r.volume !== volume) === true,
  );
  if (place === undefined) return undefined;
  try {
    await place.control.createReplica({ volume, replicaId, sizeBytes, membership: record });
  } catch (error) {
    for (const { control } of answers) control.close();
    throw error;
  }
  return place;
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
