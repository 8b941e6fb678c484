/**
 * The replies of one connection on their way out.
 *
 * - Headers and small data are copied into one pooled buffer, large data goes by reference.
 * - Replies of an event-loop turn leave in one write; while a write is under way the next ones
 *   gather.
 * - `flush` or `flushLater` must follow whatever was queued.
 * - At most BATCH_BYTES per write, so that a peer that takes its replies slowly is told from one
 *   that takes none.
 */
import assert from 'node:assert';
import type { Socket } from 'node:net';
import { KIB } from '../../common/units.js';

const BATCH_BYTES = 256 * KIB;
const OUT_BUFFER_BYTES = 64 * KIB;
/** Most bytes one `reserve` may ask for. */
export const RESERVE_BYTES_MAX = OUT_BUFFER_BYTES / 2;

/** Free 64 KiB buffers of one server: an idle connection holds none. */
export class OutBufferPool {
  readonly #free: Buffer[] = [];

  constructor(readonly keepMax: number) {}

  take(): Buffer {
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(OUT_BUFFER_BYTES);
  }

  give(buffer: Buffer): void {
    if (this.#free.length < this.keepMax) this.#free.push(buffer);
  }
}

export interface ReplyQueueOptions {
  readonly socket: Socket;
  readonly pool: OutBufferPool;
  /** A batch was taken by the socket: everything up to `sentBytes` of the reply stream may be
   *  released. */
  readonly onSent: () => void;
}

export class ReplyQueue {
  readonly #socket: Socket;
  readonly #pool: OutBufferPool;
  readonly #onSent: () => void;
  /** buffer that headers are written to, with the part not yet in a segment: [segmentAt,
   *  out.used) */
  #out: Buffer | undefined;
  #usedBytes = 0;
  #segmentAt = 0;
  /** not yet given to the socket, in order */
  #segments: Buffer[] = [];
  /** full out buffers and the stream position behind each */
  #spent: Array<{ buffer: Buffer; endsAt: number }> = [];
  #writing = false;
  #scheduled = false;
  #closed = false;
  #batchBytes = 0;
  /** Bytes of the reply stream so far, and how many of them the socket took. */
  appendedBytes = 0;
  sentBytes = 0;
  /** How many batches the socket took, or is being given: stands still while a peer stalls. */
  batches = 0;

  constructor(options: ReplyQueueOptions) {
    this.#socket = options.socket;
    this.#pool = options.pool;
    this.#onSent = options.onSent;
  }

  get unsentBytes(): number {
    return this.appendedBytes - this.sentBytes;
  }

  get writing(): boolean {
    return this.#writing;
  }

  /** Room for `sizeBytes` at `at` of the buffer returned by `reserved`; write them before
   *  anything else is called. */
  reserve(sizeBytes: number): Buffer {
    assert(sizeBytes <= RESERVE_BYTES_MAX, 'a reservation fits an empty buffer');
    let out = this.#out;
    if (out === undefined || this.#usedBytes + sizeBytes > OUT_BUFFER_BYTES) {
      if (out !== undefined) {
        this.#cutSegment(out);
        this.#spent.push({ buffer: out, endsAt: this.appendedBytes });
      }
      out = this.#pool.take();
      this.#out = out;
      this.#usedBytes = 0;
      this.#segmentAt = 0;
    }
    this.at = this.#usedBytes;
    this.#usedBytes += sizeBytes;
    this.appendedBytes += sizeBytes;
    return out;
  }

  /** Where the last `reserve` begins. */
  at = 0;

  /** Sends `data` by reference: it must not change until `sentBytes` passed it. */
  append(data: Buffer): void {
    if (data.length === 0) return;
    if (this.#out !== undefined) this.#cutSegment(this.#out);
    this.#segments.push(data);
    this.appendedBytes += data.length;
  }

  /** The socket is closed: nothing is borrowed from the callers any more. */
  close(): void {
    this.#closed = true;
    this.sentBytes = this.appendedBytes;
    this.#segments = [];
    this.#giveBuffersBack();
  }

  #cutSegment(out: Buffer): void {
    if (this.#usedBytes > this.#segmentAt) {
      this.#segments.push(out.subarray(this.#segmentAt, this.#usedBytes));
      this.#segmentAt = this.#usedBytes;
    }
  }

  /** Sends what is queued at the end of this turn, together with what comes until then. */
  flushLater(): void {
    if (this.#scheduled || this.#writing) return;
    this.#scheduled = true;
    setImmediate(this.#onTurnEnd);
  }

  /** Sends what is queued now: for when nothing more can come. */
  flush(): void {
    if (!this.#closed && !this.#writing) this.#write();
  }

  readonly #onTurnEnd = (): void => {
    this.#scheduled = false;
    this.flush();
  };

  #write(): void {
    if (this.#out !== undefined) this.#cutSegment(this.#out);
    const batch = this.#takeBatch();
    const last = batch.pop();
    if (last === undefined) return;
    this.#writing = true;
    this.batches += 1;
    if (batch.length === 0) {
      this.#socket.write(last, this.#onWritten);
      return;
    }
    this.#socket.cork();
    for (const segment of batch) this.#socket.write(segment);
    this.#socket.write(last, this.#onWritten);
    this.#socket.uncork();
  }

  #takeBatch(): Buffer[] {
    let bytes = 0;
    let count = 0;
    for (const segment of this.#segments) {
      bytes += segment.length;
      count += 1;
      if (bytes >= BATCH_BYTES) break;
    }
    const excess = bytes - BATCH_BYTES;
    const batch = count === this.#segments.length ? this.#segments : [];
    if (batch.length === 0) batch.push(...this.#segments.splice(0, count));
    else this.#segments = [];
    const last = batch[batch.length - 1];
    if (excess > 0 && last !== undefined) {
      const keptBytes = last.length - excess;
      batch[batch.length - 1] = last.subarray(0, keptBytes);
      this.#segments.unshift(last.subarray(keptBytes));
      bytes = BATCH_BYTES;
    }
    this.#batchBytes = bytes;
    return batch;
  }

  /** With an error the socket's close event follows and settles everything. */
  readonly #onWritten = (error?: Error | null): void => {
    if (this.#closed || (error !== undefined && error !== null)) return;
    this.#writing = false;
    this.sentBytes += this.#batchBytes;
    this.batches += 1;
    this.#giveBuffersBack();
    this.#onSent();
    if (this.unsentBytes > 0) this.flush();
  };

  #giveBuffersBack(): void {
    let count = 0;
    for (const spent of this.#spent) {
      if (spent.endsAt > this.sentBytes) break;
      this.#pool.give(spent.buffer);
      count += 1;
    }
    if (count > 0) this.#spent.splice(0, count);
    if (this.#out !== undefined && this.sentBytes === this.appendedBytes) {
      this.#pool.give(this.#out);
      this.#out = undefined;
      this.#usedBytes = 0;
      this.#segmentAt = 0;
    }
  }
}
