/** Lets writes, trims and zeroes into a region: marks it durably first (P1), and holds them off
 *  while it is cleaned (P2). */

import { REGION_CLEAN, REGION_DIRTY } from './dirty-regions.js';
import { dirtyMarkKey } from './keys.js';
import type { BatchBuilder } from './metadata-writer.js';
import { seal } from './sealed-value.js';
import type { StoreContext } from './store-context.js';

const MARK_BODY = Buffer.from([1]);

/** The stored form of a mark. */
export function sealedMark(key: Buffer): { value: Buffer; crc: number } {
  return seal(key, MARK_BODY);
}

/** Resolves when the region has a durable dirty mark and this caller is counted in; pair with
 *  `leaveRegion`. Many regions and callers share one synced batch. @throws StorageError (the disk
 *  has failed then) */
export async function enterRegion(context: StoreContext, region: number): Promise<void> {
  const { regions } = context;
  while (regions.state[region] !== REGION_DIRTY) {
    if (regions.state[region] === REGION_CLEAN) regions.beginMark(region, mark(context, region));
    await regions.change(region);
    context.checkFailure();
  }
  regions.inFlight[region] = (regions.inFlight[region] ?? 0) + 1;
}

export function leaveRegion(context: StoreContext, region: number): void {
  const { inFlight } = context.regions;
  inFlight[region] = (inFlight[region] ?? 0) - 1;
}

/** After a failure the region stays in marking: the disk has failed with it. */
async function mark(context: StoreContext, region: number): Promise<void> {
  const { number } = context.identity;
  const fill = (batch: BatchBuilder): void => {
    const key = dirtyMarkKey(number, region);
    batch.putSealed(number, key, sealedMark(key), undefined);
  };
  await context.disk.writer.submit(fill, { sync: true });
  context.disk.counters.dirtyMarks += 1;
  context.regions.endMark(region);
}
