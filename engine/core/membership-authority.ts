/**
 * Where the membership record of a volume is decided: one linearizable record, changed by
 * compare-and-set.
 *
 * Implementations: the copies on the replicas alone (standalone), or a store behind the manager. In
 * both cases every member keeps a copy, so that whoever restarts can tell whether a change ever
 * took effect (P3).
 */
import type { StorageError } from '../../common/errors.js';
import type { MembershipRecord, RecordVersion } from './replica-set.js';

export type CommitOutcome =
  | { readonly kind: 'stored' }
  /** the record is another one than expected: somebody else decides now */
  | { readonly kind: 'superseded'; readonly record: MembershipRecord };

export interface MembershipAuthority {
  /** Makes `next` the record if it is still `expected`; storing the same record again is `stored`.
   *  Durable when it resolves with `stored`.
   *  @throws StorageError UNAVAILABLE | DEADLINE | … : the outcome is unknown; ask `read` */
  commit(expected: RecordVersion, next: MembershipRecord): Promise<CommitOutcome>;
  /** The record now, linearizable; undefined if the volume is not known.
   *  @throws StorageError UNAVAILABLE | DEADLINE */
  read(): Promise<MembershipRecord | undefined>;
}

/** The copies of the record on the members. */
export interface RecordCopies {
  /** Stores `record` durably on each member; returns those where it could not be, with the reason.
   *  Bounded by its own deadline; never throws. */
  store(
    record: MembershipRecord,
    storeOn: readonly string[],
  ): Promise<ReadonlyMap<string, StorageError>>;
}

/** For a standalone volume: there is no record but the copies, and the next record is decided by
 *  the engine that all members have opened (R5). */
export class CopiesAlone implements MembershipAuthority {
  #record: MembershipRecord;

  constructor(record: MembershipRecord) {
    this.#record = record;
  }

  async commit(_expected: RecordVersion, next: MembershipRecord): Promise<CommitOutcome> {
    this.#record = next;
    return { kind: 'stored' };
  }

  async read(): Promise<MembershipRecord> {
    return this.#record;
  }
}
