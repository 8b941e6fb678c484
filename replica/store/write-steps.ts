/** Steps that writes and replaces have in common. */
import { anySet } from '../../common/bitmap.js';
import { toStorageError } from '../../common/errors.js';
import { BLOCK_SIZE } from '../../common/units.js';
import { PRESENT_AT, SLOT_BYTES } from './extent-record.js';
import type { ExtentRecords } from './extent-records.js';
import type { StoreContext } from './store-context.js';

export interface StoreParts {
  readonly context: StoreContext;
  readonly records: ExtentRecords;
}

/** Blocks of one extent, whose slot is pinned. */
export interface SlotBlocks {
  readonly slot: number;
  readonly first: number;
  readonly count: number;
}

/** Resolves when no other write is in flight on any of the blocks: within this turn they can be
 *  made busy. @throws StorageError REPLICA_FAILED */
export async function untilIdle(
  { context, records }: StoreParts,
  blocks: readonly SlotBlocks[],
): Promise<void> {
  for (;;) {
    const blocked = blocks.find(({ slot, first, count }) => records.isBusy(slot, first, count));
    if (blocked === undefined) return;
    await records.whenLessBusy(blocked.slot);
    context.checkFailure();
  }
}

/** Fails the replica and throws the reason. A device without space is no failure if the blocks were
 *  absent and can be made zeroes again: then nothing changed. */
export async function failedWrite(
  parts: StoreParts,
  blocks: readonly SlotBlocks[],
  reason: unknown,
): Promise<never> {
  const { context } = parts;
  const error = toStorageError(reason, `write to volume ${context.identity.volume}`);
  const { slab } = context.disk.cache;
  const hadContent = blocks.some(({ slot, first, count }) =>
    anySet(slab, slot * SLOT_BYTES + PRESENT_AT, first, count),
  );
  if (error.code === 'NO_SPACE' && !hadContent && (await undo(parts, blocks))) {
    context.disk.counters.noSpace += 1;
  } else context.fail(error);
  throw error;
}

/** Makes absent blocks durably zero again; false if that is not possible either. */
async function undo(
  { context, records }: StoreParts,
  blocks: readonly SlotBlocks[],
): Promise<boolean> {
  try {
    for (const { slot, first, count } of blocks) {
      const at = context.deviceOffset(records.physicalOf(slot), first);
      await context.disk.device.writeZeroes(at, count * BLOCK_SIZE, { mayUnmap: true });
    }
    await context.disk.flush();
    return true;
  } catch {
    return false;
  }
}
