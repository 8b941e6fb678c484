/**
 * One listener for everything: each new connection is looked at (preface and first SETTINGS) and
 * goes to the specialised endpoint if its client carries our mark, else to grpc-js.
 *
 * Bounded: connections of all kinds, those of them that have not shown who they are (TLS, preface,
 * and for a marked one the request), and the time they may take for it.
 */
import { chmod, unlink } from 'node:fs/promises';
import net from 'node:net';
import tls from 'node:tls';
import type { Clock, Timer } from '../../common/clock.js';
import { StorageError } from '../../common/errors.js';
import type { Logger } from '../../common/log.js';
import type { ControlService } from '../control/service.js';
import type { MessageStream, MessageStreamHandlers } from '../message-stream.js';
import { formatAddress, parseAddress, type TransportAddress } from './address.js';
import { PREFACE } from './frame.js';
import { GrpcServer } from './grpc-server.js';
import { type AcquireMemory, ReceiveMemory } from './receive-memory.js';
import { ServerEndpoint } from './server-endpoint.js';
import { type Caller, sniff } from './sniff.js';
import { adopt, SocketReader } from './socket-reader.js';
import { ALPN, checkPeerName, loadPem, TLS_MIN_VERSION, type TransportTls } from './tls.js';

export interface TransportLimits {
  /** open connections of all kinds (512) */
  readonly connectionsMax: number;
  /** of those, not yet past TLS, preface and request (64) */
  readonly handshakesMax: number;
  /** how long they may take for it (10 s) */
  readonly handshakeMs: number;
}

/** How long peers may take to close their side when the listener closes. */
const LINGER_MS = 1000;

const LIMITS: TransportLimits = { connectionsMax: 512, handshakesMax: 64, handshakeMs: 10_000 };

export interface ListenOptions {
  /** `host:port` (port 0: any free one) or `unix:/path` (mode 0600; a dead socket file is replaced)
   */
  readonly address: string;
  readonly tls?: TransportTls | undefined;
  readonly acquire: AcquireMemory;
  /** Called once per data stream, before its first message. */
  onIoStream(stream: MessageStream): MessageStreamHandlers;
  readonly services: readonly ControlService[];
  readonly limits?: Partial<TransportLimits> | undefined;
  readonly log: Logger;
  readonly clock: Clock;
}

export interface TransportListener {
  /** As given, with the real port. */
  readonly address: string;
  /** Open connections now. */
  readonly connections: number;
  /** Refuses new connections, ends data streams with CLOSED, lets running control calls finish for
   * 2 s, then cuts. Idempotent. */
  close(): Promise<void>;
}

/** Resolves when the address is bound.
 *  @throws StorageError INVALID_ARGUMENT (address, TLS files) | UNAVAILABLE (details.errno,
 *    EADDRINUSE for one) */
export async function listenTransport(options: ListenOptions): Promise<TransportListener> {
  const address = parseAddress(options.address);
  const listener = new Listener(options);
  return listener.bind(address);
}

class Listener implements TransportListener {
  address = '';
  readonly #options: ListenOptions;
  readonly #limits: TransportLimits;
  readonly #server: net.Server;
  readonly #tls: tls.Server | undefined;
  readonly #grpc: GrpcServer;
  readonly #memory: ReceiveMemory;
  readonly #sockets = new Set<net.Socket>();
  readonly #endpoints = new Set<ServerEndpoint>();
  readonly #waiting = new Set<Handshake>();
  /** connections that have not shown who they are */
  #handshakes = 0;
  #refused = 0;
  #closing: Promise<void> | undefined;
  #onEmpty: (() => void) | undefined;

