/** Walks over the extents that any member has allocated. */
import { StorageError } from '../../common/errors.js';
import { EXTENTS_PER_REGION, REGION_SIZE } from '../../common/units.js';
import type { RegionTeller } from './catch-up.js';

export interface AllocatedFrom {
  readonly volume: string;
  readonly epoch: number;
  /** the members to ask, now */
  readonly tellers: () => readonly RegionTeller[];
  readonly volumeBytes: number;
}

const REGIONS_PER_CALL = 1024;

/** Extents from `from` on, ascending, as they are when they are come to.
 *  @throws StorageError of a member that cannot be asked */
export async function* allocatedExtents(ask: AllocatedFrom, from: number): AsyncGenerator<number> {
  const regions = Math.ceil(ask.volumeBytes / REGION_SIZE);
  const start = Math.floor(from / EXTENTS_PER_REGION);
  for (let first = start; first < regions; first += REGIONS_PER_CALL) {
    for (const region of await regionsWithExtents(ask, first)) {
      for (const extent of await extentsOf(ask, region)) if (extent >= from) yield extent;
    }
  }
}

async function regionsWithExtents(ask: AllocatedFrom, firstRegion: number): Promise<number[]> {
  const { volume, epoch } = ask;
  const replies = await Promise.all(
    someTellers(ask).map(({ control, replicaId }) =>
      control.listRegions({ volume, replicaId, epoch, firstRegion, count: REGIONS_PER_CALL }),
    ),
  );
  const found = replies.flatMap(({ regions }) =>
    regions.filter((r) => r.allocatedExtents > 0).map((r) => r.number),
  );
  return [...new Set(found)].sort((a, b) => a - b);
}

async function extentsOf(ask: AllocatedFrom, region: number): Promise<number[]> {
  const { volume, epoch } = ask;
  const replies = await Promise.all(
    someTellers(ask).map(({ control, replicaId }) =>
      control.listExtents({ volume, replicaId, epoch, region }),
    ),
  );
  const found = replies.flatMap(({ extents }) =>
    extents.filter((e) => e.allocated).map((e) => e.number),
  );
  return [...new Set(found)].sort((a, b) => a - b);
}

function someTellers(ask: AllocatedFrom): readonly RegionTeller[] {
  const tellers = ask.tellers();
  if (tellers.length > 0) return tellers;
  throw new StorageError('NO_REPLICA', 'no in-sync replica can be asked');
}
