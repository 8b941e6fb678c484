/** Puts header blocks together from HEADERS and CONTINUATION frames (RFC 9113, 4.3 and 6.10). */
import { toStorageError } from '../../common/errors.js';
import { FLAG, FRAME, H2_ERROR, Http2Error } from './frame.js';
import { headerBlockOf, type ParsedHeader } from './frame-parser.js';
import { decodeHeaders, HEADER_LIST_BYTES_MAX, type HeaderList } from './hpack.js';

const FRAMES_MAX = 16;

export interface HeaderBlock {
  readonly streamId: number;
  readonly endStream: boolean;
  readonly headers: HeaderList;
}

export class HeaderBlocks {
  #open: { streamId: number; flags: number; bytes: Buffer; frames: number } | undefined;

  /** A frame of this type begins. @throws Http2Error if it interrupts a header block */
  check(type: number): void {
    if (this.#open !== undefined && type !== FRAME.CONTINUATION) {
      throw new Http2Error(H2_ERROR.PROTOCOL_ERROR, 'header block interrupted');
    }
  }

  /** A HEADERS frame; undefined if more of the block must come. @throws Http2Error */
  start(header: ParsedHeader, payload: Buffer): HeaderBlock | undefined {
    if (header.streamId === 0) throw new Http2Error(H2_ERROR.PROTOCOL_ERROR, 'HEADERS on 0');
    const { streamId, flags } = header;
    const bytes = headerBlockOf(flags, payload);
    if ((flags & FLAG.END_HEADERS) !== 0) return decode({ streamId, flags, bytes });
    // The payload is borrowed.
    this.#open = { streamId, flags, bytes: Buffer.from(bytes), frames: 1 };
    return undefined;
  }

  /** A CONTINUATION frame; undefined if more of the block must come. @throws Http2Error */
  goOn(header: ParsedHeader, payload: Buffer): HeaderBlock | undefined {
    const open = this.#open;
    if (open === undefined || open.streamId !== header.streamId) {
      throw new Http2Error(H2_ERROR.PROTOCOL_ERROR, 'CONTINUATION out of place');
    }
    open.frames += 1;
    open.bytes = Buffer.concat([open.bytes, payload]);
    if (open.frames > FRAMES_MAX || open.bytes.length > HEADER_LIST_BYTES_MAX) {
      throw new Http2Error(H2_ERROR.ENHANCE_YOUR_CALM, 'header block too long');
    }
    if ((header.flags & FLAG.END_HEADERS) === 0) return undefined;
    this.#open = undefined;
    return decode(open);
  }
}

function decode(block: { streamId: number; flags: number; bytes: Buffer }): HeaderBlock {
  try {
    const headers = decodeHeaders(block.bytes);
    const endStream = (block.flags & FLAG.END_STREAM) !== 0;
    return { streamId: block.streamId, endStream, headers };
  } catch (error) {
    throw new Http2Error(H2_ERROR.COMPRESSION_ERROR, toStorageError(error, 'headers').message);
  }
}
