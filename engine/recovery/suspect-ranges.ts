/** What members may differ in after a start, from what their daemons say. Pure. */
import { EXTENT_SIZE } from '../../common/units.js';
import type { OpenReplicaReply } from '../../proto/control.js';
import type { ByteRange } from './member-io.js';

/** Writes that were in flight, on daemons that lived: kilobytes, made equal before the first
 *  I/O. */
export function windowRanges(members: readonly OpenReplicaReply[]): ByteRange[] {
  return members.flatMap((opened) => [...opened.window]);
}

/** Regions in which a daemon that restarted may lack writes, or have some that others lack: its
 *  dirty ones, ascending. An operation in flight that only such a daemon saw is in one of them,
 *  too. */
export function suspectRegions(members: readonly OpenReplicaReply[]): number[] {
  const regions = new Set(
    members.filter((m) => m.restartedDirty).flatMap((opened) => [...opened.dirtyRegions]),
  );
  return [...regions].sort((a, b) => a - b);
}

/** Sorted, merged, cut to the volume and split at extent borders. */
export function planPieces(ranges: readonly ByteRange[], volumeBytes: number): ByteRange[] {
  const sorted = ranges
    .map((r) => ({
      start: r.offsetBytes,
      end: Math.min(r.offsetBytes + r.lengthBytes, volumeBytes),
    }))
    .filter((r) => r.end > r.start)
    .sort((a, b) => a.start - b.start);
  const pieces: ByteRange[] = [];
  let done = 0;
  for (const range of sorted) {
    for (let at = Math.max(range.start, done); at < range.end; ) {
      const end = Math.min(range.end, at - (at % EXTENT_SIZE) + EXTENT_SIZE);
      pieces.push({ offsetBytes: at, lengthBytes: end - at });
      at = end;
    }
    done = Math.max(done, range.end);
  }
  return pieces;
}
