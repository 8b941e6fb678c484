/** Opens one connection for one data stream. */
import net from 'node:net';
import tls from 'node:tls';
import type { Clock } from '../../common/clock.js';
import { StorageError } from '../../common/errors.js';
import type { MessageStream, MessageStreamHandlers } from '../message-stream.js';
import { formatAddress, parseAddress, type TransportAddress } from './address.js';
import { ClientEndpoint } from './client-endpoint.js';
import { type AcquireMemory, ReceiveMemory } from './receive-memory.js';
import { SocketReader } from './socket-reader.js';
import { ALPN, checkPeerName, loadPem, TLS_MIN_VERSION, type TransportTls } from './tls.js';

export interface ConnectOptions {
  /** `host:port` or `unix:/path` */
  readonly address: string;
  readonly tls?: TransportTls | undefined;
  readonly acquire: AcquireMemory;
  readonly handlers: MessageStreamHandlers;
  readonly clock: Clock;
  /** From call to usable stream; default 10 s. */
  readonly deadlineMs?: number | undefined;
}

const DEADLINE_MS = 10_000;

/** Resolves with a stream that is ready to send. The handlers may be called before the caller sees
 *  the promise settle.
 *  @throws StorageError UNAVAILABLE | DEADLINE | PERMISSION (TLS) | PROTOCOL_ERROR |
 *  INVALID_ARGUMENT; the handlers are then never called */
export async function connectIo(options: ConnectOptions): Promise<MessageStream> {
  const address = parseAddress(options.address);
  const peer = formatAddress(address);
  // TLS hands over what it has deciphered in memory of its own.
  const reader = options.tls === undefined ? new SocketReader() : undefined;
  const socket = openSocket(address, options.tls, reader);
  const deadlineMs = options.deadlineMs ?? DEADLINE_MS;
  return new Promise((resolve, reject) => {
    const fail = (error: StorageError): void => {
      timer.cancel();
      socket.destroy();
      reject(error);
    };
    const timer = options.clock.after(deadlineMs, () =>
      fail(new StorageError('DEADLINE', `connect to ${peer}: not ready in ${deadlineMs} ms`)),
    );
    const onError = (error: Error): void => fail(connectError(error, peer));
    const onClose = (): void =>
      fail(new StorageError('UNAVAILABLE', `connect to ${peer}: closed by the other side`));
    socket.once('error', onError);
    socket.once('close', onClose);
    socket.once(options.tls === undefined ? 'connect' : 'secureConnect', () => {
      if (socket instanceof tls.TLSSocket && socket.alpnProtocol !== ALPN[0]) {
        fail(new StorageError('PROTOCOL_ERROR', `${peer} does not speak HTTP/2 over TLS`));
        return;
      }
      socket.removeListener('error', onError);
      socket.removeListener('close', onClose);
      const endpoint = new ClientEndpoint({
        socket,
        peer,
        memory: new ReceiveMemory(options.acquire),
        clock: options.clock,
        reader,
        authority: address.kind === 'tcp' ? peer : 'localhost',
        secure: options.tls !== undefined,
        handlers: failingHandlers(fail, peer),
        onReady: () => {
          timer.cancel();
          endpoint.attach(options.handlers);
          resolve(endpoint);
        },
      });
    });
  });
}

/** Before the stream is ready nothing can happen but that it ends. */
function failingHandlers(fail: (error: StorageError) => void, peer: string): MessageStreamHandlers {
  return {
    onMessage: () => undefined,
    onDrain: () => undefined,
    onClose: (error) =>
      fail(error ?? new StorageError('UNAVAILABLE', `connect to ${peer}: ended at once`)),
  };
}

function openSocket(
  address: TransportAddress,
  security: TransportTls | undefined,
  reader: SocketReader | undefined,
): net.Socket {
  const where =
    address.kind === 'unix'
      ? { path: address.path }
      : { host: address.host, port: address.port, noDelay: true };
  if (security === undefined) {
    return net.connect(reader === undefined ? where : { ...where, onread: reader.onread });
  }
  const host = address.kind === 'tcp' ? address.host : 'localhost';
  const expected = security.peerName ?? host;
  return tls.connect({
    ...where,
    ...loadPem(security),
    ...(net.isIP(expected) === 0 ? { servername: expected } : {}),
    minVersion: TLS_MIN_VERSION,
    ALPNProtocols: ALPN,
    rejectUnauthorized: true,
    checkServerIdentity: (_host, certificate) => checkPeerName(expected, certificate),
  });
}

/** Errors of Node's TLS layer by which one side refuses the other's certificate. */
const TLS_REFUSALS =
  /^(ERR_TLS_|ERR_SSL_|CERT_|UNABLE_TO_|SELF_SIGNED|DEPTH_ZERO|INVALID_CA|HOSTNAME_MISMATCH)/;

function connectError(error: Error & { code?: unknown }, peer: string): StorageError {
  const code = String(error.code ?? '');
  const refused = TLS_REFUSALS.test(code) || error.message.includes('subject alternative name');
  return new StorageError(
    refused ? 'PERMISSION' : 'UNAVAILABLE',
    `connect to ${peer}: ${error.message}`,
    code === '' ? {} : { errno: code },
    { cause: error },
  );
}
