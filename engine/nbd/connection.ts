/**
 * One client: the socket, and the phase it is in.
 *
 *   handshake -> (TLS -> handshake) -> transmission -> lingering -> closed
 *
 * Every phase ends at the latest when the socket closes; lingering reads on for a moment, because
 * closing a socket with unread bytes resets it and the peer may lose the replies that were sent
 * last.
 */
import type { Socket } from 'node:net';
import type { Timer } from '../../common/clock.js';
import { encodeGreeting, Handshake, type NbdSession } from './handshake.js';
import type { ServerContext } from './server-context.js';
import type { TlsUpgrade } from './tls-upgrade.js';
import { Transmission } from './transmission.js';

export interface ConnectionOptions {
  readonly socket: Socket;
  readonly context: ServerContext;
  readonly tls: TlsUpgrade | undefined;
  /** The socket is closed and nothing of the connection runs any more. Last call. */
  readonly onSettled: (connection: Connection) => void;
}

export class Connection {
  readonly #options: ConnectionOptions;
  readonly #context: ServerContext;
  /** the TLS socket once TLS is up */
  #socket: Socket;
  #handshake: Handshake | undefined;
  #transmission: Transmission | undefined;
  #phase: 'handshake' | 'tls' | 'transmission' | 'lingering' | 'closed' = 'handshake';
  readonly #onSettled: () => void;
  #linger: Timer | undefined;
  readonly #startedMs: number;
  /** address of the peer, for caps and logs; empty on a unix socket */
  readonly peer: string;
  /** The socket is closed and nothing of the connection runs on its volume any more. */
  readonly settled: Promise<void>;

  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.#context = options.context;
    this.#socket = options.socket;
    let settle = (): void => undefined;
    this.settled = new Promise((resolve) => {
      settle = resolve;
    });
    this.#onSettled = () => {
      options.onSettled(this);
      settle();
    };
    this.peer = options.socket.remoteAddress ?? '';
    this.#startedMs = options.context.nowMs;
    const { book, limits } = options.context;
    const tls = options.tls === undefined ? 'off' : 'required';
    this.#handshake = new Handshake({ book, tls, limits });
    options.socket.on('close', () => this.#onClose());
    this.#listen(options.socket);
    options.socket.write(encodeGreeting());
  }

  get handshaking(): boolean {
    return this.#phase === 'handshake' || this.#phase === 'tls';
  }

  get session(): NbdSession | undefined {
    return this.#transmission?.session;
  }

  /** Closes at once; what is in flight still runs on the volume, unanswered. */
  drop(reason: string): void {
    if (this.#phase === 'closed') return;
    this.#context.noteDrop(this.peer, reason);
    this.destroy();
  }

  destroy(): void {
    this.#socket.destroy();
    this.#options.socket.destroy();
  }

  /** Answers what is in flight, then closes. */
  finish(): void {
    if (this.#transmission !== undefined) this.#transmission.finish();
    else if (this.#phase !== 'lingering') this.destroy();
  }

  waitingMs(nowMs: number): number {
    return this.#transmission?.waitingMs(nowMs) ?? 0;
  }

  /** Drops a peer that has been too slow. */
  sweep(nowMs: number, stallMs: number): void {
    if (this.handshaking && nowMs - this.#startedMs > this.#context.limits.handshakeMs) {
      this.drop('handshake not finished in time');
    }
    const stalledMs = this.#transmission?.stalledMs(nowMs) ?? 0;
    if (stalledMs > stallMs) this.drop('payload owed or replies not taken');
  }

  #listen(socket: Socket): void {
    socket.on('data', this.#onData);
    socket.on('end', this.#onEnd);
    socket.on('error', this.#onError);
  }

  readonly #onData = (chunk: Buffer): void => {
    if (this.#phase === 'transmission') this.#transmission?.push(chunk);
    else if (this.#phase === 'handshake') this.#onHandshakeData(chunk);
  };

  readonly #onEnd = (): void => {
    if (this.#phase === 'transmission') this.#transmission?.finish();
    else this.destroy();
  };

  /** The close event follows and does the work. */
  readonly #onError = (error: Error): void => {
    this.#context.tools.log.debug({ peer: this.peer, err: error }, 'socket error');
  };

  #onHandshakeData(chunk: Buffer): void {
    const handshake = this.#handshake;
    if (handshake === undefined) return;
    const { outcome, replies, usedBytes } = handshake.push(chunk);
    const socket = this.#socket;
    if (outcome.kind === 'startTls') {
      if (usedBytes < chunk.length) this.drop('bytes behind STARTTLS in plain text');
      else this.#startTls(Buffer.concat(replies));
      return;
    }
    if (replies.length > 0) socket.write(Buffer.concat(replies));
    switch (outcome.kind) {
      case 'transmit':
        this.#transmit(outcome.session, chunk.subarray(usedBytes));
        break;
      case 'end':
        this.#lingerThenClose();
        break;
      case 'drop':
        this.#context.noteDrop(this.peer, outcome.reason);
        if (replies.length > 0) this.#lingerThenClose();
        else this.destroy();
        break;
      default:
        break;
    }
  }

  #startTls(replies: Buffer): void {
    const { tls, socket } = this.#options;
    if (tls === undefined) return;
    this.#phase = 'tls';
    socket.pause();
    socket.off('data', this.#onData);
    socket.off('end', this.#onEnd);
    const onSecure = (secured: Socket): void => {
      if (this.#phase !== 'tls') {
        secured.destroy();
        return;
      }
      this.#phase = 'handshake';
      this.#socket = secured;
      this.#listen(secured);
    };
    const onFailed = (error: Error): void => this.drop(`TLS: ${error.message}`);
    socket.write(replies, () => {
      if (this.#phase === 'tls' && !socket.destroyed) tls.start(socket, { onSecure, onFailed });
    });
  }

  #transmit(session: NbdSession, rest: Buffer): void {
    this.#handshake = undefined;
    this.#phase = 'transmission';
    this.#transmission = new Transmission({
      socket: this.#socket,
      session,
      context: this.#context,
      onFinished: () => this.#lingerThenClose(),
      onBroken: (reason) => this.drop(reason),
      onSettled: this.#onSettled,
    });
    if (rest.length > 0) this.#transmission.push(rest);
  }

  #lingerThenClose(): void {
    if (this.#phase === 'lingering' || this.#phase === 'closed') return;
    this.#phase = 'lingering';
    const { lingerMs } = this.#context.limits;
    this.#linger = this.#context.tools.clock.after(lingerMs, () => this.destroy());
    this.#socket.end();
    this.#socket.resume();
  }

  #onClose(): void {
    if (this.#phase === 'closed') return;
    this.#phase = 'closed';
    this.#linger?.cancel();
    this.#handshake = undefined;
    if (this.#socket !== this.#options.socket) this.#socket.destroy();
    if (this.#transmission === undefined) this.#onSettled();
    else this.#transmission.closed();
  }
}
