/**
 * Finds the replicas of a standalone volume and fences them with a new epoch.
 *
 * Order: identify -> plan (pure) -> create what is new -> OpenReplica on every member (P4: each
 * persists the epoch and drops older streams before it answers). What follows is the tenure's.
 */
import { StorageError, toStorageError } from '../../common/errors.js';
import type { OpenReplicaReply, ReplicaControl } from '../../proto/control.js';
import type { EngineConfig } from '../engine-config.js';
import type { EngineEnvironment } from '../engine-environment.js';
import {
  type Answer,
  type OpenPlan,
  type OwnTenure,
  type PlannedMember,
  planOpen,
} from './open-plan.js';

/** One member, opened with our epoch. */
export interface OpenedMember {
  readonly replicaId: string;
  readonly address: string;
  readonly control: ReplicaControl;
  readonly opened: OpenReplicaReply;
}

export interface OpenedVolume {
  readonly plan: OpenPlan;
  readonly members: readonly OpenedMember[];
}

export interface OpenMembersWish {
  readonly engineId: string;
  /** needed to create; undefined: it must exist */
  readonly sizeBytes: number | undefined;
  readonly salvage: boolean;
  /** this engine had the volume before, and nobody else must have had it since */
  readonly own?: OwnTenure;
}

type Dial = (address: string) => ReplicaControl;

async function ask(dial: Dial, volume: string, address: string): Promise<Answer> {
  const client = dial(address);
  try {
    return { address, reply: await client.identify({ volume }) };
  } catch (error) {
    return { address, reply: undefined, error: toStorageError(error, `identify ${address}`) };
  } finally {
    client.close();
  }
}

/** Finds, creates and fences. The returned control clients are the caller's to close.
 *  @throws StorageError what planOpen throws, or why a member refused to be created or opened */
export async function openMembers(
  config: EngineConfig,
  wish: OpenMembersWish,
  environment: EngineEnvironment,
): Promise<OpenedVolume> {
  const { log, network } = environment;
  const dial: Dial = (address) => network.control(address, config.tuning.controlDeadlineMs);
  const asked = config.replicas.map((address) => ask(dial, config.volume, address));
  const answers = await Promise.all(asked);
  for (const { address, error } of answers) {
    if (error !== undefined) log.warn({ address, code: error.code }, error.message);
  }
  const { volume } = config;
  const newReplicaId = (): string => environment.randomId('r');
  const plan = planOpen(answers, { volume, newReplicaId, ...wish });
  for (const warning of plan.warnings) log.warn({ volume }, warning);
  const members: OpenedMember[] = [];
  try {
    await Promise.all(plan.create.map((member) => createOne(dial, { volume, plan, member })));
    const opening = plan.open.map((member) =>
      openOne(dial, { volume, plan, member, engineId: wish.engineId }),
    );
    const outcomes = await Promise.allSettled(opening);
    for (const outcome of outcomes) {
      if (outcome.status === 'fulfilled') members.push(outcome.value);
    }
    const refused = outcomes.find((outcome) => outcome.status === 'rejected');
    if (refused !== undefined) throw refused.reason;
  } catch (error) {
    for (const member of members) member.control.close();
    throw error;
  }
  return { plan, members };
}

interface Step {
  readonly volume: string;
  readonly plan: OpenPlan;
  readonly member: PlannedMember;
}

async function createOne(dial: Dial, { volume, plan, member }: Step): Promise<void> {
  const control = dial(member.address);
  try {
    await control.createReplica({
      volume,
      sizeBytes: plan.sizeBytes,
      replicaId: member.replicaId,
      membership: plan.initial,
    });
  } finally {
    control.close();
  }
}

async function openOne(
  dial: Dial,
  step: Step & { readonly engineId: string },
): Promise<OpenedMember> {
  const { volume, plan, member, engineId } = step;
  const control = dial(member.address);
  try {
    const { replicaId, address } = member;
    const opened = await control.openReplica({ volume, replicaId, epoch: plan.epoch, engineId });
    if (opened.info.sizeBytes !== plan.sizeBytes) {
      const { sizeBytes } = opened.info;
      const text = `replica ${replicaId} has ${sizeBytes} bytes, the volume ${plan.sizeBytes}`;
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
