/** skeleton */
import type { IoHelloReply } from './hello.js';

/** One reply. The same object is filled again for the next reply: copy what must outlive the visitor's call. */
export interface IoReplyView {
  /** proto/status.ts; 0 is OK */
  readonly status: number;
  readonly id: number;
  readonly badBlock: number;
  /** Half-open index ranges in `bytes`; empty ranges where the reply has none. */
  readonly checksumsStart: number;
  readonly checksumsEnd: number;
  readonly payloadStart: number;
  readonly payloadEnd: number;
  /** Text of an error reply, decoded when asked for; '' if there is none. */
  readonly detail: string;
  /** The whole message. */
  readonly bytes: Buffer;
}

export interface IoReplyBatchVisitor {
  onHello(hello: IoHelloReply): void;
  onReply(reply: IoReplyView): void;
}

export function decodeIoReplyBatch(_message: Buffer, _visitor: IoReplyBatchVisitor): void {
  throw new Error('not yet');
}
