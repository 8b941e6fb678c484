/** Control messages between wire and domain, with every range check: parsed, never asserted. */
import { StorageError } from '../../common/errors.js';
import { checkName } from '../../common/names.js';
import { BLOCK_SIZE, REGION_SIZE, VOLUME_SIZE_MAX } from '../../common/units.js';
import { aurochs } from '../generated/messages.js';
import { checkToken } from '../io/hello.js';
import {
  boundedList,
  boundedText,
  finiteNumber,
  inRange,
  oneOf,
  plainText,
  safeNumber,
} from './checks.js';
import { codec, missing, type Wire } from './codec.js';
import type * as m from './messages.js';
import { REGION_CODECS } from './region-convert.js';

import v1 = aurochs.v1;

/** Limits of control messages; docs/wire-protocol.md states them. */
const MEMBERS_MAX = 32;
const DISKS_MAX = 256;
const REPLICAS_MAX = 16384;
const REGIONS_MAX = VOLUME_SIZE_MAX / REGION_SIZE;
const ENGINE_ID_MAX = 128;
const WINDOW_RANGES_MAX = 65536;
const TEXT_MAX = 1024;
const PATH_MAX = 4096;

const MEMBER_STATES = ['in-sync', 'rebuilding', 'failed'] as const;

function epochOf(value: Wire<number | { low: number; high: number }>): number {
  return inRange(safeNumber(value, 'epoch'), [1, Number.MAX_SAFE_INTEGER], 'epoch');
}

function sizeOf(value: Wire<number | { low: number; high: number }>): number {
  const size = inRange(safeNumber(value, 'size'), [BLOCK_SIZE, VOLUME_SIZE_MAX], 'size');
  if (size % BLOCK_SIZE === 0) return size;
  throw new StorageError('INVALID_ARGUMENT', `size ${size} is not a multiple of ${BLOCK_SIZE}`);
}

function memberOf(wire: v1.Member.$Properties): m.Member {
  return {
    replicaId: checkName(wire.replicaId ?? '', 'replica id'),
    address: boundedText(wire.address, TEXT_MAX, 'address'),
    state: oneOf(wire.state, MEMBER_STATES, 'member state'),
  };
}

function membershipOf(wire: Wire<v1.Membership.$Properties>): m.Membership {
  if (wire === undefined || wire === null) throw missing('membership');
  const members = boundedList(wire.members, { max: MEMBERS_MAX, what: 'members' }, memberOf);
  if (new Set(members.map((member) => member.replicaId)).size < members.length) {
    throw new StorageError('INVALID_ARGUMENT', 'membership names a replica twice');
  }
  return {
    epoch: safeNumber(wire.epoch, 'membership epoch'),
    generation: safeNumber(wire.generation, 'generation'),
    members,
    engineId: boundedText(wire.engineId, ENGINE_ID_MAX, 'engine id of the membership'),
    era: safeNumber(wire.era, 'era'),
  };
}

function replicaInfoOf(wire: v1.ReplicaInfo.$Properties): m.ReplicaInfo {
  return {
    volume: checkName(wire.volume ?? '', 'volume'),
    replicaId: checkName(wire.replicaId ?? '', 'replica id'),
    diskId: boundedText(wire.diskId, TEXT_MAX, 'disk id'),
    sizeBytes: safeNumber(wire.sizeBytes, 'size'),
    epoch: safeNumber(wire.epoch, 'epoch'),
    membership: membershipOf(wire.membership ?? {}),
    allocatedBytes: safeNumber(wire.allocatedBytes, 'allocated bytes'),
    dirtyRegions: wire.dirtyRegions ?? 0,
    failed: wire.failed ?? false,
    failedReason: plainText(wire.failedReason, TEXT_MAX),
    lossy: wire.lossy ?? false,
    restartedDirty: wire.restartedDirty ?? false,
    incarnation: boundedText(wire.incarnation, TEXT_MAX, 'incarnation'),
  };
}

function diskInfoOf(wire: v1.DiskInfo.$Properties): m.DiskInfo {
  return {
    diskId: boundedText(wire.diskId, TEXT_MAX, 'disk id'),
    path: plainText(wire.path, PATH_MAX),
    sizeBytes: safeNumber(wire.sizeBytes, 'disk size'),
    usedBytes: safeNumber(wire.usedBytes, 'used bytes'),
    reservedBytes: safeNumber(wire.reservedBytes, 'reserved bytes'),
    state: oneOf(wire.state, ['ready', 'failed', 'refused'] as const, 'disk state'),
    reason: plainText(wire.reason, TEXT_MAX),
  };
}

