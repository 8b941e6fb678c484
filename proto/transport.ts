/**
 * One listener per process serves the data stream and the control services; one connection per
 * engine-replica pair carries the data stream. gRPC on the wire (docs/wire-protocol.md); why not
 * stock grpc-js everywhere: ADR 0003.
 *
 * The parts are in `proto/transport/`: frames, flow control and endpoints of our own HTTP/2, and
 * the bridge to grpc-js.
 */
export { formatAddress, parseAddress, type TransportAddress } from './transport/address.js';
export { type ConnectOptions, connectIo } from './transport/connect.js';
export {
  type ListenOptions,
  listenTransport,
  type TransportLimits,
  type TransportListener,
} from './transport/listen.js';
export type { AcquireMemory } from './transport/receive-memory.js';
export type { TransportTls } from './transport/tls.js';
