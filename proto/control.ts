/**
 * Control calls: ordinary unary gRPC, typed, checked at the edge, errors as StorageError with the same code on both sides.
 */
import type { ServiceDefinition, UntypedServiceImplementation } from '@grpc/grpc-js';
import type * as m from './control/messages.js';
import type { TransportTls } from './transport/tls.js';

export type * from './control/messages.js';

/** What a handler may know of its caller. */
export interface ControlCall {
  readonly peer: string;
  /** Aborted when the caller went away or its deadline passed. */
  readonly signal: AbortSignal;
}

type Handler<Request, Reply> = (request: Request, call: ControlCall) => Promise<Reply>;

/** One method per rpc. Requests were validated before; a StorageError thrown reaches the caller with its code. */
export interface ReplicaControlHandlers {
  identify: Handler<m.IdentifyRequest, m.IdentifyReply>;
  createReplica: Handler<m.CreateReplicaRequest, m.ReplicaInfo>;
  openReplica: Handler<m.OpenReplicaRequest, m.OpenReplicaReply>;
  setMembership: Handler<m.SetMembershipRequest, m.SetMembershipReply>;
  deleteReplica: Handler<m.DeleteReplicaRequest, m.DeleteReplicaReply>;
}

export interface EngineControlHandlers {
  status: Handler<m.EngineStatusRequest, m.EngineStatus>;
  stop: Handler<m.EngineStopRequest, m.EngineStopReply>;
}

/** A service for `listenTransport`. */
export interface ControlService {
  readonly definition: ServiceDefinition;
  readonly implementation: UntypedServiceImplementation;
}

export interface ControlClientOptions {
  /** `host:port` or `unix:/path` */
  readonly address: string;
  readonly tls?: TransportTls | undefined;
  /** default 10 s */
  readonly deadlineMs?: number | undefined;
}

export interface ControlCallOptions {
  readonly deadlineMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export function replicaControlService(_handlers: ReplicaControlHandlers): ControlService {
  throw new Error('not yet');
}

export function engineControlService(_handlers: EngineControlHandlers): ControlService {
  throw new Error('not yet');
}

export class ReplicaControlClient {
  constructor(_options: ControlClientOptions) {}
  identify(_request: m.IdentifyRequest, _options?: ControlCallOptions): Promise<m.IdentifyReply> {
    throw new Error('not yet');
  }
  createReplica(
    _request: m.CreateReplicaRequest,
    _options?: ControlCallOptions,
  ): Promise<m.ReplicaInfo> {
    throw new Error('not yet');
  }
  openReplica(
    _request: m.OpenReplicaRequest,
    _options?: ControlCallOptions,
  ): Promise<m.OpenReplicaReply> {
    throw new Error('not yet');
  }
  setMembership(
    _request: m.SetMembershipRequest,
    _options?: ControlCallOptions,
  ): Promise<m.SetMembershipReply> {
    throw new Error('not yet');
  }
  deleteReplica(
    _request: m.DeleteReplicaRequest,
    _options?: ControlCallOptions,
  ): Promise<m.DeleteReplicaReply> {
    throw new Error('not yet');
  }
  /** Fails what is in flight with CLOSED. */
  close(): void {
    throw new Error('not yet');
  }
}

export class EngineControlClient {
  constructor(_options: ControlClientOptions) {}
  status(_request?: m.EngineStatusRequest, _options?: ControlCallOptions): Promise<m.EngineStatus> {
    throw new Error('not yet');
  }
  stop(_request?: m.EngineStopRequest, _options?: ControlCallOptions): Promise<m.EngineStopReply> {
    throw new Error('not yet');
  }
  close(): void {
    throw new Error('not yet');
  }
}
