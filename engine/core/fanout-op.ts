/** One change on its way to all members. */
import assert from 'node:assert';
import { type ErrorCode, StorageError } from '../../common/errors.js';
import { IO_OP, type IoReplyView } from '../../proto/io-codec.js';
import { codeOfStatus } from '../../proto/status.js';
import type { Horizoned } from './ack-horizon.js';
import type { PendingOp, Settled } from './pending-op.js';
import type { ReplicaLink } from './replica-link.js';

/** What to do, so that it can be sent again to other members. */
export interface Change {
  readonly op: number;
  readonly flags: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly arg: number;
  /** of a write: pieces in order, borrowed until the operation has settled */
  readonly payload: readonly Buffer[];
}

/** With these a member says that it changed nothing and works on. */
const REFUSALS: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'NO_SPACE',
  'OVERLOADED',
  'CONFLICT',
  'OUT_OF_RANGE',
  'INVALID_ARGUMENT',
  'UNSUPPORTED',
]);

export function isRefusal(error: StorageError): boolean {
  return REFUSALS.has(error.code);
}

export interface FanoutOwner {
  /** Every member that got the operation has answered or is lost. */
  answered(op: FanoutOp): void;
  /** It is not known to be on this member. Told at once: the member may be back, and ask what it
   *  missed, before the others have answered. */
  missedBy(op: FanoutOp, link: ReplicaLink): void;
}

export class FanoutOp implements PendingOp, Horizoned {
  id = 0;
  sentMs = 0;
  outstanding = 0;
  /** members that have acknowledged it, as bits by link index */
  okMask = 0;
  /** its outcome is known and equal on all members */
  settled = false;
  /** how many tenures ended under it */
  tenures = 0;
  /** replies other than OK; allocated only when there is one */
  failures: Array<{ link: ReplicaLink; error: StorageError }> | undefined;
  resolve!: () => void;
  reject!: (error: StorageError) => void;

  constructor(
    readonly owner: FanoutOwner,
    readonly change: Change,
    readonly after: Settled | undefined,
  ) {}

  /** Length of what it changes; 0 for a flush. */
  get changedBytes(): number {
    return this.change.op === IO_OP.FLUSH ? 0 : this.change.lengthBytes;
  }

  isOk(link: ReplicaLink): boolean {
    return (this.okMask & (1 << link.index)) !== 0;
  }

  onReply(link: ReplicaLink, reply: IoReplyView): void {
    if (reply.status === 0) {
      this.okMask |= 1 << link.index;
      link.noteWrite(this.sentMs);
    } else {
      const code = codeOfStatus(reply.status) ?? 'INTERNAL';
      this.#addFailure(link, new StorageError(code, reply.detail || `status ${reply.status}`));
    }
    this.#answered();
  }

  onLost(link: ReplicaLink, error: StorageError): void {
    this.#addFailure(link, error);
    this.#answered();
  }

  #addFailure(link: ReplicaLink, error: StorageError): void {
    this.failures ??= [];
    this.failures.push({ link, error });
    this.owner.missedBy(this, link);
  }

  #answered(): void {
    this.outstanding -= 1;
    assert(this.outstanding >= 0, 'one answer per member');
    if (this.outstanding === 0) this.owner.answered(this);
  }
}
