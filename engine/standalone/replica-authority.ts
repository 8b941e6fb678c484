/** The membership record of a standalone volume lives on its replicas: stored on every remaining
 *  member before it counts. */
import { type StorageError, toStorageError } from '../../common/errors.js';
import type { ReplicaControl } from '../../proto/control.js';
import type { MembershipAuthority } from '../core/membership-keeper.js';
import type { MembershipChange } from '../core/replica-set.js';

export class ReplicaAuthority implements MembershipAuthority {
  constructor(
    readonly volume: string,
    readonly clients: ReadonlyMap<string, ReplicaControl>,
    /** A member that cannot store within this is failed too. */
    readonly deadlineMs: number,
  ) {}

  async store(change: MembershipChange): Promise<ReadonlyMap<string, string>> {
    const failed = new Map<string, string>();
    await Promise.all(
      change.storeOn.map(async (replicaId) => {
        const error = await this.#storeOn(replicaId, change);
        if (error !== undefined) failed.set(replicaId, `${error.code}: ${error.message}`);
      }),
    );
    return failed;
  }

  async #storeOn(replicaId: string, change: MembershipChange): Promise<StorageError | undefined> {
    try {
      const client = this.clients.get(replicaId);
      if (client === undefined) throw new Error(`no control connection to replica ${replicaId}`);
      await client.setMembership(
        { volume: this.volume, replicaId, membership: change.record },
        { deadlineMs: this.deadlineMs },
      );
      return undefined;
    } catch (error) {
      return toStorageError(error, `store membership on replica ${replicaId}`);
    }
  }
}
