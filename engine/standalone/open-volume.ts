/**
 * Opens a standalone volume: find the replicas, fence them with a new epoch, make them equal,
 * connect, serve.
 *
 * Order: identify -> plan (pure) -> create what is new -> OpenReplica on every member (P4: each
 * persists the epoch and drops older streams before it answers) -> data streams -> recovery of what
 * may differ (R1, P5) -> the record with the new epoch on every member, which also ends their old
 * in-flight windows -> the volume may serve.
 */
import { StorageError, toStorageError } from '../../common/errors.js';
import type { Logger } from '../../common/log.js';
import { REGION_SIZE } from '../../common/units.js';
import type { OpenReplicaReply, ReplicaControl } from '../../proto/control.js';
import type { ReplicaLink } from '../core/replica-link.js';
import type { MembershipRecord } from '../core/replica-set.js';
import type { EngineConfig } from '../engine-config.js';
import type { EngineEnvironment } from '../engine-environment.js';
import { type ByteRange, type MakeEqualReport, makeEqual } from '../recovery/make-equal.js';
import { type Answer, type OpenPlan, type PlannedMember, planOpen } from './open-plan.js';

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
  engineId: string,
  environment: EngineEnvironment,
): Promise<OpenedVolume> {
  const { log, network } = environment;
  const dial: Dial = (address) => network.control(address, config.tuning.controlDeadlineMs);
  const asked = config.replicas.map((address) => ask(dial, config.volume, address));
  const answers = await Promise.all(asked);
  for (const { address, error } of answers) {
    if (error !== undefined) log.warn({ address, code: error.code }, error.message);
  }
  const { volume, sizeBytes, salvage } = config;
  const newReplicaId = (): string => environment.randomId('r');
  const plan = planOpen(answers, { volume, sizeBytes, salvage, newReplicaId });
  for (const warning of plan.warnings) log.warn({ volume }, warning);
  const members: OpenedMember[] = [];
  try {
    await Promise.all(plan.create.map((member) => createOne(dial, { volume, plan, member })));
    const opening = plan.open.map((member) => openOne(dial, { volume, plan, member, engineId }));
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
    throw error;
  }
}

/** Everything in which members may differ: in-flight windows of all, and if a daemon restarted with
 *  dirty regions, those of all. */
export function suspectRanges(members: readonly OpenedMember[]): ByteRange[] {
  const ranges: ByteRange[] = members.flatMap((m) => [...m.opened.window]);
  if (members.some((m) => m.opened.restartedDirty)) {
    const regions = new Set(members.flatMap((m) => [...m.opened.dirtyRegions]));
    for (const region of regions) {
      ranges.push({ offsetBytes: region * REGION_SIZE, lengthBytes: REGION_SIZE });
    }
  }
  return ranges;
}

/** The member whose content counts. A member whose daemon lost power while regions were dirty may
 *  lack acknowledged writes: it is the source only if that is true of all (P10). */
export function chooseSource(members: readonly OpenedMember[]): OpenedMember {
  const first = members[0];
  if (first === undefined) throw new StorageError('NO_REPLICA', 'no member to read from');
  return (
    members.find((m) => !m.opened.lossy && !m.opened.restartedDirty) ??
    members.find((m) => !m.opened.lossy) ??
    first
  );
}

/** Makes the members equal wherever they may differ. Nothing may be served before this resolves
 *  (P5). */
export async function recover(
  members: readonly OpenedMember[],
  links: readonly ReplicaLink[],
  volumeBytes: number,
  log: Logger,
): Promise<MakeEqualReport> {
  const ranges = suspectRanges(members);
  if (ranges.length === 0 || members.length === 1) return { comparedBytes: 0, copiedBytes: 0 };
  const chosen = chooseSource(members);
  const source = links.find((link) => link.replicaId === chosen.replicaId);
  if (source === undefined) throw new StorageError('NO_REPLICA', 'the source has no link');
  log.info({ source: chosen.replicaId, ranges: ranges.length }, 'dirty start: comparing');
  let shown = 0;
  const report = await makeEqual({
    source,
    targets: links.filter((link) => link !== source),
    ranges,
    volumeBytes,
    onProgress: (comparedBytes, totalBytes) => {
      const tenth = Math.floor((comparedBytes / totalBytes) * 10);
      if (tenth > shown) log.info({ comparedBytes, totalBytes }, 'dirty start: progress');
      shown = Math.max(shown, tenth);
    },
  });
  log.info(report, 'dirty start: members are equal');
  return report;
}

/** Stores the first record of this tenure on every member. @throws StorageError of the first member
 *  that could not */
export async function storeRecord(
  config: EngineConfig,
  members: readonly OpenedMember[],
  membership: MembershipRecord,
): Promise<void> {
  const { volume } = config;
  const stores = members.map(({ control, replicaId }) =>
    control.setMembership({ volume, replicaId, membership }),
  );
  const refused = (await Promise.allSettled(stores)).find((o) => o.status === 'rejected');
  if (refused !== undefined) throw refused.reason;
}
