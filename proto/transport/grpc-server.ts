/** The stock grpc-js server behind the listener: control services, and the data stream for clients
 * that do not carry our mark. */
import type net from 'node:net';
import {
  type MethodDefinition,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServiceDefinition,
} from '@grpc/grpc-js';
import type { Clock } from '../../common/clock.js';
import { type ControlService, passBytes } from '../control/service.js';
import {
  MESSAGE_BYTES_MAX,
  type MessageStream,
  type MessageStreamHandlers,
} from '../message-stream.js';
import { IO_PATH } from './client-endpoint.js';
import { StockStream } from './stock-stream.js';

const IO_METHOD: MethodDefinition<Buffer, Buffer> = {
  path: IO_PATH,
  requestStream: true,
  responseStream: true,
  requestSerialize: passBytes,
  requestDeserialize: passBytes,
  responseSerialize: passBytes,
  responseDeserialize: passBytes,
};
const IO_SERVICE: ServiceDefinition = { Io: IO_METHOD };

const SERVER_OPTIONS = {
  'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
  'grpc.max_send_message_length': -1,
  'grpc.max_concurrent_streams': 128,
  'grpc.max_connection_idle_ms': 300_000,
  'grpc.enable_channelz': 0,
};
/** How long running control calls may take when the listener closes. */
const SHUTDOWN_MS = 2000;

export class GrpcServer {
  readonly #server = new Server(SERVER_OPTIONS);
  readonly #inject: (socket: net.Socket) => void;
  readonly #streams = new Set<StockStream>();

  /** @param options.onIoStream as in ListenOptions */
  constructor(options: {
    services: readonly ControlService[];
    onIoStream: (stream: MessageStream) => MessageStreamHandlers;
  }) {
    for (const { definition, implementation } of options.services) {
      this.#server.addService(definition, implementation);
    }
    this.#server.addService(IO_SERVICE, {
      Io: (call: ServerDuplexStream<Buffer, Buffer>) => {
        const stream = new StockStream(call);
        this.#streams.add(stream);
        call.once('close', () => this.#streams.delete(stream));
        stream.attach(options.onIoStream(stream));
      },
    });
    const injector = this.#server.createConnectionInjector(ServerCredentials.createInsecure());
    this.#inject = (socket) => injector.injectConnection(socket);
  }

  /** Data streams that are open now. */
  get streams(): Iterable<MessageStream> {
    return this.#streams;
  }

  /** Takes over a connection (after TLS, if any) whose first bytes were put back. */
  inject(socket: net.Socket): void {
    this.#inject(socket);
  }

  /** Resolves when every call has ended, or after 2 s without mercy. */
  close(clock: Clock): Promise<void> {
    return new Promise((resolve) => {
      const timer = clock.after(SHUTDOWN_MS, () => {
        this.#server.forceShutdown();
        resolve();
      });
      this.#server.tryShutdown(() => {
        timer.cancel();
        resolve();
      });
    });
  }
}
