/**
 * The data stream's messages, written and read by hand so that payloads are copied once and
 * requests cost no objects.
 *
 * What is written is plain protobuf (proto/replica.proto); what is read may come from any protobuf
 * implementation. A fast path reads the fixed layout that our encoders write, a general one
 * everything else. Parts are in `proto/io/`.
 */

export {
  decodeIoBatch,
  type IoBatchVisitor,
  type IoRequestView,
} from './io/batch-decoder.js';
export {
  type ChecksumBlocks,
  IoBatchEncoder,
  type IoReplaceContent,
  type IoReplaceFields,
  type IoRequestFields,
} from './io/batch-encoder.js';
export {
  encodeIoHello,
  encodeIoHelloReply,
  type IoHello,
  type IoHelloReply,
} from './io/hello.js';
export {
  ALIGNED_PAYLOAD_MIN,
  COPIED_PAYLOAD_MAX,
  HASH_BYTES,
  IO_FLAG,
  IO_OP,
  PROTOCOL_VERSION,
  REQUESTS_PER_MESSAGE_MAX,
} from './io/limits.js';
export {
  badBlocksOf,
  bitmapBytesOf,
  type PresentFields,
  presentBlocksOf,
} from './io/present-blocks.js';
export {
  decodeIoReplyBatch,
  type IoReplyBatchVisitor,
  type IoReplyView,
} from './io/reply-decoder.js';
export { IoReplyEncoder } from './io/reply-encoder.js';
