/** Removes a replica for good, in bounded batches; a crash anywhere is finished at the next open of
 *  the disk. */
import { PHYSICAL_AT, RECORD_BYTES } from '../store/extent-record.js';
import { dirtyMarkRange, extentRange, regionTagRange, replicaKey } from '../store/keys.js';
import type { Kv } from '../store/kv.js';
import type { MetadataWriter } from '../store/metadata-writer.js';
import type { ScannedReplica } from './metadata-scan.js';
import { storedReplicaBody } from './stored-replica.js';

/** When it resolves the replica is gone durably. Physical extents of a damaged one stay taken until
 *  the disk is opened again: its records may name extents of others. @throws StorageError of the
 *  metadata; the disk has failed then */
export async function removeReplica(options: {
  readonly kv: Kv;
  readonly writer: MetadataWriter;
  readonly replica: ScannedReplica;
}): Promise<void> {
  const { kv, writer, replica } = options;
  const key = replicaKey(replica.number);
  await writer.submit(
    (batch) => {
      const record = { ...replica.record, deleting: true };
      replica.recordSeal = batch.put(0, key, storedReplicaBody(record), replica.recordSeal);
      replica.record = record;
    },
    { sync: true },
  );
  const trusted = replica.damage === undefined;
  const { number } = replica;
  for (const range of [extentRange(number), dirtyMarkRange(number), regionTagRange(number)]) {
    for await (const entries of kv.iterate(range)) {
      await writer.submit(
        (batch) => {
          for (const [found, value] of entries) {
            batch.deleteUnsummed(found);
            const isExtent = value.length === RECORD_BYTES;
            if (trusted && isExtent) batch.free(value.readUInt32LE(PHYSICAL_AT));
          }
        },
        { sync: false },
      );
    }
  }
  await writer.submit(
    (batch) => {
      batch.delete(0, key, replica.recordSeal);
      batch.dropScope(number);
    },
    { sync: true },
  );
}
