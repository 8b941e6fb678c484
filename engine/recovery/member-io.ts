/** Single operations on one member, for recovery: images of ranges, hashes, flush. The caller keeps
 *  the range still. */
import { StorageError } from '../../common/errors.js';
import { BLOCK_SIZE } from '../../common/units.js';
import {
  badBlocksOf,
  bitmapBytesOf,
  IO_FLAG,
  IO_OP,
  type IoReplyView,
  presentBlocksOf,
} from '../../proto/io-codec.js';
import type { IncomingMessage } from '../../proto/message-stream.js';
import { codeOfStatus } from '../../proto/status.js';
import type { PendingOp } from '../core/pending-op.js';
import type { VerifyBlocks } from '../core/read-path.js';
import type { ReplicaLink } from '../core/replica-link.js';
import { UnaryOp } from '../core/unary-op.js';

export interface ByteRange {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

/** What a range holds: which blocks are present, a checksum of each, and the blocks packed.
 *  Borrowed from a message until `release`. */
export interface RangeImage {
  readonly bitmap: Buffer;
  readonly checksums: Buffer;
  readonly payload: Buffer;
  release(): void;
}

export interface RangeHashes {
  /** 16 bytes per block */
  readonly hashes: Buffer;
  /** one bit per block: content is not as its stored checksum says, or cannot be read */
  readonly bad: Buffer;
  readonly badCount: number;
}

/** A request whose answer is taken from the message before it goes. */
class Answer<T> implements PendingOp {
  sentMs = 0;
  readonly done: Promise<T>;
  #resolve!: (value: T) => void;
  #reject!: (error: StorageError) => void;

  constructor(readonly take: (reply: IoReplyView, message: IncomingMessage) => T) {
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  onReply(link: ReplicaLink, reply: IoReplyView, message: IncomingMessage): void {
    if (reply.status !== 0) {
      const code = codeOfStatus(reply.status) ?? 'INTERNAL';
      const details = { replica: link.replicaId, badBlock: reply.badBlock };
      this.#reject(new StorageError(code, reply.detail || code, details));
      return;
    }
    try {
      this.#resolve(this.take(reply, message));
    } catch (error) {
      if (!(error instanceof StorageError)) throw error;
      this.#reject(error);
      link.break(error);
    }
  }

  onLost(_link: ReplicaLink, error: StorageError): void {
    this.#reject(error);
  }
}

/** Reads the present blocks of a range, verified here too.
 *  @param raw  as they are on the device: stored checksums prove nothing there
 *  @throws StorageError CORRUPT_BLOCK | IO_ERROR | why the link was lost */
export function readImage(
  link: ReplicaLink,
  range: ByteRange,
  options: { readonly raw: boolean; readonly verifyBlocks: VerifyBlocks },
): Promise<RangeImage> {
  const blocks = range.lengthBytes / BLOCK_SIZE;
  const answer = new Answer((reply, message) => {
    const present = presentBlocksOf(reply, blocks);
    const sumsAt = reply.checksumsStart + bitmapBytesOf(blocks);
    const { bytes } = message;
    const lengthBytes = present * BLOCK_SIZE;
    const bad =
      present === 0
        ? -1
        : options.verifyBlocks(bytes, reply.payloadStart, lengthBytes, bytes, sumsAt);
    if (bad >= 0) {
      const text = `an image from replica ${link.replicaId} does not match its checksums`;
      throw new StorageError('CORRUPT_MESSAGE', text, { replica: link.replicaId });
    }
    message.retain();
    return {
      bitmap: bytes.subarray(reply.checksumsStart, sumsAt),
      checksums: bytes.subarray(sumsAt, reply.checksumsEnd),
      payload: bytes.subarray(reply.payloadStart, reply.payloadEnd),
      release: () => message.release(),
    };
  });
  const flags = IO_FLAG.SPARSE | (options.raw ? IO_FLAG.RAW : 0);
  link.request(answer, { op: IO_OP.READ, flags, ...range });
  return answer.done;
}

/** Makes the range hold exactly the image; its bytes are copied before the call returns. */
export async function replaceRange(
  link: ReplicaLink,
  range: ByteRange,
  image: Pick<RangeImage, 'bitmap' | 'checksums' | 'payload'>,
): Promise<void> {
  const { bitmap, checksums, payload } = image;
  const op = new UnaryOp();
  link.requestReplace(op, range, { bitmap, checksums, payload: [payload] });
  await op.done;
}

/** A strong hash of each block of a range. @param raw  nothing is judged by stored checksums */
export function hashRange(
  link: ReplicaLink,
  range: ByteRange,
  options: { readonly raw: boolean },
): Promise<RangeHashes> {
  const blocks = range.lengthBytes / BLOCK_SIZE;
  const answer = new Answer((reply, message) => {
    const badCount = badBlocksOf(reply, blocks);
    const { bytes } = message;
    const badAt = reply.checksumsStart + bitmapBytesOf(blocks);
    return {
      hashes: Buffer.from(bytes.subarray(reply.payloadStart, reply.payloadEnd)),
      bad: Buffer.from(bytes.subarray(badAt, reply.checksumsEnd)),
      badCount,
    };
  });
  const flags = options.raw ? IO_FLAG.RAW : 0;
  link.request(answer, { op: IO_OP.HASH, flags, ...range });
  return answer.done;
}

/** D1 on one member: what it acknowledged before is on stable storage. */
export async function flushMember(link: ReplicaLink): Promise<void> {
  const op = new UnaryOp();
  link.request(op, { op: IO_OP.FLUSH, flags: 0, offsetBytes: 0, lengthBytes: 0 });
  await op.done;
}
