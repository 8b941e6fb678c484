/** A peer that writes frames by hand, as wrong as the test wants, and reads what comes back. */
import net from 'node:net';
import {
  FLAG,
  FRAME,
  frame,
  PREFACE,
  SETTING,
  settingsFrame,
} from '../../../proto/transport/frame.js';
import { decodeHeaders, encodeHeaders, type HeaderList } from '../../../proto/transport/hpack.js';
import { later } from './harness.js';

export interface SeenFrame {
  readonly type: number;
  readonly flags: number;
  readonly streamId: number;
  readonly payload: Buffer;
}

export const MARK = settingsFrame([[SETTING.AUROCHS, 1]]);
export const REQUEST: HeaderList = [
  [':method', 'POST'],
  [':scheme', 'http'],
  [':path', '/aurochs.v1.ReplicaData/Io'],
  ['te', 'trailers'],
  ['content-type', 'application/grpc'],
];

export function headers(list: HeaderList, flags = 0, streamId = 1): Buffer {
  return frame(FRAME.HEADERS, encodeHeaders(list), { flags: FLAG.END_HEADERS | flags, streamId });
}

/** A whole gRPC message in one DATA frame. */
export function data(body: Buffer, flags = 0): Buffer {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(body.length, 1);
  return frame(FRAME.DATA, Buffer.concat([prefix, body]), { flags, streamId: 1 });
}

export class RawPeer {
  readonly frames: SeenFrame[] = [];
  closed = false;
  #bytes = Buffer.alloc(0);
  #wakes: Array<() => void> = [];

  constructor(
    readonly socket: net.Socket,
    prefaceBytes = 0,
  ) {
    let skip = prefaceBytes;
    later(() => {
      socket.destroy();
    });
    socket.on('error', () => undefined);
    socket.on('data', (chunk) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk]);
      if (this.#bytes.length < skip) return;
      this.#bytes = this.#bytes.subarray(skip);
      skip = 0;
      this.#parse();
    });
    socket.on('close', () => {
      this.closed = true;
      this.#wake();
    });
  }

  static async connect(address: string): Promise<RawPeer> {
    const port = Number(address.split(':')[1]);
    const socket = net.connect({ port, host: '127.0.0.1' });
    await new Promise<void>((resolve) => socket.once('connect', () => resolve()));
    return new RawPeer(socket);
  }

  /** Connected, marked, with the stream open. */
  static async open(address: string): Promise<RawPeer> {
    const peer = await RawPeer.connect(address);
    peer.write(PREFACE, MARK, headers(REQUEST));
    return peer;
  }

  write(...pieces: Buffer[]): void {
    this.socket.write(Buffer.concat(pieces));
  }

  async until(condition: (frames: readonly SeenFrame[]) => boolean): Promise<void> {
    while (!condition(this.frames)) {
      if (this.closed) throw new Error('connection closed while waiting for frames');
      await new Promise<void>((resolve) => this.#wakes.push(resolve));
    }
  }

  async untilClosed(): Promise<void> {
    while (!this.closed) await new Promise<void>((resolve) => this.#wakes.push(resolve));
  }

  of(type: number): SeenFrame[] {
    return this.frames.filter((seen) => seen.type === type);
  }

  /** Error code of the GOAWAY that ends the connection. */
  async goaway(): Promise<number | undefined> {
    await this.until((frames) => frames.some((seen) => seen.type === FRAME.GOAWAY));
    return this.of(FRAME.GOAWAY)[0]?.payload.readUInt32BE(4);
  }

  /** Headers of the last HEADERS frame that ended the stream. */
  async trailers(): Promise<Map<string, string>> {
    const isLast = (seen: SeenFrame): boolean =>
      seen.type === FRAME.HEADERS && (seen.flags & FLAG.END_STREAM) !== 0;
    await this.until((frames) => frames.some(isLast));
    const found = this.frames.find(isLast);
    return new Map(decodeHeaders(found?.payload ?? Buffer.alloc(0)));
  }

  #parse(): void {
    while (this.#bytes.length >= 9) {
      const length = this.#bytes.readUIntBE(0, 3);
      if (this.#bytes.length < 9 + length) break;
      this.frames.push({
        type: this.#bytes[3] as number,
        flags: this.#bytes[4] as number,
        streamId: this.#bytes.readUInt32BE(5),
        payload: Buffer.from(this.#bytes.subarray(9, 9 + length)),
      });
      this.#bytes = this.#bytes.subarray(9 + length);
    }
    this.#wake();
  }

  #wake(): void {
    for (const wake of this.#wakes.splice(0)) wake();
  }
}
