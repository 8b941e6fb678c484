/** Control messages of an engine between wire and domain, with every range check. */
import { checkName } from '../../common/names.js';
import { aurochs } from '../generated/messages.js';
import { checkToken } from '../io/hello.js';
import { boundedList, boundedText, finiteNumber, oneOf, plainText, safeNumber } from './checks.js';
import { codec } from './codec.js';
import type * as m from './engine-messages.js';

import v1 = aurochs.v1;

const MEMBERS_MAX = 32;
const URIS_MAX = 64;
const EVENTS_MAX = 10_000;
const TEXT_MAX = 1024;
const PATH_MAX = 4096;

const MEMBER_STATES = ['in-sync', 'rebuilding', 'failed'] as const;
const ACTIONS = ['status', 'start', 'stop'] as const;
const SCRUB_STATES = ['never', 'running', 'stopped', 'done'] as const;

function engineReplicaOf(wire: v1.EngineReplicaStatus.$Properties): m.EngineReplicaStatus {
  return {
    replicaId: checkName(wire.replicaId ?? '', 'replica id'),
    address: boundedText(wire.address, TEXT_MAX, 'address'),
    state: oneOf(wire.state, MEMBER_STATES, 'replica state'),
    reason: plainText(wire.reason, TEXT_MAX),
    allocatedBytes: safeNumber(wire.allocatedBytes, 'allocated bytes'),
    readLatencyMs: finiteNumber(wire.readLatencyMs, 'read latency'),
    writeLatencyMs: finiteNumber(wire.writeLatencyMs, 'write latency'),
    inFlight: wire.inFlight ?? 0,
    local: wire.local ?? false,
    ...(wire.progress ? { progress: progressOf(wire.progress) } : {}),
    recordedState: oneOf(wire.recordedState, MEMBER_STATES, 'recorded state'),
    stateMs: safeNumber(wire.stateMs, 'time in the state'),
    attempts: wire.attempts ?? 0,
    nextTryMs: safeNumber(wire.nextTryMs, 'time to the next try'),
  };
}

const PHASES = ['connecting', 'listing', 'comparing', 'copying', 'flushing'] as const;

function progressOf(wire: v1.RebuildProgress.$Properties): m.RebuildProgress {
  return {
    phase: oneOf(wire.phase, PHASES, 'phase'),
    doneBytes: safeNumber(wire.doneBytes, 'done bytes'),
    totalBytes: safeNumber(wire.totalBytes, 'total bytes'),
    bytesPerSecond: safeNumber(wire.bytesPerSecond, 'rate'),
    etaMs: safeNumber(wire.etaMs, 'eta'),
  };
}

function eventOf(wire: v1.VolumeEvent.$Properties): m.EngineEvent {
  return {
    seq: safeNumber(wire.seq, 'seq'),
    wallMs: safeNumber(wire.wallMs, 'wall time'),
    lastWallMs: safeNumber(wire.lastWallMs, 'wall time'),
    count: wire.count ?? 0,
    kind: plainText(wire.kind, TEXT_MAX),
    text: plainText(wire.text, TEXT_MAX),
    replica: plainText(wire.replica, TEXT_MAX),
    code: plainText(wire.code, TEXT_MAX),
    errno: plainText(wire.errno, TEXT_MAX),
    generation: safeNumber(wire.generation, 'generation'),
    bytes: safeNumber(wire.bytes, 'bytes'),
    source: plainText(wire.source, TEXT_MAX),
  };
}

function scrubReportOf(wire: v1.ScrubReport.$Properties): m.ScrubReport {
  return {
    state: oneOf(wire.state, SCRUB_STATES, 'scrub state'),
    startedMs: safeNumber(wire.startedMs, 'start'),
    finishedMs: safeNumber(wire.finishedMs, 'finish'),
    provedMs: safeNumber(wire.provedMs, 'proof'),
    doneBytes: safeNumber(wire.doneBytes, 'done bytes'),
    totalBytes: safeNumber(wire.totalBytes, 'total bytes'),
    hashedBytes: safeNumber(wire.hashedBytes, 'hashed bytes'),
    badBlocks: safeNumber(wire.badBlocks, 'bad blocks'),
    divergentBlocks: safeNumber(wire.divergentBlocks, 'divergent blocks'),
    undecidedBlocks: safeNumber(wire.undecidedBlocks, 'undecided blocks'),
    lostBlocks: safeNumber(wire.lostBlocks, 'lost blocks'),
    repairedBlocks: safeNumber(wire.repairedBlocks, 'repaired blocks'),
    nextExtent: safeNumber(wire.nextExtent, 'next extent'),
  };
}

