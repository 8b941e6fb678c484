/** Client side of the NBD negotiation, as a pure consumer of bytes: no socket in here. */
import assert from 'node:assert';
import { StorageError } from '../../common/errors.js';
import {
  HANDSHAKE_FIXED_NEWSTYLE,
  HANDSHAKE_NO_ZEROES,
  OPTION,
  OPTION_REPLY,
  OPTION_REPLY_HEADER_BYTES,
} from '../nbd/constants.js';
import {
  decodeGreeting,
  type ExportInfo,
  ExportInfoBuilder,
  encodeAbortOption,
  encodeInfoRequest,
  GREETING_BYTES,
  OPTION_REPLY_ERROR_BIT,
  optionError,
  optionReplyDataBytes,
} from './nbd-wire.js';

/** What the socket owner has to do next. `rest` are bytes that came after the last handshake
 *  byte. */
export type HandshakeStep =
  | { readonly kind: 'need-more' }
  | { readonly kind: 'send'; readonly bytes: Buffer }
  | { readonly kind: 'done'; readonly info: ExportInfo; readonly rest: Buffer };

/**
 * Negotiates one export with GO (then the connection is in transmission), or asks about it with
 * INFO (then the caller ends the connection with `abort`). Bytes come in any pieces. Bounded: one
 * option reply of at most 8 KiB.
 */
export class NbdHandshake {
  #buffered: Buffer = Buffer.alloc(0);
  #greeted = false;
  #repliesMax = 32;
  readonly #builder = new ExportInfoBuilder();
  readonly #option: number;

  constructor(
    readonly exportName: string,
    readonly purpose: 'go' | 'info',
  ) {
    assert(Buffer.byteLength(exportName) <= 4096);
    this.#option = purpose === 'go' ? OPTION.GO : OPTION.INFO;
  }

  /** Takes the next bytes. @throws StorageError PROTOCOL_ERROR | NOT_FOUND | UNAVAILABLE */
  push(bytes: Buffer): HandshakeStep {
    this.#buffered = this.#buffered.length === 0 ? bytes : Buffer.concat([this.#buffered, bytes]);
    if (!this.#greeted) return this.#greet();
    for (;;) {
      const step = this.#takeReply();
      if (step !== undefined) return step;
    }
  }

  static abort(): Buffer {
    return encodeAbortOption();
  }

  #greet(): HandshakeStep {
    if (this.#buffered.length < GREETING_BYTES) return { kind: 'need-more' };
    const flags = decodeGreeting(this.#buffered);
    this.#greeted = true;
    this.#buffered = this.#buffered.subarray(GREETING_BYTES);
    const client = Buffer.alloc(4);
    client.writeUInt32BE(
      HANDSHAKE_FIXED_NEWSTYLE | (flags & HANDSHAKE_NO_ZEROES ? HANDSHAKE_NO_ZEROES : 0),
    );
    const request = encodeInfoRequest(this.#option, this.exportName);
    return { kind: 'send', bytes: Buffer.concat([client, request]) };
  }

  #takeReply(): HandshakeStep | undefined {
    if (this.#buffered.length < OPTION_REPLY_HEADER_BYTES) return { kind: 'need-more' };
    const end = OPTION_REPLY_HEADER_BYTES + optionReplyDataBytes(this.#buffered);
    if (this.#buffered.length < end) return { kind: 'need-more' };
    this.#repliesMax -= 1;
    const option = this.#buffered.readUInt32BE(8);
    const type = this.#buffered.readUInt32BE(12);
    const data = this.#buffered.subarray(OPTION_REPLY_HEADER_BYTES, end);
    this.#buffered = this.#buffered.subarray(end);
    if (option !== this.#option || this.#repliesMax < 0) {
      throw new StorageError('PROTOCOL_ERROR', `NBD server answers option ${option} unasked`);
    }
    if ((type & OPTION_REPLY_ERROR_BIT) !== 0) {
      throw optionError({ option, type, data }, this.exportName);
    }
    if (type === OPTION_REPLY.INFO) this.#builder.add(data);
    if (type !== OPTION_REPLY.ACK) return undefined;
    return { kind: 'done', info: this.#builder.build(), rest: this.#buffered };
  }
}
