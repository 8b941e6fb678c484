/** Requests and replies at random, and what a decoder must see of them. */
import fc from 'fast-check';
import { setBits } from '../../common/bitmap.js';
import { BLOCK_SIZE, EXTENT_SIZE, REGION_SIZE } from '../../common/units.js';
import {
  bitmapBytesOf,
  decodeIoBatch,
  IO_FLAG,
  IO_OP,
  IoBatchEncoder,
  type IoBatchVisitor,
  type IoReplyBatchVisitor,
  IoReplyEncoder,
} from '../../proto/io-codec.js';
import { MESSAGE_HEADROOM, type OutgoingMessage } from '../../proto/message-stream.js';
import { checksumBlocks } from './crc32c.js';

export interface Request {
  op: number;
  flags: number;
  id: number;
  offsetBytes: number;
  lengthBytes: number;
  arg: number;
  checksums: string;
  payload: string;
}

export const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
export const bytesOf = (message: OutgoingMessage): Buffer =>
  Buffer.concat([message.head.subarray(MESSAGE_HEADROOM), ...message.tail]);
export const numberOf = (value: unknown): number => Number(String(value ?? 0));

export class Collector implements IoBatchVisitor, IoReplyBatchVisitor {
  hellos: unknown[] = [];
  acked: number[] = [];
  requests: Request[] = [];
  replies: object[] = [];

  onHello(hello: unknown): void {
    this.hellos.push(hello);
  }

  onAckedThrough(id: number): void {
    this.acked.push(id);
  }

  onRequest(view: Parameters<IoBatchVisitor['onRequest']>[0]): void {
    const { op, flags, id, offsetBytes, lengthBytes, arg, bytes } = view;
    const checksums = hex(bytes.subarray(view.checksumsStart, view.checksumsEnd));
    const payload = hex(bytes.subarray(view.payloadStart, view.payloadEnd));
    this.requests.push({ op, flags, id, offsetBytes, lengthBytes, arg, checksums, payload });
  }

  onReply(view: Parameters<IoReplyBatchVisitor['onReply']>[0]): void {
    const { status, id, badBlock, detail, bytes } = view;
    const checksums = hex(bytes.subarray(view.checksumsStart, view.checksumsEnd));
    const payload = hex(bytes.subarray(view.payloadStart, view.payloadEnd));
    this.replies.push({ status, id, badBlock, detail, checksums, payload });
  }
}

export function decodeOurs(message: Buffer): Collector {
  const seen = new Collector();
  decodeIoBatch(message, seen);
  return seen;
}

export const safe = fc.maxSafeNat();
export const blocks = (max: number) => fc.integer({ min: 1, max });
export const blockOffset = fc.integer({ min: 0, max: 2 ** 34 }).map((block) => block * BLOCK_SIZE);
export const flags = fc.integer({ min: 0, max: 15 });

/** A request with what the codec needs to write it: `seed` fills the payload of a write. */
export const plainRequest = fc.record({
  op: fc.constantFrom(IO_OP.READ, IO_OP.TRIM, IO_OP.WRITE_ZEROES, IO_OP.MAP),
  flags,
  id: safe,
  offsetBytes: blockOffset,
  lengthBytes: blocks(256).map((count) => count * BLOCK_SIZE),
  arg: safe,
  fill: fc.constant(0),
});
export const bareRequest = fc.record({
  op: fc.constantFrom(IO_OP.FLUSH, IO_OP.PING),
  flags,
  id: safe,
  offsetBytes: fc.constant(0),
  lengthBytes: fc.constant(0),
  arg: safe,
  fill: fc.constant(0),
});
export const cleanRequest = fc.record({
  op: fc.constant(IO_OP.CLEAN),
  flags: fc.constant(0),
  id: safe,
  offsetBytes: fc.integer({ min: 0, max: 1000 }).map((region) => region * REGION_SIZE),
  lengthBytes: fc.constant(0),
  arg: safe,
  fill: fc.constant(0),
});
export const writeRequest = fc.record({
  op: fc.constant(IO_OP.WRITE),
  flags: fc.constantFrom(0, IO_FLAG.FUA),
  id: safe,
  offsetBytes: blockOffset,
  lengthBytes: fc.oneof(blocks(3), fc.constantFrom(16, 17)).map((count) => count * BLOCK_SIZE),
  arg: fc.constant(0),
  fill: fc.integer({ min: 0, max: 255 }),
});
/** `fill` decides which blocks are present, and what is in them. */
export const replaceRequest = fc
  .record({ extent: fc.nat(2 ** 20), first: fc.nat(255), count: blocks(256), fill: fc.nat(255) })
  .chain(({ extent, first, count, fill }) =>
    fc.record({
      op: fc.constant(IO_OP.REPLACE),
      flags: fc.constant(0),
      id: safe,
      offsetBytes: fc.constant(extent * EXTENT_SIZE + first * BLOCK_SIZE),
      lengthBytes: fc.constant(Math.min(count, 256 - first) * BLOCK_SIZE),
      arg: fc.constant(0),
      fill: fc.constant(fill),
    }),
  );
