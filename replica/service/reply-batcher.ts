/**
 * Replies of one data stream: those of one event-loop turn leave in one message.
 *
 * A reply starts a batch and asks for its end at the end of the turn; whatever completes meanwhile
 * joins. A batch that is full leaves at once. What waits here and in the stream is bounded by the
 * window that the session advertised (count) and by its admission (bytes of reads), so a full
 * stream only stops the intake of requests, never a reply.
 */
import type { ErrorCode } from '../../common/errors.js';
import { IoReplyEncoder } from '../../proto/io-codec.js';
import type { MessageStream } from '../../proto/message-stream.js';
import { STATUS_OK, statusOf } from '../../proto/status.js';

/** Calls back when this turn of the event loop has ended. */
export type EndOfTurn = (callback: () => void) => void;

export interface ReplyBatcherOptions {
  readonly stream: MessageStream;
  /** The stream is past its high mark: take no more requests until `onDrain` of the stream. */
  readonly onFull: () => void;
  /** After the microtasks of this callback, in which the completions of one poll settle, and before
   *  the next poll: setImmediate, or what a simulator makes of it. */
  readonly endOfTurn: EndOfTurn;
  /** Told the number of replies of each message. */
  readonly onBatch?: ((replies: number) => void) | undefined;
}

export class ReplyBatcher {
  readonly #encoder = new IoReplyEncoder();
  readonly #stream: MessageStream;
  readonly #onFull: () => void;
  readonly #endOfTurn: EndOfTurn;
  readonly #onBatch: ((replies: number) => void) | undefined;
  readonly #flush = (): void => this.flush();
  #scheduled = false;
  #closed = false;

  constructor(options: ReplyBatcherOptions) {
    this.#stream = options.stream;
    this.#onFull = options.onFull;
    this.#endOfTurn = options.endOfTurn;
    this.#onBatch = options.onBatch;
  }

  succeed(id: number): void {
    if (this.#closed) return;
    this.#reserve(0);
    this.#encoder.add(id, STATUS_OK);
  }

  fail(id: number, code: ErrorCode, error: { badBlock?: number; detail?: string }): void {
    if (this.#closed) return;
    this.#reserve(0);
    this.#encoder.add(id, statusOf(code), error);
  }

  /** A reply with bytes: of a read with its checksums, of a map without. No payload: all zero.
   *  @param release called once, when the payload is needed no longer; also when the stream is
   *    closed */
  data(id: number, checksums: Buffer, payload: Buffer | undefined, release?: () => void): void {
    if (this.#closed) {
      release?.();
      return;
    }
    this.#reserve(payload?.length ?? 0);
    this.#encoder.addRead(id, checksums, payload, release);
  }

  /** Sends what is there now. */
  flush(): void {
    this.#scheduled = false;
    const replies = this.#encoder.replies;
    if (replies === 0) return;
    // After close the stream takes the message and gives it back at once: its payloads are
    // released.
    const message = this.#encoder.finish();
    if (this.#closed) {
      message.done();
      return;
    }
    this.#onBatch?.(replies);
    if (!this.#stream.send(message)) this.#onFull();
  }

  /** Drops what is not sent, and everything that comes later. */
  close(): void {
    this.#closed = true;
    this.flush();
  }

  #reserve(payloadBytes: number): void {
    if (this.#encoder.replies > 0 && !this.#encoder.fits(payloadBytes)) this.flush();
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#endOfTurn(this.#flush);
  }
}
