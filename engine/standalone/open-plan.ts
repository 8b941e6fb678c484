/**
 * Decides, from what replica daemons report, whether a standalone volume may be created or opened
 * (R4, R8, P12). Pure.
 *
 * The newest record found names the members that hold every acknowledged write. Because an
 * exclusion is stored on all remaining members before it matters (P3), a record is proved to be the
 * newest only when every in-sync member that it names is present: a missing one could hold a newer
 * record without the others. Hence: all present, or refuse.
 */
import { StorageError } from '../../common/errors.js';
import type { IdentifyReply, ReplicaInfo } from '../../proto/control.js';
import { compareRecords, type MemberRecord, type MembershipRecord } from '../core/replica-set.js';

/** What one address answered. */
export interface Answer {
  readonly address: string;
  readonly reply: IdentifyReply | undefined;
  /** why there is no reply */
  readonly error?: StorageError | undefined;
}

export interface OpenWish {
  readonly volume: string;
  /** required to create; must agree with an existing volume */
  readonly sizeBytes: number | undefined;
  /** open with the members that are there: may lose acknowledged writes; a person's decision */
  readonly salvage: boolean;
  /** draws an id for a new replica */
  readonly newReplicaId: () => string;
  readonly engineId: string;
  /** the engine had the volume before and opens it again */
  readonly own?: OwnTenure;
}

export interface OwnTenure {
  /** highest epoch that this engine has tried */
  readonly epoch: number;
  /** when it had the volume last */
  readonly members?: readonly MemberRecord[];
}

export interface PlannedMember {
  readonly replicaId: string;
  readonly address: string;
}

export interface OpenPlan {
  readonly sizeBytes: number;
  /** replicas to create before opening (all of them for a new volume) */
  readonly create: readonly PlannedMember[];
  /** members to open: exactly the in-sync ones, or what salvage leaves of them */
  readonly open: readonly PlannedMember[];
  /** epoch to open with: above everything any replica has seen */
  readonly epoch: number;
  /** record to store once opened; its epoch is `epoch` */
  readonly record: MembershipRecord;
  /** engine that may have served the volume last; '' : none ever did */
  readonly previousEngineId: string;
  /** record to create replicas with: epoch 0, which says that nobody has written yet */
  readonly initial: MembershipRecord;
  readonly warnings: readonly string[];
}

interface Found {
  readonly address: string;
  readonly info: ReplicaInfo;
}

/** @throws StorageError UNAVAILABLE | NOT_FOUND | CONFLICT | MEMBERSHIP_UNPROVEN, with what to do
 *    in the hint */
export function planOpen(answers: readonly Answer[], wish: OpenWish): OpenPlan {
  refuseDoubles(answers);
  const found: Found[] = [];
  for (const answer of answers) {
    for (const info of answer.reply?.replicas ?? []) {
      if (info.volume === wish.volume) found.push({ address: answer.address, info });
    }
  }
  if (found.length === 0 && wish.own !== undefined) throw nobodyHasIt(answers, wish.volume);
  return found.length === 0 ? planCreate(answers, wish) : planExisting(answers, found, wish);
}

/** An engine that opens its volume again never makes a new one in its place. */
function nobodyHasIt(answers: readonly Answer[], volume: string): StorageError {
  const silent = answers.filter((a) => a.reply === undefined);
  const who = silent.map((a) => a.address).join(', ');
  const text = `no daemon that answers has volume ${volume}`;
  const [first] = silent;
  if (first === undefined) return new StorageError('NOT_FOUND', text, { volume });
  const why = first.error?.message ?? '';
  return new StorageError('UNAVAILABLE', `${text}, and ${who} did not: ${why}`, { volume });
}

function refuseDoubles(answers: readonly Answer[]): void {
  const seen = new Map<string, string>();
  for (const { address, reply } of answers) {
    if (reply === undefined) continue;
    const other = seen.get(reply.daemonId);
    if (other !== undefined) {
      throw new StorageError('CONFLICT', `${other} and ${address} are the same replica daemon`, {
        hint: 'name each replica daemon once',
      });
    }
    seen.set(reply.daemonId, address);
  }
}

