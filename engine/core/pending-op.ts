/** What waits for a reply of a replica. One object per operation, also when it waits for several
 *  replicas. */
import type { StorageError } from '../../common/errors.js';
import type { IoReplyView } from '../../proto/io-codec.js';
import type { IncomingMessage } from '../../proto/message-stream.js';
import type { ReplicaLink } from './replica-link.js';

export interface PendingOp {
  /** clock of the engine when it was sent; the deadline counts from here */
  sentMs: number;
  /** A reply came. `reply` and `message` are borrowed until the call returns (the message may be
   *  retained). */
  onReply(link: ReplicaLink, reply: IoReplyView, message: IncomingMessage): void;
  /** The link died before the reply: the operation may or may not have happened there. */
  onLost(link: ReplicaLink, error: StorageError): void;
}

/** Told, once and synchronously, when an operation has ended either way, just before its promise
 *  settles: gives locks back. */
export interface Settled {
  settled(): void;
}

/** A callback at the end of the event-loop turn; what one turn collects goes out as one message. */
export type EndOfTurn = (callback: () => void) => void;
