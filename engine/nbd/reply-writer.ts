/** Encodes replies into the queue of a connection: simple ones, and the chunks of structured
 *  ones. */
import { KIB } from '../../common/units.js';
import type { ReadResult, StatusRun } from '../block-volume.js';
import {
  BASE_ALLOCATION_ID,
  CHUNK,
  CHUNK_FLAG_DONE,
  CHUNK_HEADER_BYTES,
  CHUNK_MAGIC,
  COMMAND_FLAG,
  SIMPLE_REPLY_BYTES,
  SIMPLE_REPLY_MAGIC,
  STATE_HOLE,
  STATE_ZERO,
} from './constants.js';
import type { ErrorAnswer } from './error-number.js';
import type { ReplyQueue } from './reply-queue.js';
import type { RequestHeader } from './request.js';
import { zeroRuns } from './zero-runs.js';

/** Read data up to this is copied next to its header: one piece of memory for the socket instead
 *  of two. */
const COPY_BYTES_MAX = 16 * KIB;
/** Runs of one BLOCK_STATUS reply: bounds its size to 64 KiB. */
export const STATUS_RUNS_MAX = 8192;
const RUN_BYTES = 8;

function putSimple(out: Buffer, at: number, request: RequestHeader): void {
  out.writeUInt32BE(SIMPLE_REPLY_MAGIC, at);
  out.writeUInt32BE(0, at + 4);
  out.writeUInt32BE(request.cookieHigh, at + 8);
  out.writeUInt32BE(request.cookieLow, at + 12);
}

interface ChunkFields {
  readonly done: boolean;
  readonly type: number;
  readonly lengthBytes: number;
}

function putChunk(out: Buffer, at: number, request: RequestHeader, fields: ChunkFields): void {
  out.writeUInt32BE(CHUNK_MAGIC, at);
  out.writeUInt16BE(fields.done ? CHUNK_FLAG_DONE : 0, at + 4);
  out.writeUInt16BE(fields.type, at + 6);
  out.writeUInt32BE(request.cookieHigh, at + 8);
  out.writeUInt32BE(request.cookieLow, at + 12);
  out.writeUInt32BE(fields.lengthBytes, at + 16);
}

function putOffset(out: Buffer, at: number, offsetBytes: number): void {
  out.writeUInt32BE(Math.floor(offsetBytes / 0x1_0000_0000), at);
  out.writeUInt32BE(offsetBytes % 0x1_0000_0000, at + 4);
}

/** Success without data. */
export function writeDone(queue: ReplyQueue, request: RequestHeader): void {
  putSimple(queue.reserve(SIMPLE_REPLY_BYTES), queue.at, request);
}

/** @param structured the reply to this command must be structured: READ and BLOCK_STATUS, once
 *  negotiated */
export function writeError(
  queue: ReplyQueue,
  request: RequestHeader,
  answer: ErrorAnswer & { readonly structured: boolean },
): void {
  if (!answer.structured) {
    const out = queue.reserve(SIMPLE_REPLY_BYTES);
    putSimple(out, queue.at, request);
    out.writeUInt32BE(answer.number, queue.at + 4);
    return;
  }
  const text = Buffer.from(answer.text);
  const lengthBytes = 6 + text.length;
  const out = queue.reserve(CHUNK_HEADER_BYTES + lengthBytes);
  putChunk(out, queue.at, request, { done: true, type: CHUNK.ERROR, lengthBytes });
  out.writeUInt32BE(answer.number, queue.at + 20);
  out.writeUInt16BE(text.length, queue.at + 24);
  text.copy(out, queue.at + 26);
}

/** All of it if the data was copied: the result may be released at once. False: when the socket
 *  took it. */
