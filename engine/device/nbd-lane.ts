/**
 * One place for an NBD connection that outlives the connection: keeps every unanswered request and
 * sends it again after a reconnect. (scenarios 1, 2, 9, 11)
 *
 * Why sending again is right:
 * - No reply was seen, so the caller still waits: a write may take effect at any time until it is
 *   answered (N1, N5). Taking effect twice is the same as once, because WriteOrder let no
 *   overlapping change pass while this one is unanswered.
 * - The first copy cannot take effect late, after newer writes. The connection is given up only
 *   (a) when the server ended it: a server starts no request of an ended connection; or it is dead,
 *   and its successor's epoch fences what is on the way to the replicas (P4, R5); (b) when another
 *   server took over the socket path, which is fenced the same way.
 * - A FLUSH sent again claims no more than the first one. The writes it must cover were
 *   acknowledged, so they are on every in-sync replica, and the new engine's flush covers what its
 *   replicas hold, whichever engine wrote it (D1, P8). A replica that may have lost such a write
 *   since (power cut) is made equal from one that has not; if all may have, the era of the export
 *   has grown and the lane gives up for good.
 *
 * Invariants: a request in `#slots` is unanswered; it is `sent` only on the present connection; an
 * empty `#connection` with `#ended` unset means that `#reconnect` runs.
 */
import assert from 'node:assert';
import { type Clock, sleep } from '../../common/clock.js';
import { StorageError, toStorageError } from '../../common/errors.js';
import type { Logger } from '../../common/log.js';
import { NBD_ERROR } from '../nbd/constants.js';
import { NbdConnection, type NbdConnectionOptions } from './nbd-connection.js';
import type { NbdRequest } from './nbd-request.js';
import type { ExportInfo } from './nbd-wire.js';

const BACKOFF_MS_MIN = 20;
const BACKOFF_MS_MAX = 1000;
/** NBD's numbers are Linux's. ESHUTDOWN is no verdict: the request is kept for the next server. */
const KNOWN_ERRNO: ReadonlySet<number> = new Set(Object.values(NBD_ERROR));

export interface NbdLaneOptions extends NbdConnectionOptions {
  readonly log: Logger;
  /** unanswered requests at most; the caller bounds itself, more is a programmer error */
  readonly requestsMax: number;
  /** how long requests wait for a server; then they end with EIO, as new ones do until one is
   *  back */
  readonly giveUpMs: number;
  /** May this export take the place of the one before? Throws StorageError if not;
   *  IO_INDETERMINATE: and none ever will. */
  readonly checkExport: (info: ExportInfo) => void;
  readonly onSettled: (request: NbdRequest, errno: number, reply: Buffer | undefined) => void;
}

export class NbdLane {
  readonly #options: NbdLaneOptions;
  readonly #clock: Clock;
  readonly #slots: Array<NbdRequest | undefined>;
  readonly #generations: Uint32Array;
  readonly #free: number[] = [];
  #pendingCount = 0;
  /** unanswered requests that the present connection has */
  #sentCount = 0;
  #connection: NbdConnection | undefined;
  /** no new request goes to the present connection; it is replaced once `#sentCount` is 0 */
  #draining = false;
  #progressed = false;
  #downSinceMs: number | undefined;
  #backoffMs = 0;
  #gaveUp = false;
  #ended = false;
  readonly #abort = new AbortController();
  #connectedWaiters: Array<() => void> = [];
  #reconnects = 0;

  constructor(options: NbdLaneOptions) {
    this.#options = options;
    this.#clock = options.clock;
    this.#slots = new Array<NbdRequest | undefined>(options.requestsMax).fill(undefined);
    this.#generations = new Uint32Array(options.requestsMax);
    for (let slot = options.requestsMax - 1; slot >= 0; slot -= 1) this.#free.push(slot);
  }

