/** Operations, flags and limits of the data stream. Meaning: proto/replica.proto and
 * docs/wire-protocol.md. */
import assert from 'node:assert';
import { BLOCK_SIZE, KIB, WIRE_IO_BYTES_MAX } from '../../common/units.js';
import { MESSAGE_BYTES_MAX } from '../message-stream.js';

/** Value of IoRequest.op. */
export const IO_OP = {
  READ: 1,
  WRITE: 2,
  FLUSH: 3,
  TRIM: 4,
  WRITE_ZEROES: 5,
  MAP: 6,
  CLEAN: 7,
  PING: 8,
  REPLACE: 9,
  HASH: 10,
} as const;

/** Bits of IoRequest.flags. */
export const IO_FLAG = { FUA: 1, NO_HOLE: 2, RAW: 4, SPARSE: 8 } as const;

export const IO_OP_MAX = IO_OP.HASH;
export const IO_FLAGS_ALL = IO_FLAG.FUA | IO_FLAG.NO_HOLE | IO_FLAG.RAW | IO_FLAG.SPARSE;

/** Version in IoHello and IoHelloReply. */
export const PROTOCOL_VERSION = 1;
/** Most requests in one IoBatch, most replies in one IoReplyBatch. */
export const REQUESTS_PER_MESSAGE_MAX = 4096;
/** Writes of at least this many bytes get their payload at a multiple of BLOCK_SIZE from the
 * message start. */
export const ALIGNED_PAYLOAD_MIN = 64 * KIB;
/** Read payloads up to this are copied into the reply message, longer ones are sent from where they
 * are. */
export const COPIED_PAYLOAD_MAX = 16 * KIB;
/** Bytes of one block's hash in a reply to HASH. */
export const HASH_BYTES = 16;
/** Longest text in IoReply.detail, in bytes; the encoder cuts. */
export const DETAIL_BYTES_MAX = 1024;
/** Longest text in a hello message, in bytes. */
export const HELLO_TEXT_BYTES_MAX = 128;

// The largest single I/O with its checksums, a bitmap and a whole block of pad fits in a message.
assert(
  WIRE_IO_BYTES_MAX + (WIRE_IO_BYTES_MAX / BLOCK_SIZE) * 4 + 2 * BLOCK_SIZE < MESSAGE_BYTES_MAX,
);
