/** skeleton */
import type { OutgoingMessage } from '../message-stream.js';

export interface IoHello {
  readonly protocolVersion: number;
  readonly volume: string;
  readonly replicaId: string;
  readonly epoch: number;
  readonly engineId: string;
}

export interface IoHelloReply {
  readonly protocolVersion: number;
  readonly incarnation: string;
  readonly windowBytes: number;
  readonly windowRequests: number;
}

export function encodeIoHello(_hello: IoHello): OutgoingMessage {
  throw new Error('not yet');
}

export function encodeIoHelloReply(_hello: IoHelloReply): OutgoingMessage {
  throw new Error('not yet');
}
