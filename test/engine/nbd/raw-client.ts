/** An NBD client that can misbehave: every byte is the test's own. */
import assert from 'node:assert';
import { connect, type Socket } from 'node:net';
import {
  CHUNK,
  CHUNK_FLAG_DONE,
  CHUNK_MAGIC,
  OPTION,
  OPTION_REPLY,
  REQUEST_MAGIC,
  SIMPLE_REPLY_MAGIC,
} from '../../../engine/nbd/constants.js';

export type Target = { readonly path: string } | { readonly host: string; readonly port: number };

export interface OptionReply {
  readonly option: number;
  readonly type: number;
  readonly data: Buffer;
}

export interface RequestFields {
  readonly type: number;
  readonly flags?: number;
  readonly cookie?: bigint;
  readonly offset?: bigint | number;
  readonly length?: number;
  readonly magic?: number;
}

export interface Reply {
  readonly cookie: bigint;
  readonly error: number;
  readonly simple: boolean;
  /** READ: the bytes, holes filled in. BLOCK_STATUS: the raw chunk. */
  readonly data: Buffer;
  /** types of the chunks, in order; empty for simple replies */
  readonly chunks: readonly number[];
}

export function encodeOption(option: number, data: Buffer = Buffer.alloc(0)): Buffer {
  const header = Buffer.alloc(16);
  header.write('IHAVEOPT', 0, 'latin1');
  header.writeUInt32BE(option, 8);
  header.writeUInt32BE(data.length, 12);
  return Buffer.concat([header, data]);
}

export function encodeInfo(name: string | Buffer, types: readonly number[] = []): Buffer {
  const bytes = Buffer.from(name);
  const head = Buffer.alloc(4);
  head.writeUInt32BE(bytes.length);
  const tail = Buffer.alloc(2 + types.length * 2);
  tail.writeUInt16BE(types.length);
  types.forEach((type, i) => {
    tail.writeUInt16BE(type, 2 + i * 2);
  });
  return Buffer.concat([head, bytes, tail]);
}

export function encodeContexts(name: string, queries: readonly string[]): Buffer {
  const texts = [name, ...queries].map((text) => {
    const bytes = Buffer.from(text);
    const head = Buffer.alloc(4);
    head.writeUInt32BE(bytes.length);
    return Buffer.concat([head, bytes]);
  });
  const count = Buffer.alloc(4);
  count.writeUInt32BE(queries.length);
  const [first = Buffer.alloc(0), ...rest] = texts;
  return Buffer.concat([first, count, ...rest]);
}

export function encodeRequest(fields: RequestFields): Buffer {
  const bytes = Buffer.alloc(28);
  bytes.writeUInt32BE(fields.magic ?? REQUEST_MAGIC, 0);
  bytes.writeUInt16BE(fields.flags ?? 0, 4);
  bytes.writeUInt16BE(fields.type, 6);
  bytes.writeBigUInt64BE(fields.cookie ?? 0n, 8);
  bytes.writeBigUInt64BE(BigInt(fields.offset ?? 0), 16);
  bytes.writeUInt32BE(fields.length ?? 0, 24);
  return bytes;
}

/** Raised by reads when the server closed the connection. */
export class ConnectionLost extends Error {
  override readonly name = 'ConnectionLost';
}

export class RawClient {
  #chunks: Buffer[] = [];
  #have = 0;
  #ended = false;
  #wake: (() => void) | undefined;
  structured = false;
  size = 0;
  flags = 0;

