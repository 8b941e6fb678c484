/**
 * Finds the replicas of a standalone volume and fences them with a new epoch.
 *
 * Order: identify -> plan (pure) -> create what is new -> OpenReplica on every member (P4: each
 * persists the epoch and drops older streams before it answers). What follows is the tenure's.
 */
import { CopiesAlone, type MembershipAuthority } from '../core/membership-authority.js';
import type { RecordVersion } from '../core/replica-set.js';
import type { EngineConfig } from '../engine-config.js';
import type { EngineEnvironment } from '../engine-environment.js';
import { askDaemons } from './ask-daemons.js';
import { type Dial, type OpenedMember, openMember } from './open-member.js';
import { type OpenPlan, type OwnTenure, type PlannedMember, planOpen } from './open-plan.js';

/** A volume whose members are fenced: what a tenure begins with. */
export interface OpenedVolume {
  readonly plan: Pick<OpenPlan, 'sizeBytes' | 'epoch' | 'record' | 'previousEngineId' | 'warnings'>;
  readonly members: readonly OpenedMember[];
  readonly authority: MembershipAuthority;
  /** what the authority has until the first record of the tenure is committed */
  readonly recorded: RecordVersion;
}

export interface OpenMembersWish {
  readonly engineId: string;
  /** needed to create; undefined: it must exist */
  readonly sizeBytes: number | undefined;
  readonly salvage: boolean;
  /** this engine had the volume before, and nobody else must have had it since */
  readonly own?: OwnTenure;
  /** told of the epoch before a member hears of it */
  readonly onEpoch?: (epoch: number) => void;
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
  const answers = await askDaemons(config, dial, wish.own?.members);
  for (const { address, error } of answers) {
    if (error !== undefined) log.warn({ address, code: error.code }, error.message);
  }
  const { volume } = config;
  const newReplicaId = (): string => environment.randomId('r');
  const plan = planOpen(answers, { volume, newReplicaId, ...wish });
  wish.onEpoch?.(plan.epoch);
  for (const warning of plan.warnings) log.warn({ volume }, warning);
  const members: OpenedMember[] = [];
  try {
    await Promise.all(plan.create.map((member) => createOne(dial, { volume, plan, member })));
    const opening = plan.open.map((member) =>
      openMember(dial, member, { volume, engineId: wish.engineId, ...plan }),
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
  const { record } = plan;
  return { plan, members, authority: new CopiesAlone(record), recorded: record };
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