/** One codec per message type that is a request or a reply. */
export const ENGINE_CODECS = {
  engineStatusRequest: codec(v1.EngineStatusRequest, (): m.EngineStatusRequest => ({})),
  engineStatus: codec(
    v1.EngineStatus,
    (wire): m.EngineStatus => ({
      volume: checkName(wire.volume ?? '', 'volume'),
      sizeBytes: safeNumber(wire.sizeBytes, 'size'),
      epoch: safeNumber(wire.epoch, 'epoch'),
      generation: safeNumber(wire.generation, 'generation'),
      state: oneOf(wire.state, ['healthy', 'degraded', 'faulted'] as const, 'engine state'),
      reason: plainText(wire.reason, TEXT_MAX),
      replicas: boundedList(wire.replicas, { max: MEMBERS_MAX, what: 'replicas' }, engineReplicaOf),
      uris: boundedList(wire.uris, { max: URIS_MAX, what: 'uris' }, (uri) =>
        boundedText(uri, PATH_MAX, 'uri'),
      ),
      engineId: checkToken(wire.engineId ?? '', 'engine id'),
      wallMs: safeNumber(wire.wallMs, 'wall time'),
      stateMs: safeNumber(wire.stateMs, 'time in the state'),
      parkedOperations: wire.parkedOperations ?? 0,
      refusing: wire.refusing ?? false,
      ioTimeoutMs: safeNumber(wire.ioTimeoutMs, 'i/o timeout'),
      unequalExtents: safeNumber(wire.unequalExtents, 'unequal extents'),
    }),
  ),
  engineStopRequest: codec(v1.EngineStopRequest, (): m.EngineStopRequest => ({})),
  engineStopReply: codec(v1.EngineStopReply, (): m.EngineStopReply => ({})),
  engineEventsRequest: codec(
    v1.EngineEventsRequest,
    (wire): m.EngineEventsRequest => ({ afterSeq: safeNumber(wire.afterSeq, 'seq') }),
  ),
  engineEventsReply: codec(
    v1.EngineEventsReply,
    (wire): m.EngineEventsReply => ({
      events: boundedList(wire.events, { max: EVENTS_MAX, what: 'events' }, eventOf),
    }),
  ),
  addReplicaRequest: codec(
    v1.AddReplicaRequest,
    (wire): m.AddReplicaRequest => ({ address: boundedText(wire.address, TEXT_MAX, 'address') }),
  ),
  addReplicaReply: codec(
    v1.AddReplicaReply,
    (wire): m.AddReplicaReply => ({ replicaId: checkName(wire.replicaId ?? '', 'replica id') }),
  ),
  removeReplicaRequest: codec(
    v1.RemoveReplicaRequest,
    (wire): m.RemoveReplicaRequest => ({
      replicaId: checkName(wire.replicaId ?? '', 'replica id'),
      deleteData: wire.deleteData ?? false,
      address: boundedText(wire.address, TEXT_MAX, 'address'),
    }),
  ),
  removeReplicaReply: codec(
    v1.RemoveReplicaReply,
    (wire): m.RemoveReplicaReply => ({
      dataDeleted: wire.dataDeleted ?? false,
      dataAddress: boundedText(wire.dataAddress, TEXT_MAX, 'address'),
      note: plainText(wire.note, TEXT_MAX),
    }),
  ),
  scrubRequest: codec(
    v1.ScrubRequest,
    (wire): m.ScrubRequest => ({ action: oneOf(wire.action, ACTIONS, 'action') }),
  ),
  scrubReport: codec(v1.ScrubReport, scrubReportOf),
};
