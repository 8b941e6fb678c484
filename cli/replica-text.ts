/** The copies of a volume as a table. Pure. */
import { formatSize } from '../common/units.js';
import type { EngineReplicaStatus } from '../proto/control.js';
import { renderTable } from './report.js';
import { durationText } from './time-text.js';

const REASON_COLUMNS = 60;

export function renderReplicas(replicas: readonly EngineReplicaStatus[]): string {
  const head = ['REPLICA', 'STATE', 'ALLOCATED', 'READ', 'WRITE', 'IN-FLIGHT', 'ADDRESS'];
  const rows = replicas.map((replica) => [
    replica.replicaId,
    stateText(replica),
    formatSize(replica.allocatedBytes),
    `${replica.readLatencyMs.toFixed(2)}ms`,
    `${replica.writeLatencyMs.toFixed(2)}ms`,
    String(replica.inFlight),
    replica.local ? `${replica.address} (local)` : replica.address,
  ]);
  return renderTable(head, rows);
}

/** `in-sync`, `rebuilding 45% (12 s left)`, `failed: UNAVAILABLE: …`: `explain` has it all. */
export function stateText(replica: EngineReplicaStatus): string {
  const { state, reason, progress, recordedState } = replica;
  // Added, and not filled yet: nothing has failed.
  if (state === 'failed' && recordedState === 'rebuilding' && reason === '') return 'new';
  if (state === 'rebuilding' && progress !== undefined) {
    const { phase, doneBytes, totalBytes, etaMs } = progress;
    if (totalBytes === 0) return `${state} ${phase}`;
    const left = etaMs > 0 && doneBytes < totalBytes ? ` (${durationText(etaMs)} left)` : '';
    return `${state} ${Math.floor((doneBytes / totalBytes) * 100)}%${left}`;
  }
  return reason === '' ? state : `${state}: ${shortened(reason)}`;
}

function shortened(reason: string): string {
  return reason.length <= REASON_COLUMNS ? reason : `${reason.substring(0, REASON_COLUMNS - 1)}…`;
}
