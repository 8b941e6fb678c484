/** Serves control calls: checks the request, calls the handler, turns what it throws into status
 * and metadata. */
import {
  Metadata,
  type MethodDefinition,
  type ServerUnaryCall,
  type ServiceDefinition,
  type sendUnaryData,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js';
import { toStorageError } from '../../common/errors.js';
import { CODE_KEY, DETAILS_KEY, failureOf } from '../transport/error-metadata.js';
import type { Method } from './methods.js';

/** What a handler may know of its caller. */
export interface ControlCall {
  readonly peer: string;
  /** Aborted when the caller went away or gave up waiting. */
  readonly signal: AbortSignal;
}

/** A service for `listenTransport`. */
export interface ControlService {
  readonly definition: ServiceDefinition;
  readonly implementation: UntypedServiceImplementation;
}

export const passBytes = (bytes: Buffer): Buffer => bytes;

/** Adds one rpc to a service that is being built. The handler gets requests that were checked; its
 * reply is sent as it is. */
export class ControlServiceBuilder {
  readonly #definition: Record<string, MethodDefinition<Buffer, Buffer>> = {};
  readonly #implementation: UntypedServiceImplementation = {};

  add<Request, Reply>(
    method: Method<Request, Reply>,
    handler: (request: Request, call: ControlCall) => Promise<Reply>,
  ): this {
    const name = method.path.split('/')[2] ?? '';
    this.#definition[name] = {
      path: method.path,
      requestStream: false,
      responseStream: false,
      requestSerialize: passBytes,
      requestDeserialize: passBytes,
      responseSerialize: passBytes,
      responseDeserialize: passBytes,
    };
    this.#implementation[name] = (
      call: ServerUnaryCall<Buffer, Buffer>,
      reply: sendUnaryData<Buffer>,
    ): void => {
      const gone = new AbortController();
      call.on('cancelled', () => gone.abort());
      const run = async (): Promise<Buffer> => {
        const request = method.request.decode(call.request);
        const answer = await handler(request, { peer: call.getPeer(), signal: gone.signal });
        return method.reply.encode(answer);
      };
      run().then(
        (bytes) => reply(null, bytes),
        (error: unknown) => reply(grpcError(error, name)),
      );
    };
    return this;
  }

  build(): ControlService {
    return { definition: this.#definition, implementation: this.#implementation };
  }
}

/** What grpc-js wants a server to answer for an error. */
export function grpcError(error: unknown, doing: string) {
  const failure = failureOf(toStorageError(error, doing));
  const metadata = new Metadata();
  metadata.set(CODE_KEY, failure.code ?? '');
  if (failure.details) metadata.set(DETAILS_KEY, failure.details);
  return { code: failure.status, details: failure.message, metadata };
}
