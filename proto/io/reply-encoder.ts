/** skeleton */
import type { OutgoingMessage } from '../message-stream.js';

export class IoReplyEncoder {
  /** Replies added since the last finish. */
  get replies(): number {
    throw new Error('not yet');
  }
  /** Message bytes so far, payloads by reference included. */
  get lengthBytes(): number {
    throw new Error('not yet');
  }
  /** Whether one more reply with this payload keeps the message within the protocol's limits. */
  fits(_payloadBytes: number): boolean {
    throw new Error('not yet');
  }
  add(_id: number, _status: number, _error?: { badBlock?: number; detail?: string }): void {
    throw new Error('not yet');
  }
  /** @param payload undefined: all zero; up to COPIED_PAYLOAD_MAX copied and released at once, else sent from where it is */
  addRead(
    _id: number,
    _checksums: Buffer,
    _payload: Buffer | undefined,
    _release?: () => void,
  ): void {
    throw new Error('not yet');
  }
  finish(): OutgoingMessage {
    throw new Error('not yet');
  }
}
