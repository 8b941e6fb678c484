/** One question to one in-sync member: a read that stays in one extent, or a map. Also its
 *  answer. */
import { StorageError } from '../../common/errors.js';
import { BLOCK_SIZE } from '../../common/units.js';
import { IO_OP, type IoReplyView } from '../../proto/io-codec.js';
import type { IncomingMessage } from '../../proto/message-stream.js';
import { codeOfStatus } from '../../proto/status.js';
import type { ReadResult } from '../block-volume.js';
import type { PendingOp, Settled } from './pending-op.js';
import type { ReplicaLink } from './replica-link.js';

const ZEROES = Buffer.alloc(64 * 1024);

export interface Question {
  readonly op: typeof IO_OP.READ | typeof IO_OP.MAP;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly arg: number;
}

/** What the read path does for its pieces. */
export interface PieceOwner {
  /** The answer is there and good. */
  answered(piece: ReadPiece, link: ReplicaLink): void;
  /** One member did not serve. */
  notServed(piece: ReadPiece, link: ReplicaLink, error: StorageError): void;
  /** Undefined: bytes and checksums are as they should be. */
  check(
    piece: ReadPiece,
    link: ReplicaLink,
    reply: IoReplyView,
    bytes: Buffer,
  ): StorageError | undefined;
}

export class ReadPiece implements PendingOp, ReadResult {
  sentMs = 0;
  /** members that must not be asked, in any tenure, as bits by link index */
  avoid = 0;
  /** members that were asked, and those */
  tried = 0;
  /** members whose answer was damaged on its way once: asked once more, when the others have
   *  been */
  again = 0;
  /** members whose answer is awaited */
  asked = 0;
  /** a second member was asked because the first is slow */
  hedged = false;
  /** it waits for a tenure; late answers of the last one mean nothing */
  parked = false;
  done = false;
  chunks: Buffer[] = [];
  message: IncomingMessage | undefined;
  lastError: StorageError | undefined;
  resolve!: (result: ReadResult) => void;
  reject!: (error: StorageError) => void;

  constructor(
    readonly owner: PieceOwner,
    readonly question: Question,
    readonly after: Settled | undefined,
  ) {}

  /** Gives the bytes back; the piece can be asked again. */
  release(): void {
    this.message?.release();
    this.message = undefined;
    this.chunks = [];
  }

  succeed(): void {
    this.after?.settled();
    this.resolve(this);
  }

  fail(error: StorageError): void {
    this.done = true;
    this.after?.settled();
    this.reject(error);
  }

  onReply(link: ReplicaLink, reply: IoReplyView, message: IncomingMessage): void {
    this.asked -= 1;
    link.noteRead(this.sentMs);
    if (this.done) return;
    const error = this.#errorOf(link, reply, message);
    if (error !== undefined) {
      this.owner.notServed(this, link, error);
      return;
    }
    const length = reply.payloadEnd - reply.payloadStart;
    if (length > 0) {
      message.retain();
      this.message = message;
      this.chunks.push(message.bytes.subarray(reply.payloadStart, reply.payloadEnd));
    } else if (this.question.op === IO_OP.READ) this.#fillZeroes();
    this.done = true;
    this.owner.answered(this, link);
  }

  onLost(link: ReplicaLink, error: StorageError): void {
    this.asked -= 1;
    if (!this.done) this.owner.notServed(this, link, error);
  }

  #errorOf(
    link: ReplicaLink,
    reply: IoReplyView,
    message: IncomingMessage,
  ): StorageError | undefined {
    if (reply.status !== 0) {
      const code = codeOfStatus(reply.status) ?? 'INTERNAL';
      const at = code === 'CORRUPT_BLOCK' ? reply.badBlock * BLOCK_SIZE : 0;
      const details = { replica: link.replicaId, offsetBytes: this.question.offsetBytes + at };
      return new StorageError(code, reply.detail || `read: ${code}`, details);
    }
    if (this.question.op === IO_OP.MAP || reply.payloadEnd === reply.payloadStart) return undefined;
    return this.owner.check(this, link, reply, message.bytes);
  }

  #fillZeroes(): void {
    for (let left = this.question.lengthBytes; left > 0; left -= ZEROES.length) {
      this.chunks.push(left >= ZEROES.length ? ZEROES : ZEROES.subarray(0, left));
    }
  }
}