  constructor(options: ListenOptions) {
    this.#options = options;
    this.#limits = { ...LIMITS, ...options.limits };
    this.#memory = new ReceiveMemory(options.acquire);
    this.#grpc = new GrpcServer({
      services: options.services,
      onIoStream: (stream) => options.onIoStream(stream),
    });
    this.#tls = options.tls === undefined ? undefined : this.#tlsServer(options.tls);
    this.#server = net.createServer({ noDelay: true }, (socket) => this.#accept(socket));
  }

  get connections(): number {
    return this.#sockets.size;
  }

  async bind(address: TransportAddress): Promise<this> {
    try {
      await listen(this.#server, address);
    } catch (cause) {
      await this.#grpc.close(this.#options.clock);
      const errno = (cause as NodeJS.ErrnoException).code ?? '';
      const text = `listen on ${formatAddress(address)}: ${errno}`;
      throw new StorageError('UNAVAILABLE', text, { errno }, { cause });
    }
    this.#server.on('error', (error) => this.#options.log.warn({ err: error }, 'listener'));
    const bound = this.#server.address();
    if (address.kind === 'tcp' && typeof bound === 'object' && bound !== null) {
      this.address = formatAddress({ ...address, port: bound.port });
    } else this.address = formatAddress(address);
    return this;
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    const error = new StorageError('CLOSED', `${this.address} stops serving`);
    const streams: MessageStream[] = [...this.#endpoints, ...this.#grpc.streams];
    for (const stream of streams) stream.close(error);
    await this.#grpc.close(this.#options.clock);
    for (const handshake of this.#waiting) handshake.cut();
    // What is still open then lingers for a peer that does not answer.
    const timer = this.#options.clock.after(LINGER_MS, () => {
      for (const socket of this.#sockets) socket.destroy();
    });
    await closed;
    if (this.#sockets.size > 0) {
      await new Promise<void>((resolve) => {
        this.#onEmpty = resolve;
      });
    }
    timer.cancel();
  }

  #accept(socket: net.Socket): void {
    if (!this.#admit(socket)) return;
    if (this.#tls === undefined) {
      this.#begin(socket);
      return;
    }
    this.#handshakes += 1;
    this.#tls.emit('connection', socket);
  }

  /** Does handshakes for connections that were admitted; it listens nowhere itself. */
  #tlsServer(security: TransportTls): tls.Server {
    let server: tls.Server;
    try {
      server = tls.createServer({
        ...loadPem(security),
        minVersion: TLS_MIN_VERSION,
        ALPNProtocols: ALPN,
        requestCert: true,
        rejectUnauthorized: true,
        handshakeTimeout: this.#limits.handshakeMs,
      });
    } catch (cause) {
      if (cause instanceof StorageError) throw cause;
      const text = cause instanceof Error ? cause.message : String(cause);
      throw new StorageError('INVALID_ARGUMENT', `TLS files: ${text}`, {}, { cause });
    }
    // Exactly one of the two events follows each connection (Node docs, tls.Server).
    server.on('tlsClientError', (error) => {
      this.#handshakes -= 1;
      this.#options.log.debug({ err: error }, 'TLS handshake failed');
    });
    server.on('secureConnection', (socket) => {
      this.#handshakes -= 1;
      const name = security.peerName;
      const wrong =
        name === undefined ? undefined : checkPeerName(name, socket.getPeerCertificate());
      if (wrong === undefined) {
        this.#begin(socket);
        return;
      }
      this.#options.log.warn({ peer: peerOf(socket), why: wrong.message }, 'client refused');
      socket.destroy();
    });
    return server;
  }

  /** Takes a connection into the books, or destroys it where a limit is reached. */
  #admit(socket: net.Socket): boolean {
    const full =
      this.#sockets.size >= this.#limits.connectionsMax ||
      this.#handshakes >= this.#limits.handshakesMax ||
      this.#closing !== undefined;
    if (full) {
      this.#refused += 1;
      // Once in a while is enough: a flood must not become a flood of logs.
      if ((this.#refused & (this.#refused - 1)) === 0) {
        const { connections } = this;
        const facts = { connections, handshakes: this.#handshakes, refused: this.#refused };
        this.#options.log.warn(facts, 'connection refused: limit reached');
      }
      socket.on('error', () => undefined);
      socket.destroy();
      return false;
    }
    this.#keep(socket);
    return true;
  }

  #keep(socket: net.Socket): void {
    this.#sockets.add(socket);
    socket.once('close', () => {
      this.#sockets.delete(socket);
      if (this.#sockets.size === 0) this.#onEmpty?.();
    });
  }

  /** From here on TLS, if any, is done. */
  #begin(socket: net.Socket): void {
    const handshake = new Handshake(this.#options.clock, this.#limits.handshakeMs, socket);
    this.#handshakes += 1;
    this.#waiting.add(handshake);
    handshake.whenOver(() => {
      this.#handshakes -= 1;
      this.#waiting.delete(handshake);
    });
    socket.on('error', () => undefined);
    sniff(socket, (caller, bytes) => this.#dispatch(socket, { caller, bytes, handshake }));
  }

  #dispatch(
    socket: net.Socket,
    found: { caller: Caller; bytes: Buffer; handshake: Handshake },
  ): void {
    if (found.caller === 'specialised') {
      // Not inside the event that brought the bytes: the connection may move to another socket.
      process.nextTick(() => this.#serve(socket, found.bytes, found.handshake));
      return;
    }
    found.handshake.over();
    if (found.caller === 'ordinary') {
      socket.unshift(found.bytes);
      this.#grpc.inject(socket);
    } else socket.destroy();
  }

  #serve(accepted: net.Socket, bytes: Buffer, handshake: Handshake): void {
    if (accepted.destroyed) return;
    const reader = new SocketReader();
    const moved = adopt(accepted, reader);
    const socket = moved ?? accepted;
    if (moved !== undefined) {
      this.#keep(moved);
      handshake.moveTo(moved);
    }
    const endpoint = new ServerEndpoint({
      socket,
      peer: peerOf(socket),
      memory: this.#memory,
      clock: this.#options.clock,
      reader: moved === undefined ? undefined : reader,
      onOpen: (stream) => {
        handshake.over();
        return this.#options.onIoStream(stream);
      },
    });
    this.#endpoints.add(endpoint);
    socket.once('close', () => this.#endpoints.delete(endpoint));
    endpoint.receive(bytes.subarray(PREFACE.length));
    socket.resume();
  }
}

/** One connection that has not shown who it is: destroyed at the deadline, counted until it is
 * over. */
class Handshake {
  readonly #timer: Timer;
  #socket: net.Socket;
  #onOver: (() => void) | undefined;

  constructor(clock: Clock, limitMs: number, socket: net.Socket) {
    this.#socket = socket;
    this.#timer = clock.after(limitMs, () => this.cut(), { background: true });
    socket.once('close', () => this.#closed(socket));
  }

  /** The connection goes on in another socket. */
  moveTo(socket: net.Socket): void {
    this.#socket = socket;
    socket.once('close', () => this.#closed(socket));
  }

  whenOver(callback: () => void): void {
    this.#onOver = callback;
  }

  over(): void {
    this.#timer.cancel();
    this.#onOver?.();
    this.#onOver = undefined;
  }

  cut(): void {
    this.#socket.destroy();
  }

  #closed(socket: net.Socket): void {
    if (socket === this.#socket) this.over();
  }
}

function peerOf(socket: net.Socket): string {
  if (socket.remoteAddress === undefined) return 'unix socket';
  const { remoteAddress: host, remotePort: port } = socket;
  return formatAddress({ kind: 'tcp', host, port: port ?? 0 });
}

async function listen(server: net.Server, address: TransportAddress): Promise<void> {
  if (address.kind === 'tcp') {
    await listenOn(server, { host: address.host, port: address.port });
    return;
  }
  try {
    await listenOn(server, { path: address.path });
  } catch (error) {
    const inUse = (error as NodeJS.ErrnoException).code === 'EADDRINUSE';
    if (!inUse || (await answers(address.path))) throw error;
    await unlink(address.path);
    await listenOn(server, { path: address.path });
  }
  await chmod(address.path, 0o600);
}

function listenOn(server: net.Server, where: net.ListenOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ ...where, backlog: 511 }, () => {
      server.removeListener('error', reject);
      resolve();
    });
  });
}

/** Whether somebody listens on the socket file; a dead process leaves the file behind. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = net.connect({ path });
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'ECONNREFUSED'));
  });
}
