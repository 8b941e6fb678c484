/** Looks at a volume again and again, through restarts of its engine. */
import { type Clock, sleep } from '../common/clock.js';
import { type ErrorCode, toStorageError } from '../common/errors.js';
import { openVolume, type VolumeAccess, type VolumeClient } from './volume-client.js';

export interface Polling {
  readonly clock: Clock;
  readonly everyMs: number;
  /** the engine does not answer (told once), or answers again (undefined) */
  readonly onSilent?: (reason: string | undefined) => void;
}

/** These pass when the engine is back. */
const PASSING: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['UNAVAILABLE', 'DEADLINE', 'CLOSED']);

/** Calls `look` until it gives something else than undefined. The first look must succeed; later
 *  ones may find the engine away.
 *  @throws StorageError what `look` throws, but for an engine that does not answer */
export async function pollVolume<T>(
  volume: string,
  polling: VolumeAccess & Polling,
  look: (client: VolumeClient) => Promise<T | undefined>,
): Promise<T> {
  const { clock, everyMs, onSilent = () => undefined } = polling;
  let client: VolumeClient | undefined = await openVolume(volume, polling);
  let seen = false;
  let silent = false;
  try {
    for (;;) {
      try {
        client ??= await openVolume(volume, polling);
        const found = await look(client);
        if (silent) onSilent(undefined);
        silent = false;
        seen = true;
        if (found !== undefined) return found;
      } catch (cause) {
        const error = toStorageError(cause, `look at volume ${volume}`);
        if (!seen || !PASSING.has(error.code)) throw error;
        // A new connection: the old one waits longer and longer before it tries again.
        client?.close();
        client = undefined;
        if (!silent) onSilent(error.message);
        silent = true;
      }
      await sleep(clock, everyMs);
    }
  } finally {
    client?.close();
  }
}
