/** skeleton */
import type { OutgoingMessage } from '../message-stream.js';

/** Signature of crc32cBlocks in native/index.ts. */
export type ChecksumBlocks = (
  src: Buffer,
  srcOffset: number,
  lengthBytes: number,
  out: Buffer,
  outOffset: number,
) => void;

/** All numbers are safe integers; `arg` is 0 where the operation has none. */
export interface IoRequestFields {
  readonly op: number;
  readonly flags: number;
  readonly id: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly arg: number;
}

export class IoBatchEncoder {
  constructor(_options: { checksumBlocks: ChecksumBlocks }) {}
  /** Requests added since the last finish. */
  get requests(): number {
    throw new Error('not yet');
  }
  /** Message bytes so far. */
  get lengthBytes(): number {
    throw new Error('not yet');
  }
  /** Whether one more request with this payload keeps the message within the protocol's limits. */
  fits(_payloadBytes: number): boolean {
    throw new Error('not yet');
  }
  add(_fields: IoRequestFields): void {
    throw new Error('not yet');
  }
  addWrite(_fields: Omit<IoRequestFields, 'op' | 'arg'>, _payload: readonly Buffer[]): void {
    throw new Error('not yet');
  }
  /** @param streams how many streams the message is sent on: that many done() calls recycle its memory */
  finish(_ackedThrough: number, _streams: number): OutgoingMessage {
    throw new Error('not yet');
  }
}