function planCreate(answers: readonly Answer[], wish: OpenWish): OpenPlan {
  const silent = answers.filter((a) => a.reply === undefined);
  if (silent.length > 0) {
    throw new StorageError(
      'UNAVAILABLE',
      `volume ${wish.volume} is not on the daemons that answered, and ` +
        `${silent.map((a) => a.address).join(', ')} did not: ${silent[0]?.error?.message ?? ''}`,
      { volume: wish.volume, hint: 'a volume is created only when every replica daemon answers' },
    );
  }
  if (wish.sizeBytes === undefined) {
    throw new StorageError('NOT_FOUND', `volume ${wish.volume} does not exist`, {
      volume: wish.volume,
      hint: 'give --size to create it',
    });
  }
  const members = answers.map(({ address }) => ({ replicaId: wish.newReplicaId(), address }));
  const initial = initialRecord(members);
  return {
    sizeBytes: wish.sizeBytes,
    create: members,
    open: members,
    epoch: 1,
    record: { ...initial, epoch: 1, engineId: wish.engineId },
    initial,
    previousEngineId: '',
    warnings: [],
  };
}

function initialRecord(members: readonly PlannedMember[]): MembershipRecord {
  return {
    epoch: 0,
    generation: 1,
    members: members.map((m): MemberRecord => ({ ...m, state: 'in-sync' })),
    engineId: '',
    era: 0,
  };
}

function planExisting(
  answers: readonly Answer[],
  found: readonly Found[],
  wish: OpenWish,
): OpenPlan {
  const newest = found
    .map((f) => f.info.membership)
    .reduce((a, b) => (compareRecords(a, b) >= 0 ? a : b));
  const sizeBytes = agreedSize(found, newest, wish);
  const highest = found.reduce((max, f) => Math.max(max, f.info.epoch, newest.epoch), 0);
  refuseOthers(wish, highest);
  const epoch = 1 + Math.max(highest, wish.own?.epoch ?? 0);
  const { engineId } = wish;
  const inSync = newest.members.filter((m) => m.state === 'in-sync');
  const current = found.filter(({ info }) => !isRolledBack(info, newest));
  const present = inSync.flatMap((m) => presentMember(m, current, wish.salvage));
  const missing = inSync.filter((m) => !present.some((p) => p.replicaId === m.replicaId));
  if (missing.length === 0) {
    return plan({ sizeBytes, create: [], open: present, epoch, newest, lost: [], engineId });
  }
  if (newest.epoch === 0) {
    const create = placeMissing(answers, found, missing, wish);
    const open = [...present, ...create];
    return plan({ sizeBytes, create, open, epoch, newest, lost: [], engineId });
  }
  if (wish.salvage && present.length > 0) {
    return plan({ sizeBytes, create: [], open: present, epoch, newest, lost: missing, engineId });
  }
  throw unproven(wish.volume, newest, missing, found);
}

/** R5: an engine that lost its replicas for a while does not take the volume back from another. */
function refuseOthers(wish: OpenWish, highest: number): void {
  if (wish.own === undefined || highest <= wish.own.epoch) return;
  throw new StorageError(
    'STALE_EPOCH',
    `volume ${wish.volume} was opened with epoch ${highest} by another engine`,
    { volume: wish.volume, epoch: highest },
  );
}

/** The replica of a member, where it stands now. One that has failed is loaded anew when it is
 *  opened (P8); a salvage does without it. */
function presentMember(
  member: MemberRecord,
  found: readonly Found[],
  salvage: boolean,
): PlannedMember[] {
  const here = found.find(
    (f) => f.info.replicaId === member.replicaId && !(salvage && f.info.failed),
  );
  return here === undefined ? [] : [{ replicaId: member.replicaId, address: here.address }];
}

