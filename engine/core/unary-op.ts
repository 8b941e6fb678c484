/** One operation on one link as a promise, for what is not on the hot path: maps, recovery,
 *  repair. */
import { StorageError } from '../../common/errors.js';
import type { IoReplyView } from '../../proto/io-codec.js';
import type { IncomingMessage } from '../../proto/message-stream.js';
import { codeOfStatus } from '../../proto/status.js';
import type { PendingOp } from './pending-op.js';
import type { ReplicaLink } from './replica-link.js';

/** `done` resolves with a copy of the reply's payload. @throws StorageError of the replica, or why
 *  the link was lost */
export class UnaryOp implements PendingOp {
  sentMs = 0;
  readonly done: Promise<Buffer>;
  #resolve!: (payload: Buffer) => void;
  #reject!: (error: StorageError) => void;

  constructor() {
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  onReply(_link: ReplicaLink, reply: IoReplyView, message: IncomingMessage): void {
    if (reply.status !== 0) {
      const code = codeOfStatus(reply.status) ?? 'INTERNAL';
      this.#reject(new StorageError(code, reply.detail || code));
      return;
    }
    this.#resolve(Buffer.from(message.bytes.subarray(reply.payloadStart, reply.payloadEnd)));
  }

  onLost(_link: ReplicaLink, error: StorageError): void {
    this.#reject(error);
  }
}