  get pendingCount(): number {
    return this.#pendingCount;
  }
  get connected(): boolean {
    return this.#connection !== undefined;
  }
  /** connections made after the first one */
  get reconnects(): number {
    return this.#reconnects;
  }

  /** Takes over a connection that is open already. */
  adopt(connection: NbdConnection): void {
    assert(this.#connection === undefined && !this.#ended);
    this.#connection = connection;
    this.#draining = false;
    this.#progressed = false;
    connection.start({
      requestOf: (high, low) => this.#requestOf(high, low),
      onReply: (request, errno, reply) => this.#onReply(request, errno, reply),
      onClose: (error) => this.#onClose(error),
    });
    for (const request of this.#slots) if (request !== undefined) this.#send(request);
    this.#connection?.flush();
    for (const wake of this.#connectedWaiters.splice(0)) wake();
  }

  /** Takes the request; it is answered by `onSettled` exactly once. Queued until `flush`. */
  submit(request: NbdRequest): void {
    if (this.#gaveUp || this.#ended) {
      this.#options.onSettled(request, NBD_ERROR.EIO, undefined);
      return;
    }
    const slot = this.#free.pop();
    assert(slot !== undefined, 'more requests in flight than announced');
    request.slot = slot;
    this.#slots[slot] = request;
    this.#pendingCount += 1;
    if (this.#connection !== undefined && !this.#draining) this.#send(request);
  }

  flush(): void {
    this.#connection?.flush();
  }

  /** Replaces the connection in order: what was sent is answered first, the rest waits. Resolves on
   *  the new one. */
  renew(): Promise<void> {
    const connected = new Promise<void>((resolve) => this.#connectedWaiters.push(resolve));
    this.#startDraining();
    return connected;
  }

  /** Gives the connection up as if it had broken. Only for a server that is known to be fenced. */
  abandon(reason: string): void {
    this.#connection?.destroy(new StorageError('UNAVAILABLE', reason));
  }

  /** Ends the lane: DISC when nothing is unanswered, else unanswered requests end with EIO. */
  end(): void {
    this.#ended = true;
    this.#abort.abort(new StorageError('CLOSED', 'the NBD client is closed'));
    const connection = this.#connection;
    this.#connection = undefined;
    if (connection !== undefined) {
      if (this.#sentCount === 0) connection.disconnect();
      else connection.destroy(new StorageError('CLOSED', 'the NBD client is closed'));
    }
    this.#failAll();
    for (const wake of this.#connectedWaiters.splice(0)) wake();
  }

  #send(request: NbdRequest): void {
    request.sent = true;
    this.#sentCount += 1;
    const cookie = { high: this.#generations[request.slot] as number, low: request.slot };
    this.#connection?.send(request, cookie);
  }

  #requestOf(high: number, low: number): NbdRequest | undefined {
    const request = this.#slots[low];
    return request?.sent && this.#generations[low] === high ? request : undefined;
  }

  #onReply(request: NbdRequest, errno: number, reply: Buffer | undefined): void {
    this.#sentCount -= 1;
    request.sent = false;
    if (errno === NBD_ERROR.ESHUTDOWN) {
      this.#startDraining();
    } else {
      this.#progressed = true;
      this.#forget(request);
      const known = errno === 0 || KNOWN_ERRNO.has(errno) ? errno : NBD_ERROR.EIO;
      this.#options.onSettled(request, known, reply);
    }
    if (this.#draining && this.#sentCount === 0) this.#finishDraining();
  }

  #startDraining(): void {
    if (this.#connection === undefined || this.#draining) return;
    this.#draining = true;
    // The caller may be inside a reply of this very connection: leave that first.
    if (this.#sentCount === 0) queueMicrotask(() => this.#finishDraining());
  }

  #finishDraining(): void {
    if (!this.#draining || this.#connection === undefined || this.#sentCount > 0) return;
    const connection = this.#connection;
    this.#connection = undefined;
    connection.disconnect();
    this.#beginReconnect();
  }

  #onClose(error: StorageError): void {
    this.#connection = undefined;
    this.#sentCount = 0;
    for (const request of this.#slots) if (request !== undefined) request.sent = false;
    if (this.#ended) return;
    this.#options.log.warn(
      { code: error.code, reason: error.message, unanswered: this.#pendingCount },
      'NBD connection lost',
    );
    // A server that talks nonsense may be alive and may yet do what it was sent: never send that
    // again.
    if (error.code === 'PROTOCOL_ERROR') this.#failAll();
    this.#beginReconnect();
  }

  #beginReconnect(): void {
    // A connection without one good answer does not start patience and back-off anew: one request
    // may be what ends every server.
    if (this.#progressed || this.#downSinceMs === undefined) {
      this.#downSinceMs = this.#clock.nowMs();
      this.#backoffMs = 0;
    }
    this.#giveUpIfLate();
    void this.#reconnect();
  }

  async #reconnect(): Promise<void> {
    let reported = '';
    for (;;) {
      const delayMs = this.#backoffMs;
      this.#backoffMs = Math.min(Math.max(delayMs * 2, BACKOFF_MS_MIN), BACKOFF_MS_MAX);
      try {
        if (delayMs > 0) await sleep(this.#clock, delayMs, this.#abort.signal);
        const { connection, info } = await NbdConnection.open(this.#options, 'go');
        if (this.#ended) return connection.disconnect();
        if (this.#isAcceptable(connection, info)) return this.#onReconnected(connection);
      } catch (cause) {
        if (this.#ended) return;
        const error = toStorageError(cause, 'reconnect');
        if (error.code === 'IO_INDETERMINATE') return this.#giveUpForGood(error);
        if (error.message !== reported) {
          reported = error.message;
          this.#options.log.warn({ code: error.code, reason: reported }, 'NBD reconnect failed');
        }
      }
      this.#giveUpIfLate();
    }
  }

  #isAcceptable(connection: NbdConnection, info: ExportInfo): boolean {
    try {
      this.#options.checkExport(info);
      return true;
    } catch (error) {
      connection.disconnect();
      throw error;
    }
  }

  #onReconnected(connection: NbdConnection): void {
    const downMs = Math.round(this.#clock.nowMs() - (this.#downSinceMs ?? 0));
    this.#reconnects += 1;
    this.#gaveUp = false;
    this.#options.log.info({ downMs, sendAgain: this.#pendingCount }, 'NBD connection is back');
    if (this.#pendingCount === 0) this.#downSinceMs = undefined;
    this.adopt(connection);
  }

  /** What was acknowledged may be gone: nothing may be answered with success any more. */
  #giveUpForGood(error: StorageError): void {
    this.#gaveUp = true;
    this.#options.log.fatal({ code: error.code, failed: this.#pendingCount }, error.message);
    this.#failAll();
    for (const wake of this.#connectedWaiters.splice(0)) wake();
  }

  #giveUpIfLate(): void {
    const downMs = this.#clock.nowMs() - (this.#downSinceMs ?? 0);
    if (this.#gaveUp || downMs < this.#options.giveUpMs) return;
    this.#gaveUp = true;
    this.#options.log.error(
      { downMs: Math.round(downMs), failed: this.#pendingCount },
      'no NBD server for too long: requests end with EIO until one is back',
    );
    this.#failAll();
  }

  #forget(request: NbdRequest): void {
    const slot = request.slot;
    this.#slots[slot] = undefined;
    this.#generations[slot] = ((this.#generations[slot] as number) + 1) >>> 0;
    this.#free.push(slot);
    request.slot = -1;
    this.#pendingCount -= 1;
  }

  #failAll(): void {
    for (const request of [...this.#slots]) {
      if (request === undefined) continue;
      request.sent = false;
      this.#forget(request);
      this.#options.onSettled(request, NBD_ERROR.EIO, undefined);
    }
    this.#sentCount = 0;
  }
}
