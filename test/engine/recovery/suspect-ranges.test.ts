import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BLOCK_SIZE, EXTENT_SIZE } from '../../../common/units.js';
import {
  planPieces,
  suspectRegions,
  windowRanges,
} from '../../../engine/recovery/suspect-ranges.js';
import type { OpenReplicaReply } from '../../../proto/control.js';

const member = (fields: Partial<OpenReplicaReply>): OpenReplicaReply =>
  ({ window: [], dirtyRegions: [], restartedDirty: false, ...fields }) as OpenReplicaReply;
const range = (block: number, count: number) => ({
  offsetBytes: block * BLOCK_SIZE,
  lengthBytes: count * BLOCK_SIZE,
});

describe('what may differ after a start (R1)', () => {
  it('the union of all in-flight windows', () => {
    const members = [
      member({ window: [range(0, 2)] }),
      member({ window: [range(1, 4)] }),
      member({}),
    ];
    expect(windowRanges(members)).toEqual([range(0, 2), range(1, 4)]);
  });

  it('the dirty regions of daemons that restarted, each once, ascending', () => {
    const members = [
      member({ restartedDirty: true, dirtyRegions: [7, 2] }),
      member({ restartedDirty: true, dirtyRegions: [2, 0] }),
      member({ dirtyRegions: [5] }),
    ];
    expect(suspectRegions(members)).toEqual([0, 2, 7]);
  });

  it('P5: pieces cover exactly the union, each inside one extent, none past the end', () => {
    const blocks = 1024;
    const ranges = fc.array(
      fc
        .tuple(fc.nat({ max: blocks }), fc.integer({ min: 1, max: 600 }))
        .map(([at, count]) => range(at, count)),
      { maxLength: 12 },
    );
    fc.assert(
      fc.property(ranges, (given) => {
        const want = new Set<number>();
        for (const r of given) {
          const end = Math.min(r.offsetBytes + r.lengthBytes, blocks * BLOCK_SIZE);
          for (let at = r.offsetBytes; at < end; at += BLOCK_SIZE) want.add(at);
        }
        const got: number[] = [];
        for (const piece of planPieces(given, blocks * BLOCK_SIZE)) {
          const last = piece.offsetBytes + piece.lengthBytes - 1;
          expect(Math.floor(piece.offsetBytes / EXTENT_SIZE)).toBe(Math.floor(last / EXTENT_SIZE));
          for (let at = piece.offsetBytes; at < last; at += BLOCK_SIZE) got.push(at);
        }
        expect(got).toEqual([...want].sort((a, b) => a - b));
      }),
    );
  });
});
