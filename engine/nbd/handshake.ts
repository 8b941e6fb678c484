/**
 * The handshake of one connection as a pure state machine: bytes in, replies and an outcome out.
 *
 * - Every option of a fixed-newstyle client gets exactly one final reply, or ends the connection.
 * - With TLS required nothing about exports is said, and nothing but STARTTLS and ABORT is done,
 *   before TLS is up; what was negotiated in plain text counts for nothing afterwards.
 * - No volume is touched: its size is read when an export is chosen, nothing else.
 * - Bounded: one option of `optionBytesMax`, `optionsMax` options, REPLY_BYTES_MAX of replies.
 */
import { KIB, MIB, REQUEST_BYTES_MAX } from '../../common/units.js';
import {
  BASE_ALLOCATION,
  BASE_ALLOCATION_ID,
  GREETING_MAGIC_HIGH,
  GREETING_MAGIC_LOW,
  HANDSHAKE_FIXED_NEWSTYLE,
  HANDSHAKE_NO_ZEROES,
  INFO,
  OPTION,
  OPTION_HEADER_BYTES,
  OPTION_MAGIC_HIGH,
  OPTION_MAGIC_LOW,
  OPTION_REPLY,
} from './constants.js';
import type { ExportBook, NbdExport } from './export-book.js';
import { isReadOnly, minimumBlockSize, transmissionFlags } from './export-book.js';
import type { NbdLimits } from './limits.js';
import {
  decodeContextQuery,
  decodeInfoRequest,
  decodeText,
  encodeOptionReply,
  record,
} from './option-codec.js';

const REPLY_BYTES_MAX = 4 * MIB;
const PREFERRED_BLOCK_BYTES = 4 * KIB;

/** What a connection may do once the handshake is over. */
export interface NbdSession {
  readonly export: NbdExport;
  readonly readOnly: boolean;
  readonly structured: boolean;
  /** base:allocation was selected for this very export */
  readonly allocationContext: boolean;
  /** Unit that offsets and lengths must keep to: 1 unless the client asked for block sizes. */
  readonly blockBytes: number;
}

export type HandshakeOutcome =
  | { readonly kind: 'more' }
  /** Send the replies, then start TLS on the socket. Bytes after this one were sent in plain
   *  text: an attack. */
  | { readonly kind: 'startTls' }
  | { readonly kind: 'transmit'; readonly session: NbdSession }
  /** Orderly: send the replies and close. */
  | { readonly kind: 'end' }
  /** Broken: send the replies, if any, and close. */
  | { readonly kind: 'drop'; readonly reason: string };

export interface HandshakeStep {
  readonly outcome: HandshakeOutcome;
  readonly replies: readonly Buffer[];
  /** bytes of the chunk that the handshake used */
  readonly usedBytes: number;
}

export interface HandshakeOptions {
  readonly book: ExportBook;
  /** off: STARTTLS is refused. required: nothing else is answered before it. */
  readonly tls: 'off' | 'required';
  readonly limits: Pick<NbdLimits, 'optionsMax' | 'optionBytesMax'>;
}

const MORE: HandshakeOutcome = { kind: 'more' };
const END: HandshakeOutcome = { kind: 'end' };
const drop = (reason: string): HandshakeOutcome => ({ kind: 'drop', reason });

/** The first bytes a server sends. */
export function encodeGreeting(): Buffer {
  return record([
    [4, GREETING_MAGIC_HIGH],
    [4, GREETING_MAGIC_LOW],
    [4, OPTION_MAGIC_HIGH],
    [4, OPTION_MAGIC_LOW],
    [2, HANDSHAKE_FIXED_NEWSTYLE | HANDSHAKE_NO_ZEROES],
  ]);
}

export class Handshake {
  readonly #options: HandshakeOptions;
  #expect: 'flags' | 'header' | 'data' = 'flags';
  #target: Buffer = Buffer.allocUnsafe(4);
  #filled = 0;
  #replies: Buffer[] = [];
  #replyBytes = 0;
  #optionCount = 0;
  /** option whose data is being received */
  #option = 0;
  #fixed = false;
  #noZeroes = false;
  #tlsNeeded: boolean;
  #structured = false;
  /** export for which base:allocation is selected */
  #contextOf: NbdExport | undefined;

  constructor(options: HandshakeOptions) {
    this.#options = options;
    this.#tlsNeeded = options.tls === 'required';
  }