export const anyRequest = fc.oneof(
  plainRequest,
  bareRequest,
  cleanRequest,
  writeRequest,
  replaceRequest,
);
export type Given = typeof anyRequest extends fc.Arbitrary<infer T> ? T : never;

/** Every n-th block is present, none at all for some fills. */
export function replaceContentOf(request: Given): { bitmap: Buffer; payload: Buffer } {
  const count = request.lengthBytes / BLOCK_SIZE;
  const every = request.fill % 5;
  const bitmap = Buffer.alloc(bitmapBytesOf(count));
  let present = 0;
  for (let block = 0; block < count && every > 0; block += every) {
    setBits(bitmap, 0, block, 1);
    present += 1;
  }
  return { bitmap, payload: Buffer.alloc(present * BLOCK_SIZE, request.fill) };
}

export const payloadOf = (request: Given): Buffer =>
  Buffer.alloc(request.lengthBytes, request.fill);

export function checksumsOf(payload: Buffer): Buffer {
  const out = Buffer.alloc((payload.length / BLOCK_SIZE) * 4);
  checksumBlocks(payload, 0, payload.length, out, 0);
  return out;
}

/** The two fields of a request that are bytes. */
export function valuesOf(request: Given): { checksums: Buffer; payload: Buffer } {
  if (request.op === IO_OP.REPLACE) {
    const { bitmap, payload } = replaceContentOf(request);
    return { checksums: Buffer.concat([bitmap, checksumsOf(payload)]), payload };
  }
  const payload = request.op === IO_OP.WRITE ? payloadOf(request) : Buffer.alloc(0);
  return { checksums: checksumsOf(payload), payload };
}

export function wanted(request: Given): Request {
  const { fill: _fill, ...fields } = request;
  const { checksums, payload } = valuesOf(request);
  return { ...fields, checksums: hex(checksums), payload: hex(payload) };
}

export function encodeOurs(requests: readonly Given[], acked: number): Buffer {
  const encoder = new IoBatchEncoder({ checksumBlocks });
  for (const request of requests) {
    if (request.op === IO_OP.WRITE) {
      const payload = payloadOf(request);
      const cut = Math.min(1000, payload.length);
      encoder.addWrite(request, [payload.subarray(0, cut), payload.subarray(cut)]);
    } else if (request.op === IO_OP.REPLACE) {
      const { bitmap, payload } = replaceContentOf(request);
      const cut = Math.min(5000, payload.length);
      const pieces = [payload.subarray(0, cut), payload.subarray(cut)];
      // A bitmap as short as it may be: the encoder fills it up.
      const bits = bitmap.subarray(0, Math.ceil(request.lengthBytes / BLOCK_SIZE / 8));
      const checksums = checksumsOf(payload);
      encoder.addReplace(request, { bitmap: bits, checksums, payload: pieces });
    } else encoder.add(request);
  }
  return Buffer.from(bytesOf(encoder.finish(acked, 1)));
}

export const detail = fc.string({ unit: 'grapheme', maxLength: 60 });
export const replyGiven = fc.oneof(
  fc.record({
    kind: fc.constant('plain' as const),
    id: safe,
    status: fc.integer({ min: 0, max: 0xffffffff }),
    badBlock: fc.integer({ min: 0, max: 255 }),
    detail,
    size: fc.constant(0),
  }),
  fc.record({
    kind: fc.constant('read' as const),
    id: safe,
    status: fc.constant(0),
    badBlock: fc.constant(0),
    detail: fc.constant(''),
    size: fc.constantFrom(0, 4096, 16384, 20480, 65536),
  }),
);
export type ReplyGiven = typeof replyGiven extends fc.Arbitrary<infer T> ? T : never;

export const readPayload = (reply: ReplyGiven): Buffer => Buffer.alloc(reply.size, reply.id % 251);
export const readSums = (reply: ReplyGiven): Buffer =>
  Buffer.alloc(reply.kind === 'read' ? Math.max(4, reply.size / 1024) : 0, reply.id % 250);

export function wantedReply(reply: ReplyGiven) {
  const { status, id, badBlock } = reply;
  return {
    ...{ status, id, badBlock, detail: reply.detail },
    checksums: hex(readSums(reply)),
    payload: hex(readPayload(reply)),
  };
}

export function encodeReplies(replies: readonly ReplyGiven[]): {
  message: OutgoingMessage;
  out: number[];
} {
  const encoder = new IoReplyEncoder();
  const released: number[] = [];
  for (const [index, reply] of replies.entries()) {
    if (reply.kind === 'plain') encoder.add(reply.id, reply.status, reply);
    else {
      const payload = reply.size === 0 ? undefined : readPayload(reply);
      encoder.addRead(reply.id, readSums(reply), payload, () => released.push(index));
    }
  }
  return { message: encoder.finish(), out: released };
}