  constructor(readonly socket: Socket) {
    socket.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#have += chunk.length;
      this.#wake?.();
    });
    const end = (): void => {
      this.#ended = true;
      this.#wake?.();
    };
    socket.on('end', end);
    socket.on('close', end);
    socket.on('error', end);
  }

  static open(target: Target): Promise<RawClient> {
    return new Promise((resolve, reject) => {
      const socket = connect(target);
      socket.setNoDelay(true);
      socket.once('connect', () => resolve(new RawClient(socket)));
      socket.once('error', reject);
    });
  }

  send(...parts: readonly Buffer[]): void {
    this.socket.write(Buffer.concat(parts));
  }

  async read(lengthBytes: number): Promise<Buffer> {
    while (this.#have < lengthBytes) {
      if (this.#ended) throw new ConnectionLost(`${this.#have} of ${lengthBytes} bytes came`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const first = this.#chunks[0];
    const isWhole = first !== undefined && first.length > lengthBytes;
    if (isWhole) {
      this.#chunks[0] = first.subarray(lengthBytes);
      this.#have -= lengthBytes;
      return first.subarray(0, lengthBytes);
    }
    const all = Buffer.concat(this.#chunks);
    const rest = all.subarray(lengthBytes);
    this.#chunks = rest.length > 0 ? [rest] : [];
    this.#have = rest.length;
    return all.subarray(0, lengthBytes);
  }

  /** Cookie of the reply that comes next, which stays to be read. */
  async peekCookie(): Promise<bigint> {
    const head = await this.read(16);
    this.#chunks.unshift(head);
    this.#have += head.length;
    return head.readBigUInt64BE(8);
  }

  /** Resolves with whatever was still sent when the server has closed the connection. */
  async closed(): Promise<Buffer> {
    while (!this.#ended) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return Buffer.concat(this.#chunks);
  }

  get isEnded(): boolean {
    return this.#ended;
  }

  destroy(): void {
    this.socket.destroy();
  }

  async greet(clientFlags = 3): Promise<void> {
    const greeting = await this.read(18);
    assert.equal(greeting.toString('latin1', 0, 16), 'NBDMAGICIHAVEOPT');
    const flags = Buffer.alloc(4);
    flags.writeUInt32BE(clientFlags);
    this.send(flags);
  }

  async readOptionReply(): Promise<OptionReply> {
    const header = await this.read(20);
    assert.equal(header.readBigUInt64BE(0), 0x3e889045565a9n);
    const data = await this.read(header.readUInt32BE(16));
    return { option: header.readUInt32BE(8), type: header.readUInt32BE(12), data };
  }

  /** Sends one option and collects its replies up to the final one. */
  async option(option: number, data?: Buffer): Promise<OptionReply[]> {
    this.send(encodeOption(option, data));
    const replies: OptionReply[] = [];
    for (;;) {
      const reply = await this.readOptionReply();
      assert.equal(reply.option, option);
      replies.push(reply);
      if (reply.type === OPTION_REPLY.ACK || reply.type >= 0x80000000) return replies;
    }
  }

  /** Up to transmission, the way a good client does it. */
  async go(
    options: {
      readonly name?: string;
      readonly structured?: boolean;
      readonly contexts?: boolean;
      readonly blockSizes?: boolean;
    } = {},
  ): Promise<void> {
    const { name = '', structured = true, contexts = structured, blockSizes = false } = options;
    await this.greet();
    if (structured) {
      await this.option(OPTION.STRUCTURED_REPLY);
      this.structured = true;
    }
    if (contexts) {
      await this.option(OPTION.SET_META_CONTEXT, encodeContexts(name, ['base:allocation']));
    }
    const replies = await this.option(OPTION.GO, encodeInfo(name, blockSizes ? [3] : []));
    const last = replies[replies.length - 1];
    assert.equal(last?.type, OPTION_REPLY.ACK, 'GO was refused');
    const info = replies.find((each) => each.data.readUInt16BE(0) === 0);
    assert(info !== undefined);
    this.size = Number(info.data.readBigUInt64BE(2));
    this.flags = info.data.readUInt16BE(10);
  }

  request(fields: RequestFields, payload: Buffer = Buffer.alloc(0)): void {
    this.send(encodeRequest(fields), payload);
  }

  /** One request and its reply. `length` is also the length of READ data in simple replies. */
  async call(fields: RequestFields, payload?: Buffer): Promise<Reply> {
    this.request(fields, payload);
    return await this.readReply(fields.type === 0 ? fields : undefined);
  }

  /** @param read the READ that is answered: where its data begins and how long it is */
  async readReply(read?: RequestFields): Promise<Reply> {
    const magic = await this.read(4);
    if (magic.readUInt32BE(0) === SIMPLE_REPLY_MAGIC) {
      const rest = await this.read(12);
      const error = rest.readUInt32BE(0);
      const lengthBytes = error === 0 ? (read?.length ?? 0) : 0;
      const data = await this.read(lengthBytes);
      return { cookie: rest.readBigUInt64BE(4), error, simple: true, data, chunks: [] };
    }
    assert.equal(magic.readUInt32BE(0), CHUNK_MAGIC);
    return await this.#readChunks(read);
  }

  async #readChunks(read: RequestFields | undefined): Promise<Reply> {
    // a READ that long is refused, and nothing is received for it
    const lengthBytes = read?.length ?? 0;
    const data: Buffer = Buffer.alloc(lengthBytes > 1 << 26 ? 0 : lengthBytes, 0xee);
    const base = Number(read?.offset ?? 0);
    let status: Buffer | undefined;
    let error = 0;
    let covered = 0;
    const chunks: number[] = [];
    for (;;) {
      const header = await this.read(16);
      const isDone = (header.readUInt16BE(0) & CHUNK_FLAG_DONE) !== 0;
      const type = header.readUInt16BE(2);
      const cookie = header.readBigUInt64BE(4);
      const body = await this.read(header.readUInt32BE(12));
      chunks.push(type);
      if (type === CHUNK.OFFSET_DATA) {
        covered += body.copy(data, Number(body.readBigUInt64BE(0)) - base, 8);
      } else if (type === CHUNK.OFFSET_HOLE) {
        const at = Number(body.readBigUInt64BE(0)) - base;
        data.fill(0, at, at + body.readUInt32BE(8));
        covered += body.readUInt32BE(8);
      } else if (type === CHUNK.ERROR) error = body.readUInt32BE(0);
      else if (type === CHUNK.BLOCK_STATUS) status = body;
      if (isDone) {
        if (error === 0 && read !== undefined) assert.equal(covered, data.length);
        return { cookie, error, simple: false, data: status ?? data, chunks };
      }
      const next = await this.read(4);
      assert.equal(next.readUInt32BE(0), CHUNK_MAGIC);
    }
  }
}
