/** HTTP/2 frames (RFC 9113, sections 4 and 6): constants, and writing of the small ones. */
import { StorageError } from '../../common/errors.js';

export const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');
export const FRAME_HEADER_BYTES = 9;
/** Every endpoint accepts frames up to this; larger ones only where announced. */
export const FRAME_BYTES_DEFAULT = 16384;
/** Largest value of SETTINGS_MAX_FRAME_SIZE. */
export const FRAME_BYTES_LIMIT = 16777215;
export const WINDOW_BYTES_DEFAULT = 65535;
export const WINDOW_BYTES_LIMIT = 0x7fffffff;
/** The gRPC header before each message: one byte "compressed?", four bytes length. */
export const GRPC_HEADER_BYTES = 5;
/** The one stream that a specialised connection has. */
export const STREAM_ID = 1;

export const FRAME = {
  DATA: 0,
  HEADERS: 1,
  PRIORITY: 2,
  RST_STREAM: 3,
  SETTINGS: 4,
  PUSH_PROMISE: 5,
  PING: 6,
  GOAWAY: 7,
  WINDOW_UPDATE: 8,
  CONTINUATION: 9,
} as const;

export const FLAG = { END_STREAM: 1, ACK: 1, END_HEADERS: 4, PADDED: 8, PRIORITY: 32 } as const;

export const SETTING = {
  HEADER_TABLE_SIZE: 1,
  ENABLE_PUSH: 2,
  MAX_CONCURRENT_STREAMS: 3,
  INITIAL_WINDOW_SIZE: 4,
  MAX_FRAME_SIZE: 5,
  MAX_HEADER_LIST_SIZE: 6,
  /** Ours: "this side is a specialised endpoint". Unknown identifiers are ignored by everybody else
   * (RFC 9113, 6.5.2). */
  AUROCHS: 0xa0c5,
} as const;
/** Value of SETTING.AUROCHS. */
export const AUROCHS_VERSION = 1;

export const H2_ERROR = {
  NO_ERROR: 0,
  PROTOCOL_ERROR: 1,
  INTERNAL_ERROR: 2,
  FLOW_CONTROL_ERROR: 3,
  SETTINGS_TIMEOUT: 4,
  STREAM_CLOSED: 5,
  FRAME_SIZE_ERROR: 6,
  REFUSED_STREAM: 7,
  CANCEL: 8,
  COMPRESSION_ERROR: 9,
  CONNECT_ERROR: 10,
  ENHANCE_YOUR_CALM: 11,
  INADEQUATE_SECURITY: 12,
  HTTP_1_1_REQUIRED: 13,
} as const;

export interface FrameHeader {
  readonly lengthBytes: number;
  readonly type: number;
  readonly flags: number;
  readonly streamId: number;
}

export function putFrameHeader(bytes: Buffer, at: number, header: FrameHeader): void {
  bytes[at] = header.lengthBytes >>> 16;
  bytes[at + 1] = header.lengthBytes >>> 8;
  bytes[at + 2] = header.lengthBytes;
  bytes[at + 3] = header.type;
  bytes[at + 4] = header.flags;
  bytes.writeUInt32BE(header.streamId, at + 5);
}

/** A whole frame in memory of its own. For everything but data on its way. */
export function frame(
  type: number,
  payload: Buffer,
  where: { flags?: number; streamId?: number } = {},
): Buffer {
  const bytes = Buffer.allocUnsafe(FRAME_HEADER_BYTES + payload.length);
  const { flags = 0, streamId = 0 } = where;
  putFrameHeader(bytes, 0, { lengthBytes: payload.length, type, flags, streamId });
  payload.copy(bytes, FRAME_HEADER_BYTES);
  return bytes;
}

const EMPTY = Buffer.alloc(0);

export function settingsFrame(settings: ReadonlyArray<readonly [number, number]>): Buffer {
  const payload = Buffer.alloc(settings.length * 6);
  for (const [index, [id, value]] of settings.entries()) {
    payload.writeUInt16BE(id, index * 6);
    payload.writeUInt32BE(value, index * 6 + 2);
  }
  return frame(FRAME.SETTINGS, payload);
}

export const SETTINGS_ACK_FRAME = frame(FRAME.SETTINGS, EMPTY, { flags: FLAG.ACK });
export const END_STREAM_FRAME = frame(FRAME.DATA, EMPTY, {
  flags: FLAG.END_STREAM,
  streamId: STREAM_ID,
});

export function windowUpdateFrame(streamId: number, increment: number): Buffer {
  const payload = Buffer.allocUnsafe(4);
  payload.writeUInt32BE(increment);
  return frame(FRAME.WINDOW_UPDATE, payload, { streamId });
}

export function rstStreamFrame(streamId: number, error: number): Buffer {
  const payload = Buffer.allocUnsafe(4);
  payload.writeUInt32BE(error);
  return frame(FRAME.RST_STREAM, payload, { streamId });
}

export function goawayFrame(lastStreamId: number, error: number): Buffer {
  const payload = Buffer.allocUnsafe(8);
  payload.writeUInt32BE(lastStreamId, 0);
  payload.writeUInt32BE(error, 4);
  return frame(FRAME.GOAWAY, payload);
}

export function headersFrame(block: Buffer, endStream: boolean): Buffer {
  const flags = FLAG.END_HEADERS | (endStream ? FLAG.END_STREAM : 0);
  return frame(FRAME.HEADERS, block, { flags, streamId: STREAM_ID });
}

/** Name of an HTTP/2 error code, for people. */
export function h2ErrorName(error: number): string {
  for (const [name, value] of Object.entries(H2_ERROR)) if (value === error) return name;
  return `error ${error}`;
}

/** The peer breaks HTTP/2: the connection ends with GOAWAY and this error code. */
export class Http2Error extends StorageError {
  constructor(
    readonly h2Error: number,
    message: string,
  ) {
    super('PROTOCOL_ERROR', `HTTP/2: ${message}`);
  }
}
