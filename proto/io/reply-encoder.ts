/**
 * Writes IoReplyBatch messages (proto/replica.proto).
 *
 * Layout: each reply as tag, length and 19 bytes of status, id and bad_block; then, where it has
 * them, checksums, payload, detail. A payload by reference is spliced in: `#cuts[i]` is the
 * position in the writer's memory where `#pieces[i]` belongs.
 */
import assert from 'node:assert';
import { BLOCK_SIZE, WIRE_IO_BYTES_MAX } from '../../common/units.js';
import { MESSAGE_BYTES_MAX, MESSAGE_HEADROOM, type OutgoingMessage } from '../message-stream.js';
import { STATUS_OK } from '../status.js';
import { COPIED_PAYLOAD_MAX, DETAIL_BYTES_MAX, REQUESTS_PER_MESSAGE_MAX } from './limits.js';
import { MessageMemory, MessageWriter, PooledMessage } from './message-memory.js';
import { putU32, putU64, varintSize, writeVarint } from './wire-format.js';

/** status, id and bad_block of a reply */
export const REPLY_FIELDS_BYTES = 19;
/** more than all headers of one reply */
const REPLY_OVERHEAD_BYTES = 48;

const NOTHING_TO_RELEASE: ReadonlyArray<() => void> = [];

/** Collects replies and turns them into one message for one stream. Wrong arguments assert. */
export class IoReplyEncoder {
  readonly #writer: MessageWriter;
  #replies = 0;
  #cuts: number[] = [];
  #pieces: Buffer[] = [];
  #piecesBytes = 0;
  #releases: Array<() => void> = [];

  /** @param options.memory shared with other encoders of this process; default: one of its own */
  constructor(options: { memory?: MessageMemory | undefined } = {}) {
    this.#writer = new MessageWriter(options.memory ?? new MessageMemory());
  }

  /** Replies added since the last finish. */
  get replies(): number {
    return this.#replies;
  }

  /** Message bytes so far, payloads by reference included. */
  get lengthBytes(): number {
    return this.#writer.lengthBytes + this.#piecesBytes;
  }

  /** Whether one more reply with `payloadBytes` of payload keeps the message within the protocol's
   * limits. */
  fits(payloadBytes: number): boolean {
    const bytes = payloadBytes + (payloadBytes / BLOCK_SIZE) * 4;
    return (
      this.#replies < REQUESTS_PER_MESSAGE_MAX &&
      this.lengthBytes + bytes + REPLY_OVERHEAD_BYTES + DETAIL_BYTES_MAX <= MESSAGE_BYTES_MAX
    );
  }

