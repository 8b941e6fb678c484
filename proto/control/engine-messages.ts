/** The control messages of proto/engine.proto as the rest of the project sees them. Every number is
 *  a safe integer unless it says otherwise. */
import type { ControlMemberState } from './messages.js';

export type EngineStatusRequest = Record<string, never>;

export interface EngineReplicaStatus {
  readonly replicaId: string;
  readonly address: string;
  readonly state: ControlMemberState;
  readonly reason: string;
  readonly allocatedBytes: number;
  /** smoothed; with fraction, finite, not negative */
  readonly readLatencyMs: number;
  readonly writeLatencyMs: number;
  readonly inFlight: number;
  readonly local: boolean;
  /** while it catches up */
  readonly progress?: RebuildProgress;
  /** in the durable record: decides who a start needs (R4) */
  readonly recordedState: ControlMemberState;
  /** it has been in `state` for so long */
  readonly stateMs: number;
  /** to bring it back, since it was last well */
  readonly attempts: number;
  /** until the next one; 0: under way, or not needed */
  readonly nextTryMs: number;
}

export interface RebuildProgress {
  readonly phase: 'connecting' | 'listing' | 'comparing' | 'copying' | 'flushing';
  readonly doneBytes: number;
  readonly totalBytes: number;
  readonly bytesPerSecond: number;
  /** 0: not known */
  readonly etaMs: number;
}

export interface EngineStatus {
  readonly volume: string;
  readonly sizeBytes: number;
  readonly epoch: number;
  readonly generation: number;
  readonly state: 'healthy' | 'degraded' | 'faulted';
  readonly reason: string;
  readonly replicas: readonly EngineReplicaStatus[];
  readonly uris: readonly string[];
  readonly engineId: string;
  /** wall time of the engine, for people */
  readonly wallMs: number;
  /** it has been in `state` for so long */
  readonly stateMs: number;
  /** they wait for an in-sync replica */
  readonly parkedOperations: number;
  /** I/O fails instead of waiting */
  readonly refusing: boolean;
  /** how long I/O waits before it fails */
  readonly ioTimeoutMs: number;
  /** not yet made equal after an unclean stop */
  readonly unequalExtents: number;
}

export type EngineStopRequest = Record<string, never>;
export type EngineStopReply = Record<string, never>;

export interface EngineEventsRequest {
  /** only events with a larger number */
  readonly afterSeq: number;
}

export interface EngineEvent {
  readonly seq: number;
  readonly wallMs: number;
  /** of the last of `count` equal ones */
  readonly lastWallMs: number;
  readonly count: number;
  readonly kind: string;
  readonly text: string;
  /** '' or 0 where it does not apply, here and below */
  readonly replica: string;
  readonly code: string;
  readonly errno: string;
  readonly generation: number;
  readonly bytes: number;
  readonly source: string;
}

export interface EngineEventsReply {
  readonly events: readonly EngineEvent[];
}

export interface AddReplicaRequest {
  /** of the daemon that makes it */
  readonly address: string;
}

export interface AddReplicaReply {
  readonly replicaId: string;
}

export interface RemoveReplicaRequest {
  readonly replicaId: string;
  /** on its daemon, after it was taken off */
  readonly deleteData: boolean;
  /** where the data is, of a replica that is no member; '' otherwise */
  readonly address: string;
}

export interface RemoveReplicaReply {
  readonly dataDeleted: boolean;
  /** where the data stays; '': nowhere, or not known */
  readonly dataAddress: string;
  /** why it could not be deleted */
  readonly note: string;
}

export interface ScrubRequest {
  readonly action: 'status' | 'start' | 'stop';
}

export interface ScrubReport {
  readonly state: 'never' | 'running' | 'stopped' | 'done';
  /** wall time, for people; 0: never */
  readonly startedMs: number;
  readonly finishedMs: number;
  /** when the last whole pass began that found every block equal and as written, or mended it */
  readonly provedMs: number;
  readonly doneBytes: number;
  readonly totalBytes: number;
  /** bytes hashed on all members together */
  readonly hashedBytes: number;
  readonly badBlocks: number;
  readonly divergentBlocks: number;
  readonly undecidedBlocks: number;
  readonly lostBlocks: number;
  readonly repairedBlocks: number;
  /** first extent that the pass has not looked at */
  readonly nextExtent: number;
}