function rangeOf(wire: v1.Range.$Properties): m.ByteRange {
  const offsetBytes = safeNumber(wire.offsetBytes, 'offset');
  const lengthBytes = safeNumber(wire.lengthBytes, 'length');
  safeNumber(offsetBytes + lengthBytes, 'end of range');
  return { offsetBytes, lengthBytes };
}

/** One codec per message type that is a request or a reply. */
export const CODECS = {
  identifyRequest: codec(
    v1.IdentifyRequest,
    (wire): m.IdentifyRequest => ({
      volume: (wire.volume ?? '') === '' ? '' : checkName(wire.volume ?? '', 'volume'),
    }),
  ),
  identifyReply: codec(
    v1.IdentifyReply,
    (wire): m.IdentifyReply => ({
      daemonId: checkToken(wire.daemonId ?? '', 'daemon id'),
      incarnation: checkToken(wire.incarnation ?? '', 'incarnation'),
      bootId: boundedText(wire.bootId, TEXT_MAX, 'boot id'),
      disks: boundedList(wire.disks, { max: DISKS_MAX, what: 'disks' }, diskInfoOf),
      replicas: boundedList(wire.replicas, { max: REPLICAS_MAX, what: 'replicas' }, replicaInfoOf),
      clusterId: boundedText(wire.clusterId, TEXT_MAX, 'cluster id'),
    }),
  ),
  createReplicaRequest: codec(
    v1.CreateReplicaRequest,
    (wire): m.CreateReplicaRequest => ({
      volume: checkName(wire.volume ?? '', 'volume'),
      sizeBytes: sizeOf(wire.sizeBytes),
      replicaId: checkName(wire.replicaId ?? '', 'replica id'),
      membership: membershipOf(wire.membership),
    }),
  ),
  replicaInfo: codec(v1.ReplicaInfo, replicaInfoOf),
  openReplicaRequest: codec(
    v1.OpenReplicaRequest,
    (wire): m.OpenReplicaRequest => ({
      volume: checkName(wire.volume ?? '', 'volume'),
      replicaId: checkName(wire.replicaId ?? '', 'replica id'),
      epoch: epochOf(wire.epoch),
      engineId: checkToken(wire.engineId ?? '', 'engine id'),
    }),
  ),
  openReplicaReply: codec(v1.OpenReplicaReply, (wire): m.OpenReplicaReply => {
    if (wire.info === undefined || wire.info === null) throw missing('info');
    const regions = { max: REGIONS_MAX, what: 'dirty regions' };
    return {
      info: replicaInfoOf(wire.info),
      incarnation: checkToken(wire.incarnation ?? '', 'incarnation'),
      lossy: wire.lossy ?? false,
      dirtyRegions: boundedList(wire.dirtyRegions, regions, (region) =>
        inRange(region, [0, REGIONS_MAX - 1], 'region'),
      ),
      restartedDirty: wire.restartedDirty ?? false,
      window: boundedList(wire.window, { max: WINDOW_RANGES_MAX, what: 'window' }, rangeOf),
      silentMs: finiteNumber(wire.silentMs, 'silence'),
      previousEngineId: boundedText(wire.previousEngineId, ENGINE_ID_MAX, 'previous engine id'),
    };
  }),
  setMembershipRequest: codec(
    v1.SetMembershipRequest,
    (wire): m.SetMembershipRequest => ({
      volume: checkName(wire.volume ?? '', 'volume'),
      replicaId: checkName(wire.replicaId ?? '', 'replica id'),
      membership: membershipOf(wire.membership),
    }),
  ),
  setMembershipReply: codec(v1.SetMembershipReply, (): m.SetMembershipReply => ({})),
  noteCompleteRequest: codec(
    v1.NoteCompleteRequest,
    (wire): m.NoteCompleteRequest => ({
      volume: checkName(wire.volume ?? '', 'volume'),
      replicaId: checkName(wire.replicaId ?? '', 'replica id'),
      epoch: epochOf(wire.epoch),
      incarnation: checkToken(wire.incarnation ?? '', 'incarnation'),
    }),
  ),
  noteCompleteReply: codec(v1.NoteCompleteReply, (): m.NoteCompleteReply => ({})),
  deleteReplicaRequest: codec(
    v1.DeleteReplicaRequest,
    (wire): m.DeleteReplicaRequest => ({
      volume: checkName(wire.volume ?? '', 'volume'),
      replicaId: checkName(wire.replicaId ?? '', 'replica id'),
      epoch: safeNumber(wire.epoch, 'epoch'),
    }),
  ),
  deleteReplicaReply: codec(v1.DeleteReplicaReply, (): m.DeleteReplicaReply => ({})),
  ...REGION_CODECS,
};
