/**
 * The NBD server: listens, caps and watches its connections.
 *
 * Serves the BlockVolume seam and knows nothing else of the engine. Bounds are in `limits.ts`, the
 * protocol in `handshake.ts` and `transmission.ts`. Source: proto.md of the NetworkBlockDevice
 * project; correctness 3.2, 3.3.
 */
import { createServer, type Server, type Socket } from 'node:net';
import type { Clock, Timer } from '../../common/clock.js';
import { StorageError } from '../../common/errors.js';
import type { Logger } from '../../common/log.js';
import { Connection } from './connection.js';
import { ExportBook, type NbdExport } from './export-book.js';
import { NBD_LIMITS, type NbdLimits } from './limits.js';
import { ServerContext } from './server-context.js';
import { type NbdTls, TlsUpgrade } from './tls-upgrade.js';
import { bindPrivately, makePrivate, prepareSocketPath } from './unix-socket-path.js';

export type { NbdExport } from './export-book.js';
export type { NbdLimits } from './limits.js';
export type { NbdTls } from './tls-upgrade.js';

export type NbdAddress =
  | { readonly path: string }
  | { readonly host: string; readonly port: number };

export interface NbdServerOptions {
  readonly exports: readonly NbdExport[];
  readonly address: NbdAddress;
  /** On TCP only. */
  readonly tls?: NbdTls;
  readonly limits?: Partial<NbdLimits>;
  readonly log: Logger;
  readonly clock: Clock;
}

const SWEEP_MS = 1_000;
/** Dead TCP peers are noticed within about this time plus the kernel's probes. */
const KEEP_ALIVE_MS = 30_000;

export class NbdServer {
  readonly #server: Server;
  readonly #context: ServerContext;
  readonly #options: NbdServerOptions;
  readonly #tls: TlsUpgrade | undefined;
  readonly #connections = new Set<Connection>();
  #sweepTimer: Timer | undefined;
  #closing: Promise<void> | undefined;

  /** Resolves when clients can connect.
   *  @throws StorageError CONFLICT (address taken by a live server) | INVALID_ARGUMENT |
   *  IO_ERROR */
  static async listen(options: NbdServerOptions): Promise<NbdServer> {
    const server = new NbdServer(options);
    await server.#listen();
    return server;
  }

  private constructor(options: NbdServerOptions) {
    const limits = { ...NBD_LIMITS, ...options.limits };
    this.#options = options;
    if (options.tls !== undefined) {
      if ('path' in options.address) {
        throw new StorageError('INVALID_ARGUMENT', 'TLS needs a TCP address, not a unix socket');
      }
      this.#tls = new TlsUpgrade(options.tls, limits.handshakeMs);
    }
    this.#context = new ServerContext(new ExportBook(options.exports), limits, options);
    this.#server = createServer({ allowHalfOpen: true, noDelay: true });
    this.#server.on('connection', (socket) => this.#onConnection(socket));
  }

  /** Of the first export; throws NOT_FOUND when there is none. */
  get uri(): string {
    const [first] = this.#context.book.all();
    if (first === undefined) throw new StorageError('NOT_FOUND', 'the NBD server has no export');
    return this.uriOf(first.name);
  }

  /** Connections now open, handshaking ones included. */
  get connections(): number {
    return this.#connections.size;
  }

  /** nbd+unix:///NAME?socket=PATH, nbd://HOST:PORT/NAME or nbds://HOST:PORT/NAME, with the port
   *  that was bound. */
  uriOf(name: string): string {
    const { address } = this.#options;
    const escaped = encodeURIComponent(name);
    if ('path' in address) {
      const path = address.path.split('/').map(encodeURIComponent).join('/');
      return `nbd+unix:///${escaped}?socket=${path}`;
    }
    const scheme = this.#tls === undefined ? 'nbd' : 'nbds';
    const bound = this.#server.address();
    const port = bound !== null && typeof bound === 'object' ? bound.port : address.port;
    const host = address.host.includes(':') ? `[${address.host}]` : address.host;
    return `${scheme}://${host}:${port}/${escaped}`;
  }

  /** New handshakes see it. @throws StorageError ALREADY_EXISTS | INVALID_ARGUMENT */
  addExport(added: NbdExport): void {
    this.#context.book.add(added);
  }

