/** Turns a plain server socket into a TLS one, in the middle of its life (STARTTLS). */
import type { Socket } from 'node:net';
import { createServer, type Server } from 'node:tls';
import { StorageError } from '../../common/errors.js';

/** PEM contents. With it every client must start TLS before anything else is answered. */
export interface NbdTls {
  /** Who signs client certificates. */
  readonly ca?: string | Buffer;
  readonly cert: string | Buffer;
  readonly key: string | Buffer;
  readonly requireClientCert: boolean;
}

export interface UpgradeHandlers {
  readonly onSecure: (socket: Socket) => void;
  readonly onFailed: (error: Error) => void;
}

/** Sockets under way are told apart by their four address parts, which no two live connections
 *  share. */
function addressesOf(socket: Socket): string {
  const { localAddress, localPort, remoteAddress, remotePort } = socket;
  return `${localAddress} ${localPort} ${remoteAddress} ${remotePort}`;
}

export class TlsUpgrade {
  /** Never listens: it is handed sockets. Checks client certificates before it reports one as
   *  secure. */
  readonly #server: Server;
  readonly #waiting = new Map<string, UpgradeHandlers>();

  /** @throws StorageError INVALID_ARGUMENT (certificate or key do not parse or do not belong
   *  together) */
  constructor(tls: NbdTls, handshakeMs: number) {
    try {
      this.#server = createServer({
        cert: tls.cert,
        key: tls.key,
        ...(tls.ca === undefined ? {} : { ca: tls.ca }),
        requestCert: tls.requireClientCert,
        rejectUnauthorized: tls.requireClientCert,
        minVersion: 'TLSv1.2',
        handshakeTimeout: handshakeMs,
        allowHalfOpen: true,
      });
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      throw new StorageError('INVALID_ARGUMENT', `TLS files of the NBD server: ${text}`);
    }
    this.#server.on('secureConnection', (socket) => this.#take(socket)?.onSecure(socket));
    this.#server.on('tlsClientError', (error, socket) => this.#take(socket)?.onFailed(error));
  }

  /** Borrows the socket until one of the handlers is called; then the secure one stands for it. */
  start(socket: Socket, handlers: UpgradeHandlers): void {
    const key = addressesOf(socket);
    this.#waiting.set(key, handlers);
    socket.once('close', () => {
      if (this.#waiting.get(key) === handlers) this.#waiting.delete(key);
    });
    this.#server.emit('connection', socket);
  }

  #take(socket: Socket): UpgradeHandlers | undefined {
    const key = addressesOf(socket);
    const handlers = this.#waiting.get(key);
    this.#waiting.delete(key);
    return handlers;
  }
}
