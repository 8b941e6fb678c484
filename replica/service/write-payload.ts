/**
 * The way of a write's payload from the network message into memory that the device can take.
 *
 * Nothing of a write reaches the store before its checksums were found right: the message may have
 * been changed on the way (scenario 33). The bytes are copied at most once, and not at all when
 * they arrived aligned.
 */
import type { AlignedBuffer, BufferPool } from '../../common/block-device.js';
import { StorageError } from '../../common/errors.js';
import { BLOCK_SIZE } from '../../common/units.js';
import { copyAndChecksum, crc32cVerify } from '../../native/index.js';
import type { IncomingMessage } from '../../proto/message-stream.js';

/** Where payload and checksums lie in a message: half-open index ranges of its bytes. */
export interface PayloadPlace {
  readonly payloadStart: number;
  readonly payloadEnd: number;
  readonly checksumsStart: number;
  /** index of the first block in the request, for errors; default 0 */
  readonly firstBlock?: number;
}

/** crc32c of the blocks of the largest write, while it is being copied; used within one call. */
const computed = Buffer.alloc((1024 * 1024 * 4) / BLOCK_SIZE);

/** The payload as pool memory, its checksums verified; the caller owns it.
 *  The place was checked: whole blocks, one checksum per block.
 *  @throws StorageError CORRUPT_MESSAGE (details.badBlock) | OVERLOADED; then nothing is held */
export function takePayload(
  message: IncomingMessage,
  place: PayloadPlace,
  pool: BufferPool,
): AlignedBuffer {
  const lengthBytes = place.payloadEnd - place.payloadStart;
  if (message.aligned && place.payloadStart % BLOCK_SIZE === 0) {
    const bad = crc32cVerify(
      message.bytes,
      place.payloadStart,
      lengthBytes,
      message.bytes,
      place.checksumsStart,
    );
    if (bad >= 0) throw corruptPayload(bad + (place.firstBlock ?? 0));
    message.retain();
    return new MessageView(message, place.payloadStart, place.payloadEnd);
  }
  const buffer = pool.acquire(lengthBytes);
  // One pass over the bytes: they are summed while they are copied, and compared before anyone else
  // sees them.
  copyAndChecksum(message.bytes, place.payloadStart, buffer.bytes, 0, lengthBytes, computed, 0);
  const sumBytes = (lengthBytes / BLOCK_SIZE) * 4;
  for (let at = 0; at < sumBytes; at += 4) {
    if (computed.readUInt32LE(at) !== message.bytes.readUInt32LE(place.checksumsStart + at)) {
      buffer.release();
      throw corruptPayload(at / 4 + (place.firstBlock ?? 0));
    }
  }
  return buffer;
}

/** Pool memory that a message holds: released with the message. */
class MessageView implements AlignedBuffer {
  readonly bytes: Buffer;
  readonly #message: IncomingMessage;

  constructor(message: IncomingMessage, start: number, end: number) {
    this.#message = message;
    this.bytes = message.bytes.subarray(start, end);
  }

  release(): void {
    this.#message.release();
  }
}

/** @param badBlock  index in the request */
export function corruptPayload(badBlock: number): StorageError {
  return new StorageError(
    'CORRUPT_MESSAGE',
    `block ${badBlock} of the payload does not match its checksum: changed on the way here`,
    { badBlock },
  );
}
