/** A message descriptor such as /dev/fuse on the event loop. */
import assert from 'node:assert';
import { constants } from 'node:os';
import { StorageError } from '../common/errors.js';
import { addon } from './addon.js';
import { ioError } from './errno.js';

const PENDING = -constants.errno.EINPROGRESS;
const GONE = new Set([-constants.errno.ENODEV, -constants.errno.EBADF]);
/** Messages taken without a turn of the event loop in between; one more waits for the loop, so that
 *  timers and sockets are served even when the next message is always there already. */
const BURST_MAX = 64;

interface PendingRead {
  readonly resolve: (lengthBytes: number) => void;
  readonly reject: (error: StorageError) => void;
}

/** Owns the descriptor from construction. Not for regular files.
 *  @throws StorageError IO_ERROR when the descriptor cannot be polled; it is then still the
 *  caller's */
export class FdChannel {
  readonly #id: number;
  #pending: PendingRead | undefined;
  #burst = 0;
  #closed = false;

  constructor(readonly fd: number) {
    const id = addon.openChannel(fd, (result) => this.#onResult(result));
    if (id < 0) throw ioError(id, `poll of descriptor ${fd}`);
    this.#id = id;
  }

  /** One message into `view`; resolves with its length, 0 at the end of a stream. One read at a
   *  time (asserted). `view` is borrowed until then; a message longer than it is lost or refused as
   *  the descriptor's driver says.
   *  @throws StorageError CLOSED (file system unmounted, or channel closed) | IO_ERROR
   *  (details.errno) */
  read(view: Buffer): Promise<number> {
    if (this.#closed) return Promise.reject(this.#closedError());
    assert(this.#pending === undefined, 'second read on a channel');
    this.#burst += 1;
    const result = addon.readChannel(this.#id, view, this.#burst > BURST_MAX);
    if (result >= 0) return Promise.resolve(result);
    if (result !== PENDING) return Promise.reject(this.#errorOf('read', result));
    return new Promise((resolve, reject) => {
      this.#pending = { resolve, reject };
    });
  }

  /** One writev(2) of all parts, at most 64, done before it returns. @returns bytes taken
   *  @throws StorageError IO_ERROR (details.errno: ENOENT when the FUSE request was interrupted
   *  meanwhile) | CLOSED */
  write(views: readonly Buffer[]): number {
    if (this.#closed) throw this.#closedError();
    const result = addon.writeChannel(this.#id, views);
    if (result < 0) throw this.#errorOf('write', result);
    return result;
  }

  /** A pending read is rejected with CLOSED. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    addon.closeChannel(this.#id);
    this.#pending?.reject(this.#closedError());
    this.#pending = undefined;
  }

  #onResult(result: number): void {
    const pending = this.#pending;
    this.#pending = undefined;
    this.#burst = 0;
    if (result >= 0) pending?.resolve(result);
    else pending?.reject(this.#errorOf('read', result));
  }

  #closedError(): StorageError {
    return new StorageError('CLOSED', `descriptor ${this.fd} is closed`);
  }

  #errorOf(doing: string, result: number): StorageError {
    const text = `${doing} of descriptor ${this.fd}`;
    if (!GONE.has(result)) return ioError(result, text);
    return new StorageError('CLOSED', `${text}: the other side is gone`, { errno: 'ENODEV' });
  }
}
