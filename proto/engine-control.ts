/** EngineControl of proto/engine.proto: the control socket of one engine, both ends. */
import {
  type ControlCallOptions,
  type ControlClientOptions,
  UnaryClient,
} from './control/client.js';
import type * as m from './control/engine-messages.js';
import { ENGINE_METHODS as rpc } from './control/methods.js';
import { type ControlCall, type ControlService, ControlServiceBuilder } from './control/service.js';

type Handler<Request, Reply> = (request: Request, call: ControlCall) => Promise<Reply>;

/** One method per rpc. Requests were validated before; a StorageError thrown reaches the caller
 * with its code. */
export interface EngineControlHandlers {
  status: Handler<m.EngineStatusRequest, m.EngineStatus>;
  stop: Handler<m.EngineStopRequest, m.EngineStopReply>;
  events: Handler<m.EngineEventsRequest, m.EngineEventsReply>;
  addReplica: Handler<m.AddReplicaRequest, m.AddReplicaReply>;
  removeReplica: Handler<m.RemoveReplicaRequest, m.RemoveReplicaReply>;
  scrub: Handler<m.ScrubRequest, m.ScrubReport>;
}

/** EngineControl as a service for `listenTransport`. */
export function engineControlService(handlers: EngineControlHandlers): ControlService {
  return new ControlServiceBuilder()
    .add(rpc.status, (request, call) => handlers.status(request, call))
    .add(rpc.stop, (request, call) => handlers.stop(request, call))
    .add(rpc.events, (request, call) => handlers.events(request, call))
    .add(rpc.addReplica, (request, call) => handlers.addReplica(request, call))
    .add(rpc.removeReplica, (request, call) => handlers.removeReplica(request, call))
    .add(rpc.scrub, (request, call) => handlers.scrub(request, call))
    .build();
}

/** Calls one engine. Errors of every method: see UnaryClient.call. */
export class EngineControlClient {
  readonly #unary: UnaryClient;

  /** @throws StorageError INVALID_ARGUMENT: address or TLS files */
  constructor(options: ControlClientOptions) {
    this.#unary = new UnaryClient(options);
  }

  status(
    request: m.EngineStatusRequest = {},
    options?: ControlCallOptions,
  ): Promise<m.EngineStatus> {
    return this.#unary.call(rpc.status, request, options);
  }

  stop(
    request: m.EngineStopRequest = {},
    options?: ControlCallOptions,
  ): Promise<m.EngineStopReply> {
    return this.#unary.call(rpc.stop, request, options);
  }

  events(
    request: m.EngineEventsRequest = { afterSeq: 0 },
    options?: ControlCallOptions,
  ): Promise<m.EngineEventsReply> {
    return this.#unary.call(rpc.events, request, options);
  }

  addReplica(
    request: m.AddReplicaRequest,
    options?: ControlCallOptions,
  ): Promise<m.AddReplicaReply> {
    return this.#unary.call(rpc.addReplica, request, options);
  }

  removeReplica(
    request: m.RemoveReplicaRequest,
    options?: ControlCallOptions,
  ): Promise<m.RemoveReplicaReply> {
    return this.#unary.call(rpc.removeReplica, request, options);
  }

  scrub(request: m.ScrubRequest, options?: ControlCallOptions): Promise<m.ScrubReport> {
    return this.#unary.call(rpc.scrub, request, options);
  }

  /** Fails what is in flight with CLOSED. Idempotent. */
  close(): void {
    this.#unary.close();
  }
}