/** P12: a record is stored only after every member that it names in-sync has persisted its epoch
 *  (P4). A member that has not is an older copy of what it was, restored while nothing ran
 *  (scenario 55): it lacks what was acknowledged since. */
function isRolledBack(info: ReplicaInfo, newest: MembershipRecord): boolean {
  return info.epoch < newest.epoch;
}

function agreedSize(found: readonly Found[], newest: MembershipRecord, wish: OpenWish): number {
  const holder = found.find((f) => compareRecords(f.info.membership, newest) === 0);
  const sizeBytes = (holder as Found).info.sizeBytes;
  if (wish.sizeBytes !== undefined && wish.sizeBytes !== sizeBytes) {
    throw new StorageError(
      'CONFLICT',
      `volume ${wish.volume} has ${sizeBytes} bytes, not ${wish.sizeBytes}`,
      { volume: wish.volume, hint: 'leave --size out, or give the size that it has' },
    );
  }
  return sizeBytes;
}

/** A creation that was cut off (epoch 0: never written) goes on on the daemons that have no replica
 *  yet. */
function placeMissing(
  answers: readonly Answer[],
  found: readonly Found[],
  missing: readonly MemberRecord[],
  wish: OpenWish,
): PlannedMember[] {
  const free = answers.filter(
    (a) => a.reply !== undefined && !found.some((f) => f.address === a.address),
  );
  return missing.map((member, index) => {
    const place = free.find((a) => a.address === member.address) ?? free[index];
    if (place === undefined) {
      throw new StorageError(
        'UNAVAILABLE',
        `creation of volume ${wish.volume} was cut off and needs ` +
          `${missing.length} more replica daemons`,
        { volume: wish.volume, hint: 'start all replica daemons it was created with' },
      );
    }
    return { replicaId: member.replicaId, address: place.address };
  });
}

function plan(parts: {
  sizeBytes: number;
  create: readonly PlannedMember[];
  open: readonly PlannedMember[];
  epoch: number;
  newest: MembershipRecord;
  lost: readonly MemberRecord[];
  engineId: string;
}): OpenPlan {
  const { newest, epoch, lost, engineId } = parts;
  const address = new Map(parts.open.map((m) => [m.replicaId, m.address]));
  const members = newest.members.map((m) => {
    const gone = lost.some((l) => l.replicaId === m.replicaId);
    return {
      ...m,
      address: address.get(m.replicaId) ?? m.address,
      state: gone ? 'failed' : m.state,
    };
  });
  const warnings = lost.map((l) => `salvage: opened without in-sync replica ${l.replicaId}`);
  const generation = newest.generation + (lost.length > 0 ? 1 : 0);
  return {
    sizeBytes: parts.sizeBytes,
    create: parts.create,
    open: parts.open,
    epoch,
    record: { epoch, generation, engineId, era: newest.era + (lost.length > 0 ? 1 : 0), members },
    initial: newest,
    previousEngineId: newest.engineId,
    warnings,
  };
}

function unproven(
  volume: string,
  newest: MembershipRecord,
  missing: readonly MemberRecord[],
  found: readonly Found[],
): StorageError {
  const reasons = missing.map((m) => {
    const here = found.find((f) => f.info.replicaId === m.replicaId);
    const why =
      here === undefined
        ? 'not found'
        : isRolledBack(here.info, newest)
          ? `an older copy: it knows epoch ${here.info.epoch}`
          : `failed: ${here.info.failedReason}`;
    return `${m.replicaId} (last at ${m.address || 'unknown'}; ${why})`;
  });
  return new StorageError(
    'MEMBERSHIP_UNPROVEN',
    `volume ${volume} (epoch ${newest.epoch}, generation ${newest.generation}) ` +
      `cannot be opened without its in-sync replica ${reasons.join(', ')}`,
    {
      volume,
      hint:
        'bring that replica back; ' +
        '--salvage opens what is there and may lose acknowledged writes',
    },
  );
}