  /** A reply without payload.
   *  @param status a number of proto/status.ts
   *  @param error  badBlock: index of the first bad block in the request; detail: for people, cut
   *    to 1 KiB */
  add(id: number, status: number, error?: { badBlock?: number; detail?: string }): void {
    assert(this.fits(0), 'ask fits() before add()');
    const detail = cutText(error?.detail ?? '');
    const detailLength = Buffer.byteLength(detail);
    const length =
      REPLY_FIELDS_BYTES + (detailLength > 0 ? 1 + varintSize(detailLength) + detailLength : 0);
    const bytes = this.#writer.reserve(REPLY_OVERHEAD_BYTES + detailLength);
    this.#putFields({ id, status, badBlock: error?.badBlock ?? 0 }, length);
    if (detailLength > 0) {
      bytes[this.#writer.at] = 0x4a;
      const at = writeVarint(bytes, this.#writer.at + 1, detailLength);
      bytes.write(detail, at, 'utf8');
      this.#writer.at = at + detailLength;
    }
    this.#replies += 1;
  }

  /** A successful reply with data: to READ with checksums (with SPARSE: bitmap and checksums), to
   *  HASH with two bitmaps, to MAP without (empty buffer).
   *  @param payload  undefined: all zero. Up to COPIED_PAYLOAD_MAX it is copied; longer ones are
   *                  sent from where they are and must not change until released
   *  @param release  called once: at once if nothing is kept, else when the message is done */
  addRead(id: number, checksums: Buffer, payload?: Buffer, release?: () => void): void {
    const payloadLength = payload?.length ?? 0;
    assert(payloadLength <= WIRE_IO_BYTES_MAX && checksums.length % 4 === 0);
    assert(this.fits(payloadLength), 'ask fits() before addRead()');
    const checksumsLength = checksums.length;
    let length = REPLY_FIELDS_BYTES;
    if (checksumsLength > 0) length += 1 + varintSize(checksumsLength) + checksumsLength;
    if (payloadLength > 0) length += 1 + varintSize(payloadLength) + payloadLength;
    const copied = payloadLength <= COPIED_PAYLOAD_MAX;
    const bytes = this.#writer.reserve(
      REPLY_OVERHEAD_BYTES + checksumsLength + (copied ? payloadLength : 0),
    );
    this.#putFields({ id, status: STATUS_OK, badBlock: 0 }, length);
    let at = this.#writer.at;
    if (checksumsLength > 0) {
      bytes[at] = 0x3a;
      at = writeVarint(bytes, at + 1, checksumsLength);
      bytes.set(checksums, at);
      at += checksumsLength;
    }
    if (payload !== undefined && payloadLength > 0) {
      bytes[at] = 0x42;
      at = writeVarint(bytes, at + 1, payloadLength);
      if (copied) {
        bytes.set(payload, at);
        at += payloadLength;
      } else {
        this.#cuts.push(at);
        this.#pieces.push(payload);
        this.#piecesBytes += payloadLength;
        if (release !== undefined) this.#releases.push(release);
      }
    }
    this.#writer.at = at;
    this.#replies += 1;
    if (copied) release?.();
  }

  /** The message with everything that was added, for one stream. `done()` gives the memory back and
   * runs the releases. */
  finish(): OutgoingMessage {
    const lengthBytes = this.lengthBytes;
    const { bytes, end } = this.#writer.take();
    const tail: Buffer[] = [];
    let from = this.#cuts[0] ?? end;
    const head = bytes.subarray(0, from);
    for (const [index, piece] of this.#pieces.entries()) {
      const next = this.#cuts[index + 1] ?? end;
      tail.push(piece);
      if (next > from) tail.push(bytes.subarray(from, next));
      from = next;
    }
    // An empty list stays with the encoder: what is added to it later belongs to a later message.
    const releases = this.#releases.length > 0 ? this.#releases : NOTHING_TO_RELEASE;
    const memory = this.#writer.memory;
    this.#replies = 0;
    this.#piecesBytes = 0;
    if (releases.length > 0) this.#releases = [];
    if (tail.length > 0) {
      this.#cuts = [];
      this.#pieces = [];
    }
    assert(head.length >= MESSAGE_HEADROOM);
    return new PooledMessage({ head, tail, lengthBytes }, 1, () => {
      memory.give(bytes);
      for (const release of releases) release();
    });
  }

  #putFields(fields: { id: number; status: number; badBlock: number }, length: number): void {
    assert(Number.isSafeInteger(fields.id) && fields.id >= 0);
    assert(Number.isInteger(fields.status) && fields.status >= 0 && fields.status <= 0xffffffff);
    assert(Number.isInteger(fields.badBlock) && fields.badBlock >= 0);
    const bytes = this.#writer.bytes as Buffer;
    let at = this.#writer.at;
    bytes[at] = 0x12;
    at = writeVarint(bytes, at + 1, length);
    bytes[at] = 0x0d;
    putU32(bytes, at + 1, fields.status);
    bytes[at + 5] = 0x11;
    putU64(bytes, at + 6, fields.id);
    bytes[at + 14] = 0x1d;
    putU32(bytes, at + 15, fields.badBlock);
    this.#writer.at = at + REPLY_FIELDS_BYTES;
  }
}

function cutText(text: string): string {
  if (Buffer.byteLength(text) <= DETAIL_BYTES_MAX) return text;
  // At most three bytes per code unit; half a character at the cut becomes U+FFFD.
  return text.substring(0, DETAIL_BYTES_MAX / 4);
}
