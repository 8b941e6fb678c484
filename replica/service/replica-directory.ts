/** Every replica that this daemon serves, by volume and replica id. */
import assert from 'node:assert';
import { StorageError } from '../../common/errors.js';
import type { ReplicaSession } from './replica-session.js';

export class ReplicaDirectory {
  readonly #sessions = new Map<string, ReplicaSession>();

  get size(): number {
    return this.#sessions.size;
  }

  all(): ReplicaSession[] {
    return [...this.#sessions.values()];
  }

  /** Replicas of one volume: one, or more where a disk of another daemon was plugged in here. */
  ofVolume(volume: string): ReplicaSession[] {
    return this.all().filter((session) => session.volume === volume);
  }

  /** @throws StorageError NOT_FOUND (no such volume here) | IDENTITY_MISMATCH (another replica of
   *    it: R8) */
  get(volume: string, replicaId: string): ReplicaSession {
    const session = this.#sessions.get(keyOf(volume, replicaId));
    if (session !== undefined) return session;
    const others = this.ofVolume(volume).map((other) => other.replicaId);
    if (others.length === 0) {
      throw new StorageError('NOT_FOUND', `volume ${volume} has no replica here`, { volume });
    }
    throw new StorageError(
      'IDENTITY_MISMATCH',
      `replica ${replicaId} of volume ${volume} is not here, but ${others.join(', ')}`,
      { volume, replica: replicaId },
    );
  }

  has(volume: string, replicaId: string): boolean {
    return this.#sessions.has(keyOf(volume, replicaId));
  }

  add(session: ReplicaSession): void {
    const key = keyOf(session.volume, session.replicaId);
    assert(!this.#sessions.has(key), `replica ${key} is already served`);
    this.#sessions.set(key, session);
  }

  remove(session: ReplicaSession): void {
    this.#sessions.delete(keyOf(session.volume, session.replicaId));
  }
}

/** Names hold no slash. */
function keyOf(volume: string, replicaId: string): string {
  return `${volume}/${replicaId}`;
}
