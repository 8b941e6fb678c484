/** A membership authority outside the replicas, as a manager keeps one, with a network in
 *  between. */
import { StorageError } from '../../common/errors.js';
import type { CommitOutcome, MembershipAuthority } from '../../engine/core/membership-authority.js';
import {
  compareRecords,
  type MembershipRecord,
  type RecordVersion,
} from '../../engine/core/replica-set.js';

/** What becomes of one commit. */
export type CommitFate = 'stored' | 'lost-request' | 'lost-answer';

export class FakeAuthority implements MembershipAuthority {
  /** of the commits to come; afterwards all arrive */
  fates: CommitFate[] = [];
  readonly stored: MembershipRecord[] = [];
  /** after the answer to a read was made */
  onRead: () => void = () => undefined;

  constructor(public record: MembershipRecord) {}

  async commit(expected: RecordVersion, next: MembershipRecord): Promise<CommitOutcome> {
    await new Promise(setImmediate);
    const fate = this.fates.shift() ?? 'stored';
    if (fate === 'lost-request') throw new StorageError('UNAVAILABLE', 'not reached');
    if (compareRecords(this.record, expected) !== 0) {
      return { kind: 'superseded', record: this.record };
    }
    this.record = next;
    this.stored.push(next);
    if (fate === 'lost-answer') throw new StorageError('DEADLINE', 'no answer');
    return { kind: 'stored' };
  }

  async read(): Promise<MembershipRecord> {
    await new Promise(setImmediate);
    const { record } = this;
    this.onRead();
    return record;
  }

  /** The manager gives the volume to an engine. */
  attach(): number {
    this.record = { ...this.record, epoch: this.record.epoch + 1 };
    return this.record.epoch;
  }
}
