/** Copies of the membership record on the members, by control calls. */
import { type StorageError, toStorageError } from '../../common/errors.js';
import type { ReplicaControl } from '../../proto/control.js';
import type { RecordCopies } from '../core/membership-authority.js';
import type { MembershipRecord } from '../core/replica-set.js';

export class ControlCopies implements RecordCopies {
  constructor(
    readonly volume: string,
    readonly controlOf: (replicaId: string) => ReplicaControl | undefined,
    /** A member that cannot store within this fails. */
    readonly deadlineMs: number,
  ) {}

  async store(
    record: MembershipRecord,
    storeOn: readonly string[],
  ): Promise<ReadonlyMap<string, StorageError>> {
    const failed = new Map<string, StorageError>();
    await Promise.all(
      storeOn.map(async (replicaId) => {
        const error = await this.#storeOn(replicaId, record);
        if (error !== undefined) failed.set(replicaId, error);
      }),
    );
    return failed;
  }

  async #storeOn(replicaId: string, record: MembershipRecord): Promise<StorageError | undefined> {
    try {
      const control = this.controlOf(replicaId);
      if (control === undefined) throw new Error(`no control connection to replica ${replicaId}`);
      await control.setMembership(
        { volume: this.volume, replicaId, membership: record },
        { deadlineMs: this.deadlineMs },
      );
      return undefined;
    } catch (error) {
      return toStorageError(error, `store membership on replica ${replicaId}`);
    }
  }
}
