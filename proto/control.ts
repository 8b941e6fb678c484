/**
 * Control calls: ordinary unary gRPC, typed, checked at the edge, errors as StorageError with the
 * same code on both sides.
 *
 * Clients and services are thin: the tables of rpcs are in `control/methods.ts`, every check in
 * `control/convert.ts`.
 */
import {
  type ControlCallOptions,
  type ControlClientOptions,
  UnaryClient,
} from './control/client.js';
import type * as m from './control/messages.js';
import { REPLICA_METHODS } from './control/methods.js';
import { type ControlCall, type ControlService, ControlServiceBuilder } from './control/service.js';

export type { ControlCallOptions, ControlClientOptions } from './control/client.js';
export type * from './control/engine-messages.js';
export type * from './control/messages.js';
export type { ControlCall, ControlService } from './control/service.js';
export {
  EngineControlClient,
  type EngineControlHandlers,
  engineControlService,
} from './engine-control.js';

type Handler<Request, Reply> = (request: Request, call: ControlCall) => Promise<Reply>;

/** One method per rpc. Requests were validated before; a StorageError thrown reaches the caller
 * with its code. */
export interface ReplicaControlHandlers {
  identify: Handler<m.IdentifyRequest, m.IdentifyReply>;
  createReplica: Handler<m.CreateReplicaRequest, m.ReplicaInfo>;
  openReplica: Handler<m.OpenReplicaRequest, m.OpenReplicaReply>;
  setMembership: Handler<m.SetMembershipRequest, m.SetMembershipReply>;
  deleteReplica: Handler<m.DeleteReplicaRequest, m.DeleteReplicaReply>;
  listRegions: Handler<m.ListRegionsRequest, m.ListRegionsReply>;
  listExtents: Handler<m.ListExtentsRequest, m.ListExtentsReply>;
  cleanRegion: Handler<m.CleanRegionRequest, m.CleanRegionReply>;
  noteComplete: Handler<m.NoteCompleteRequest, m.NoteCompleteReply>;
}

/** ReplicaControl as a service for `listenTransport`. The handlers object keeps its `this`. */
export function replicaControlService(handlers: ReplicaControlHandlers): ControlService {
  const rpc = REPLICA_METHODS;
  return new ControlServiceBuilder()
    .add(rpc.identify, (request, call) => handlers.identify(request, call))
    .add(rpc.createReplica, (request, call) => handlers.createReplica(request, call))
    .add(rpc.openReplica, (request, call) => handlers.openReplica(request, call))
    .add(rpc.setMembership, (request, call) => handlers.setMembership(request, call))
    .add(rpc.deleteReplica, (request, call) => handlers.deleteReplica(request, call))
    .add(rpc.listRegions, (request, call) => handlers.listRegions(request, call))
    .add(rpc.listExtents, (request, call) => handlers.listExtents(request, call))
    .add(rpc.cleanRegion, (request, call) => handlers.cleanRegion(request, call))
    .add(rpc.noteComplete, (request, call) => handlers.noteComplete(request, call))
    .build();
}

/** Calls one replica daemon. Errors of every method: see UnaryClient.call. */
export class ReplicaControlClient {
  readonly #unary: UnaryClient;

  /** @throws StorageError INVALID_ARGUMENT: address or TLS files */
  constructor(options: ControlClientOptions) {
    this.#unary = new UnaryClient(options);
  }

  identify(request: m.IdentifyRequest, options?: ControlCallOptions): Promise<m.IdentifyReply> {
    return this.#unary.call(REPLICA_METHODS.identify, request, options);
  }

  createReplica(
    request: m.CreateReplicaRequest,
    options?: ControlCallOptions,
  ): Promise<m.ReplicaInfo> {
    return this.#unary.call(REPLICA_METHODS.createReplica, request, options);
  }

  openReplica(
    request: m.OpenReplicaRequest,
    options?: ControlCallOptions,
  ): Promise<m.OpenReplicaReply> {
    return this.#unary.call(REPLICA_METHODS.openReplica, request, options);
  }

  setMembership(
    request: m.SetMembershipRequest,
    options?: ControlCallOptions,
  ): Promise<m.SetMembershipReply> {
    return this.#unary.call(REPLICA_METHODS.setMembership, request, options);
  }

  deleteReplica(
    request: m.DeleteReplicaRequest,
    options?: ControlCallOptions,
  ): Promise<m.DeleteReplicaReply> {
    return this.#unary.call(REPLICA_METHODS.deleteReplica, request, options);
  }

  listRegions(
    request: m.ListRegionsRequest,
    options?: ControlCallOptions,
  ): Promise<m.ListRegionsReply> {
    return this.#unary.call(REPLICA_METHODS.listRegions, request, options);
  }

  listExtents(
    request: m.ListExtentsRequest,
    options?: ControlCallOptions,
  ): Promise<m.ListExtentsReply> {
    return this.#unary.call(REPLICA_METHODS.listExtents, request, options);
  }

  cleanRegion(
    request: m.CleanRegionRequest,
    options?: ControlCallOptions,
  ): Promise<m.CleanRegionReply> {
    return this.#unary.call(REPLICA_METHODS.cleanRegion, request, options);
  }

  /** @throws StorageError STALE_EPOCH (also: another incarnation) | IO_ERROR */
  noteComplete(
    request: m.NoteCompleteRequest,
    options?: ControlCallOptions,
  ): Promise<m.NoteCompleteReply> {
    return this.#unary.call(REPLICA_METHODS.noteComplete, request, options);
  }

  /** Fails what is in flight with CLOSED. Idempotent. */
  close(): void {
    this.#unary.close();
  }
}

/** What a replica daemon can be asked, over any network. */
export type ReplicaControl = {
  readonly [K in keyof ReplicaControlClient]: ReplicaControlClient[K];
};
