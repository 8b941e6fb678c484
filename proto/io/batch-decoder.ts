/** skeleton */
import type { IoHello } from './hello.js';

/** One request. The same object is filled again for the next request: copy what must outlive the visitor's call. */
export interface IoRequestView {
  readonly op: number;
  readonly flags: number;
  readonly id: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly arg: number;
  /** Half-open index ranges in `bytes`; empty ranges where the request has none. */
  readonly checksumsStart: number;
  readonly checksumsEnd: number;
  readonly payloadStart: number;
  readonly payloadEnd: number;
  /** The whole message. */
  readonly bytes: Buffer;
}

export interface IoBatchVisitor {
  onHello(hello: IoHello): void;
  /** Called before the requests, once per message that is not a hello. */
  onAckedThrough(id: number): void;
  onRequest(request: IoRequestView): void;
}

export function decodeIoBatch(_message: Buffer, _visitor: IoBatchVisitor): void {
  throw new Error('not yet');
}
