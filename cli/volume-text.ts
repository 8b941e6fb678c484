/** A volume in a few lines. Pure. */
import { formatSize } from '../common/units.js';
import type { EngineStatus } from '../proto/control.js';
import { rebuildText } from './progress-bar.js';
import { durationText } from './time-text.js';

export function renderVolume(status: EngineStatus): string {
  const inSync = status.replicas.filter((replica) => replica.state === 'in-sync').length;
  const rows: Array<[string, string]> = [
    ['volume', status.volume],
    ['size', formatSize(status.sizeBytes)],
    ['state', status.reason === '' ? status.state : `${status.state}: ${status.reason}`],
    ['copies', `${inSync} of ${status.replicas.length} in sync`],
    ...recoveryRows(status),
    ['epoch', `${status.epoch}, generation ${status.generation}`],
    ['engine', status.engineId],
    ...status.uris.map((uri): [string, string] => ['uri', uri]),
  ];
  return rows.map(([key, value]) => `${key.padEnd(8)}${value}`).join('\n');
}

function recoveryRows(status: EngineStatus): Array<[string, string]> {
  const { replicas, unequalExtents } = status;
  const rows: Array<[string, string]> = [];
  const io = ioText(status);
  if (io !== '') rows.push(['i/o', io]);
  if (unequalExtents > 0) rows.push(['equal', `${unequalExtents} MiB are still compared`]);
  for (const { replicaId, state, progress } of replicas) {
    if (state !== 'rebuilding' || progress === undefined) continue;
    rows.push(['rebuild', `${replicaId} ${rebuildText(progress, { bar: true })}`]);
  }
  return rows;
}

/** What clients see, if it is anything but service. */
function ioText({ state, refusing, parkedOperations, stateMs, ioTimeoutMs }: EngineStatus): string {
  if (state !== 'faulted') return '';
  if (refusing) return 'fails until the copies are back';
  const leftMs = Math.max(0, ioTimeoutMs - stateMs);
  return `waits: ${parkedOperations} operations; fails in ${durationText(leftMs)}`;
}