  /** New handshakes do not see it; its connections answer what is in flight and close. Resolves
   *  when they are gone, at the latest after `drainMs`. Without effect if there is none of this
   *  name. */
  async removeExport(name: string): Promise<void> {
    const removed = this.#context.book.remove(name);
    const users = [...this.#connections].filter((each) => each.session?.export === removed);
    if (removed === undefined || users.length === 0) return;
    await this.#drain(users);
  }

  /** Refuses new connections and reads no new request; with `drain` lets those in flight finish and
   *  their replies be sent; then closes every socket. Resolves when nothing of it runs on a volume
   *  any more, at the latest after `drainMs`. Idempotent: a second call waits for the first. */
  close(options: { drain: boolean }): Promise<void> {
    this.#closing ??= this.#close(options.drain);
    return this.#closing;
  }

  async #close(drain: boolean): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    const open = [...this.#connections];
    if (!drain) for (const each of open) each.destroy();
    await this.#drain(open);
    this.#sweepTimer?.cancel();
    await closed;
  }

  async #drain(leaving: readonly Connection[]): Promise<void> {
    const { clock, log } = this.#options;
    for (const each of leaving) each.finish();
    let timer: Timer | undefined;
    const deadline = new Promise<void>((resolve) => {
      timer = clock.after(this.#context.limits.drainMs, () => {
        const late = leaving.filter((each) => this.#connections.has(each));
        log.warn({ connections: late.length }, 'NBD connections did not drain in time');
        for (const each of late) each.destroy();
        resolve();
      });
    });
    await Promise.race([Promise.all(leaving.map((each) => each.settled)), deadline]);
    timer?.cancel();
  }

  async #listen(): Promise<void> {
    const { address } = this.#options;
    try {
      if ('path' in address) {
        await prepareSocketPath(address.path);
        await this.#bind(() => bindPrivately(() => this.#server.listen(address.path)));
        await makePrivate(address.path);
      } else {
        await this.#bind(() => this.#server.listen(address.port, address.host));
      }
    } catch (error) {
      if (error instanceof StorageError) throw error;
      const where = 'path' in address ? address.path : `${address.host}:${address.port}`;
      const text = error instanceof Error ? error.message : String(error);
      const inUse = error instanceof Error && 'code' in error && error.code === 'EADDRINUSE';
      const code = inUse ? 'CONFLICT' : 'IO_ERROR';
      throw new StorageError(code, `NBD server on ${where}: ${text}`, {}, { cause: error });
    }
    // Accepting may fail later (out of descriptors): the connection is lost, the server lives on
    // (scenario 76).
    this.#server.on('error', (error) => {
      this.#context.noteDrop('', `could not accept: ${error.message}`);
    });
  }

  #bind(listen: () => void): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.once('listening', () => {
        this.#server.off('error', reject);
        resolve();
      });
      listen();
    });
  }

  #onConnection(socket: Socket): void {
    const context = this.#context;
    if (this.#closing !== undefined || this.#connections.size >= context.limits.connectionsMax) {
      socket.on('error', () => undefined);
      socket.destroy();
      if (this.#closing === undefined) context.noteDrop('', 'too many connections');
      return;
    }
    context.tick();
    this.#makeRoom();
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    const onSettled = (settled: Connection): void => {
      this.#connections.delete(settled);
    };
    this.#connections.add(new Connection({ socket, context, tls: this.#tls, onSettled }));
    this.#sweepTimer ??= this.#armSweep();
  }

  /** Pushes out the oldest half-open connection when there are too many: of the peer that has
   *  most of them. */
  #makeRoom(): void {
    const halfOpen = [...this.#connections].filter((each) => each.handshaking);
    if (halfOpen.length < this.#context.limits.handshakesMax) return;
    const count = new Map<string, number>();
    for (const each of halfOpen) count.set(each.peer, (count.get(each.peer) ?? 0) + 1);
    const most = Math.max(...count.values());
    const victim = halfOpen.find((each) => count.get(each.peer) === most);
    victim?.drop('pushed out by newer handshakes');
  }

  #armSweep(): Timer {
    const { handshakeMs, stallUnderPressureMs } = this.#context.limits;
    const periodMs = Math.min(SWEEP_MS, handshakeMs / 4, stallUnderPressureMs / 4);
    return this.#options.clock.after(periodMs, () => this.#sweep(), { background: true });
  }

  #sweep(): void {
    const context = this.#context;
    const { stallMs, stallUnderPressureMs } = context.limits;
    context.tick();
    const { nowMs } = context;
    const all = [...this.#connections];
    const isUnderPressure = all.some((each) => each.waitingMs(nowMs) > stallUnderPressureMs);
    for (const each of all) each.sweep(nowMs, isUnderPressure ? stallUnderPressureMs : stallMs);
    this.#sweepTimer = this.#connections.size > 0 ? this.#armSweep() : undefined;
  }
}