  /** Consumes bytes until the chunk or the handshake ends. Not to be called again after another
   *  outcome than `more`, except after `startTls` once TLS is up. */
  push(chunk: Buffer): HandshakeStep {
    let outcome = MORE;
    let at = 0;
    while (outcome === MORE) {
      const copied = chunk.copy(this.#target, this.#filled, at);
      at += copied;
      this.#filled += copied;
      if (this.#filled < this.#target.length) break;
      outcome = this.#takeTarget();
      if (this.#replyBytes > REPLY_BYTES_MAX) outcome = drop('asked for too many replies');
    }
    const replies = this.#replies;
    this.#replies = [];
    return { outcome, replies, usedBytes: at };
  }

  #await(expect: 'header' | 'data', lengthBytes: number): void {
    this.#expect = expect;
    this.#target = Buffer.allocUnsafe(lengthBytes);
    this.#filled = 0;
  }

  #reply(type: number, data?: Buffer): HandshakeOutcome {
    const bytes = encodeOptionReply(this.#option, type, data);
    this.#replyBytes += bytes.length;
    this.#replies.push(bytes);
    return MORE;
  }

  #takeTarget(): HandshakeOutcome {
    if (this.#expect === 'flags') return this.#takeClientFlags(this.#target.readUInt32BE(0));
    if (this.#expect === 'header') return this.#takeHeader(this.#target);
    const data = this.#target;
    this.#await('header', OPTION_HEADER_BYTES);
    return this.#takeOption(data);
  }

  #takeClientFlags(flags: number): HandshakeOutcome {
    if ((flags & ~(HANDSHAKE_FIXED_NEWSTYLE | HANDSHAKE_NO_ZEROES)) !== 0) {
      return drop(`unknown client flags 0x${flags.toString(16)}`);
    }
    this.#fixed = (flags & HANDSHAKE_FIXED_NEWSTYLE) !== 0;
    this.#noZeroes = (flags & HANDSHAKE_NO_ZEROES) !== 0;
    this.#await('header', OPTION_HEADER_BYTES);
    return MORE;
  }

  #takeHeader(header: Buffer): HandshakeOutcome {
    const magicOk =
      header.readUInt32BE(0) === OPTION_MAGIC_HIGH && header.readUInt32BE(4) === OPTION_MAGIC_LOW;
    if (!magicOk) return drop('bad option magic');
    this.#option = header.readUInt32BE(8);
    const lengthBytes = header.readUInt32BE(12);
    this.#optionCount += 1;
    if (this.#optionCount > this.#options.limits.optionsMax) return drop('too many options');
    if (!this.#fixed && this.#option !== OPTION.EXPORT_NAME) {
      return drop(`option ${this.#option} from a client without fixed newstyle`);
    }
    if (lengthBytes > this.#options.limits.optionBytesMax) {
      if (this.#option !== OPTION.EXPORT_NAME) this.#reply(OPTION_REPLY.ERR_TOO_BIG);
      return drop(`option ${this.#option} with ${lengthBytes} bytes of data`);
    }
    this.#await('data', lengthBytes);
    return MORE;
  }

  #takeOption(data: Buffer): HandshakeOutcome {
    if (this.#option === OPTION.ABORT) {
      this.#reply(OPTION_REPLY.ACK);
      return END;
    }
    if (this.#option === OPTION.STARTTLS) return this.#startTls(data);
    if (this.#tlsNeeded) {
      if (this.#option === OPTION.EXPORT_NAME) return drop('EXPORT_NAME before TLS');
      return this.#reply(OPTION_REPLY.ERR_TLS_REQD);
    }
    switch (this.#option) {
      case OPTION.EXPORT_NAME:
        return this.#exportName(data);
      case OPTION.LIST:
        return this.#list(data);
      case OPTION.INFO:
      case OPTION.GO:
        return this.#info(data);
      case OPTION.STRUCTURED_REPLY:
        if (data.length > 0) return this.#reply(OPTION_REPLY.ERR_INVALID);
        this.#structured = true;
        return this.#reply(OPTION_REPLY.ACK);
      case OPTION.LIST_META_CONTEXT:
      case OPTION.SET_META_CONTEXT:
        return this.#metaContext(data);
      default:
        return this.#reply(OPTION_REPLY.ERR_UNSUP);
    }
  }

  #startTls(data: Buffer): HandshakeOutcome {
    if (data.length > 0) return this.#reply(OPTION_REPLY.ERR_INVALID);
    if (this.#options.tls === 'off') return this.#reply(OPTION_REPLY.ERR_POLICY);
    if (!this.#tlsNeeded) return this.#reply(OPTION_REPLY.ERR_INVALID);
    this.#reply(OPTION_REPLY.ACK);
    this.#tlsNeeded = false;
    this.#structured = false;
    this.#contextOf = undefined;
    return { kind: 'startTls' };
  }

  #list(data: Buffer): HandshakeOutcome {
    if (data.length > 0) return this.#reply(OPTION_REPLY.ERR_INVALID);
    for (const each of this.#options.book.all()) {
      const name = Buffer.from(each.name);
      const text = Buffer.from(each.description ?? '');
      this.#reply(OPTION_REPLY.SERVER, Buffer.concat([record([[4, name.length]]), name, text]));
    }
    return this.#reply(OPTION_REPLY.ACK);
  }

  #session(opened: NbdExport, blockBytes: number): HandshakeOutcome {
    const session: NbdSession = {
      export: opened,
      readOnly: isReadOnly(opened),
      structured: this.#structured,
      allocationContext: this.#contextOf === opened,
      blockBytes,
    };
    return { kind: 'transmit', session };
  }

  #exportName(data: Buffer): HandshakeOutcome {
    const name = decodeText(data);
    const opened = name === undefined ? undefined : this.#options.book.find(name);
    if (opened === undefined) return drop('unknown export name');
    const reply = record([
      [8, opened.volume.sizeBytes],
      [2, transmissionFlags(opened, this.#structured)],
    ]);
    this.#replies.push(reply);
    if (!this.#noZeroes) this.#replies.push(Buffer.alloc(124));
    return this.#session(opened, 1);
  }

  #info(data: Buffer): HandshakeOutcome {
    const request = decodeInfoRequest(data);
    if (request === undefined) return this.#reply(OPTION_REPLY.ERR_INVALID);
    const opened = this.#options.book.find(request.name);
    if (opened === undefined) return this.#reply(OPTION_REPLY.ERR_UNKNOWN);
    const { wanted } = request;
    const info = (type: number, content: Buffer): void => {
      this.#reply(OPTION_REPLY.INFO, Buffer.concat([record([[2, type]]), content]));
    };
    const flags = transmissionFlags(opened, this.#structured);
    info(
      INFO.EXPORT,
      record([
        [8, opened.volume.sizeBytes],
        [2, flags],
      ]),
    );
    if (wanted.has(INFO.NAME)) info(INFO.NAME, Buffer.from(opened.name));
    if (wanted.has(INFO.DESCRIPTION) && opened.description !== undefined) {
      info(INFO.DESCRIPTION, Buffer.from(opened.description));
    }
    let blockBytes = 1;
    if (wanted.has(INFO.BLOCK_SIZE)) {
      blockBytes = minimumBlockSize(opened);
      info(
        INFO.BLOCK_SIZE,
        record([
          [4, blockBytes],
          [4, PREFERRED_BLOCK_BYTES],
          [4, REQUEST_BYTES_MAX],
        ]),
      );
    }
    this.#reply(OPTION_REPLY.ACK);
    return this.#option === OPTION.GO ? this.#session(opened, blockBytes) : MORE;
  }

  #metaContext(data: Buffer): HandshakeOutcome {
    const setting = this.#option === OPTION.SET_META_CONTEXT;
    // A new selection replaces the old one even if it fails.
    if (setting) this.#contextOf = undefined;
    const request = decodeContextQuery(data);
    if (request === undefined || !this.#structured) return this.#reply(OPTION_REPLY.ERR_INVALID);
    const opened = this.#options.book.find(request.name);
    if (opened === undefined) return this.#reply(OPTION_REPLY.ERR_UNKNOWN);
    const { queries } = request;
    const listed = !setting && (queries.length === 0 || queries.includes('base:'));
    if (listed || queries.includes(BASE_ALLOCATION)) {
      const id = setting ? BASE_ALLOCATION_ID : 0;
      const context = Buffer.concat([record([[4, id]]), Buffer.from(BASE_ALLOCATION)]);
      this.#reply(OPTION_REPLY.META_CONTEXT, context);
      if (setting) this.#contextOf = opened;
    }
    return this.#reply(OPTION_REPLY.ACK);
  }
}