export function writeRead(
  queue: ReplyQueue,
  request: RequestHeader,
  result: ReadResult,
  structured: boolean,
): boolean {
  const { chunks } = result;
  const { lengthBytes, offsetBytes } = request;
  if (structured && (request.flags & COMMAND_FLAG.DF) === 0) {
    const runs = zeroRuns(chunks, lengthBytes);
    if (runs !== undefined) {
      writeRuns(queue, request, chunks, runs);
      return false;
    }
  }
  const headerBytes = structured ? CHUNK_HEADER_BYTES + 8 : SIMPLE_REPLY_BYTES;
  const copied = lengthBytes <= COPY_BYTES_MAX;
  const out = queue.reserve(headerBytes + (copied ? lengthBytes : 0));
  let at = queue.at;
  if (structured) putDataHeader(out, at, request, { done: true, offsetBytes, lengthBytes });
  else putSimple(out, at, request);
  if (!copied) {
    for (const chunk of chunks) queue.append(chunk);
    return false;
  }
  at += headerBytes;
  for (const chunk of chunks) at += chunk.copy(out, at);
  return true;
}

interface DataFields {
  readonly done: boolean;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

function putDataHeader(out: Buffer, at: number, request: RequestHeader, fields: DataFields): void {
  const { done, offsetBytes, lengthBytes } = fields;
  putChunk(out, at, request, { done, type: CHUNK.OFFSET_DATA, lengthBytes: lengthBytes + 8 });
  putOffset(out, at + CHUNK_HEADER_BYTES, offsetBytes);
}

/** @param runs lengths: data, zeroes, data, zeroes … in all the length of the request */
function writeRuns(
  queue: ReplyQueue,
  request: RequestHeader,
  chunks: readonly Buffer[],
  runs: readonly number[],
): void {
  let { offsetBytes } = request;
  const endBytes = offsetBytes + request.lengthBytes;
  let index = 0;
  let inChunk = 0;
  runs.forEach((lengthBytes, i) => {
    if (lengthBytes === 0) return;
    const isData = i % 2 === 0;
    const done = offsetBytes + lengthBytes === endBytes;
    if (isData) {
      const out = queue.reserve(CHUNK_HEADER_BYTES + 8);
      putDataHeader(out, queue.at, request, { done, offsetBytes, lengthBytes });
    } else {
      const out = queue.reserve(CHUNK_HEADER_BYTES + 12);
      putChunk(out, queue.at, request, { done, type: CHUNK.OFFSET_HOLE, lengthBytes: 12 });
      putOffset(out, queue.at + CHUNK_HEADER_BYTES, offsetBytes);
      out.writeUInt32BE(lengthBytes, queue.at + CHUNK_HEADER_BYTES + 8);
    }
    let leftBytes = lengthBytes;
    while (leftBytes > 0) {
      const chunk = chunks[index] as Buffer;
      const partBytes = Math.min(leftBytes, chunk.length - inChunk);
      if (isData) queue.append(chunk.subarray(inChunk, inChunk + partBytes));
      leftBytes -= partBytes;
      inChunk += partBytes;
      if (inChunk === chunk.length) {
        index += 1;
        inChunk = 0;
      }
    }
    offsetBytes += lengthBytes;
  });
}

/** A structured READ of nothing, or one that needs no data. */
export function writeNone(queue: ReplyQueue, request: RequestHeader): void {
  const out = queue.reserve(CHUNK_HEADER_BYTES);
  putChunk(out, queue.at, request, { done: true, type: CHUNK.NONE, lengthBytes: 0 });
}

/** @param runs at least one and at most STATUS_RUNS_MAX, none empty */
export function writeStatus(
  queue: ReplyQueue,
  request: RequestHeader,
  runs: readonly StatusRun[],
): void {
  const lengthBytes = 4 + runs.length * RUN_BYTES;
  const out = queue.reserve(CHUNK_HEADER_BYTES);
  putChunk(out, queue.at, request, { done: true, type: CHUNK.BLOCK_STATUS, lengthBytes });
  const body = Buffer.allocUnsafe(lengthBytes);
  body.writeUInt32BE(BASE_ALLOCATION_ID, 0);
  runs.forEach((run, i) => {
    body.writeUInt32BE(run.lengthBytes, 4 + i * RUN_BYTES);
    body.writeUInt32BE(run.hole ? STATE_HOLE | STATE_ZERO : 0, 8 + i * RUN_BYTES);
  });
  queue.append(body);
}
