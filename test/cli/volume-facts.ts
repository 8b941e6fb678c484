/** A volume as its engine would tell of it, and a client that tells it. */
import type { VolumeClient } from '../../cli/volume-client.js';
import type {
  EngineEvent,
  EngineReplicaStatus,
  EngineStatus,
  RemoveReplicaReply,
  RemoveReplicaRequest,
  ScrubReport,
  ScrubRequest,
} from '../../proto/control.js';

/** Wall time of the facts: 2026-11-24 03:20:00 UTC. */
export const NOW = Date.UTC(2026, 10, 24, 3, 20);

export function replicaWith(part: Partial<EngineReplicaStatus> = {}): EngineReplicaStatus {
  return {
    ...{ replicaId: 'r-1', address: '10.0.0.1:9601', state: 'in-sync', reason: '' },
    ...{ allocatedBytes: 0, readLatencyMs: 0, writeLatencyMs: 0, inFlight: 0, local: false },
    ...{ recordedState: 'in-sync', stateMs: 60_000, attempts: 0, nextTryMs: 0 },
    ...part,
  };
}

/** Three copies in sync: r-1, r-2, r-3 on 10.0.0.1 to 3. */
export function threeCopies(...parts: readonly Partial<EngineReplicaStatus>[]) {
  return [1, 2, 3].map((n) =>
    replicaWith({ replicaId: `r-${n}`, address: `10.0.0.${n}:9601`, ...parts[n - 1] }),
  );
}

export function statusWith(part: Partial<EngineStatus> = {}): EngineStatus {
  return {
    ...{ volume: 'demo', sizeBytes: 1024 ** 3, epoch: 7, generation: 41, state: 'healthy' },
    ...{ reason: '', replicas: threeCopies(), uris: [], engineId: 'e-1', wallMs: NOW },
    ...{ stateMs: 7_200_000, parkedOperations: 0, refusing: false, ioTimeoutMs: 60_000 },
    ...{ unequalExtents: 0 },
    ...part,
  };
}

/** @param agoMs  before NOW */
export function eventWith(
  agoMs: number,
  part: Partial<EngineEvent> & Pick<EngineEvent, 'seq' | 'kind'>,
): EngineEvent {
  const wallMs = NOW - agoMs;
  return {
    ...{ wallMs, lastWallMs: wallMs, count: 1, text: part.kind, replica: '', code: '' },
    ...{ errno: '', generation: 0, bytes: 0, source: '' },
    ...part,
  };
}

export const NO_SCRUB: ScrubReport = {
  ...{ state: 'never', startedMs: 0, finishedMs: 0, provedMs: 0, doneBytes: 0, totalBytes: 0 },
  ...{ hashedBytes: 0, badBlocks: 0, divergentBlocks: 0, undecidedBlocks: 0, lostBlocks: 0 },
  ...{ repairedBlocks: 0, nextExtent: 0 },
};

export interface FakeAnswers {
  readonly status: () => EngineStatus;
  readonly addReplica?: (address: string) => string;
  readonly removeReplica?: (request: RemoveReplicaRequest) => RemoveReplicaReply;
  readonly onClose?: () => void;
}

export class FakeVolume implements VolumeClient {
  constructor(readonly answers: FakeAnswers) {}

  async status(): Promise<EngineStatus> {
    return this.answers.status();
  }

  async events(): Promise<readonly EngineEvent[]> {
    return [];
  }

  async addReplica(address: string): Promise<string> {
    if (this.answers.addReplica === undefined) throw new Error('nobody adds here');
    return this.answers.addReplica(address);
  }

  async removeReplica(request: RemoveReplicaRequest): Promise<RemoveReplicaReply> {
    if (this.answers.removeReplica === undefined) throw new Error('nobody removes here');
    return this.answers.removeReplica(request);
  }

  async scrub(_action: ScrubRequest['action']): Promise<ScrubReport> {
    return NO_SCRUB;
  }

  close(): void {
    this.answers.onClose?.();
  }
}
