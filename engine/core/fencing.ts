/** Tells from an error whether another engine has the volume. Pure. */
import type { StorageError } from '../../common/errors.js';

/** R5: true if somebody knows a higher epoch than ours. A daemon that has restarted answers
 *  STALE_EPOCH, too, until the replica is opened again (P7); the epoch that it names is ours. */
export function isFencing(error: StorageError, epoch: number): boolean {
  if (error.code !== 'STALE_EPOCH') return false;
  const known = error.details['epoch'];
  return typeof known !== 'number' || known > epoch;
}
