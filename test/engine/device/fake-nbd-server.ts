/** An NBD server in memory whose answers a test decides, request by request. */
import { createServer, type Server, type Socket } from 'node:net';

export interface SeenRequest {
  readonly connection: number;
  readonly type: number;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
  readonly payload: Buffer;
  /** answers the request; READ carries the disk's bytes unless errno is given */
  reply(errno?: number): void;
  /** does to the disk what the request asks for, without an answer */
  apply(): void;
}

export interface FakeNbdOptions {
  readonly path: string;
  readonly sizeBytes: number;
  readonly description?: string;
  /** transmission flags; default: flush, trim, write zeroes, multi-conn */
  readonly flags?: number;
  /** bytes per piece that replies are cut into; default: not cut */
  readonly pieceBytes?: number;
  /** default: apply and reply */
  readonly onRequest?: (request: SeenRequest) => void;
}

export const READ = 0;
export const WRITE = 1;
export const DISC = 2;
export const FLUSH = 3;
export const TRIM = 4;
export const WRITE_ZEROES = 6;

export class FakeNbdServer {
  readonly seen: SeenRequest[] = [];
  readonly #server: Server;
  readonly #sockets = new Map<Socket, number>();
  connections = 0;
  disconnects = 0;
  onRequest: (request: SeenRequest) => void;
  exportName = '';

  static async listen(options: FakeNbdOptions, disk: Buffer = Buffer.alloc(options.sizeBytes)) {
    const server = new FakeNbdServer(options, disk);
    await new Promise<void>((resolve) => server.#server.listen(options.path, resolve));
    return server;
  }

  private constructor(
    readonly options: FakeNbdOptions,
    readonly disk: Buffer,
  ) {
    this.onRequest = options.onRequest ?? ((request) => request.reply());
    this.#server = createServer((socket) => this.#serve(socket));
  }

  /** Ends as a killed process does: all connections break, nobody listens. */
  async kill(): Promise<void> {
    this.breakConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  breakConnections(): void {
    for (const socket of this.#sockets.keys()) socket.destroy();
  }

  breakOne(connection: number): void {
    for (const [socket, number] of this.#sockets) if (number === connection) socket.destroy();
  }

  /** Sends bytes that are no reply, on every connection. */
  sendGarbage(): void {
    for (const socket of this.#sockets.keys()) socket.write(Buffer.alloc(64, 0x55));
  }

  count(type: number): number {
    return this.seen.filter((request) => request.type === type).length;
  }

  #serve(socket: Socket): void {
    this.connections += 1;
    const connection = this.connections;
    this.#sockets.set(socket, connection);
    socket.on('close', () => this.#sockets.delete(socket));
    socket.on('error', () => undefined);
    let input = Buffer.alloc(0);
    let phase: 'flags' | 'options' | 'transmission' = 'flags';
    const greeting = Buffer.alloc(18);
    greeting.write('NBDMAGICIHAVEOPT', 0, 'latin1');
    greeting.writeUInt16BE(3, 16);
    socket.write(greeting);
    socket.on('data', (bytes) => {
      input = Buffer.concat([input, bytes]);
      for (;;) {
        if (phase === 'flags') {
          if (input.length < 4) return;
          input = input.subarray(4);
          phase = 'options';
        } else if (phase === 'options') {
          if (input.length < 16) return;
          const option = input.readUInt32BE(8);
          const length = input.readUInt32BE(12);
          if (input.length < 16 + length) return;
          const data = input.subarray(16, 16 + length);
          input = input.subarray(16 + length);
          if (option === 2) return void socket.end();
          this.exportName = data.subarray(4, 4 + data.readUInt32BE(0)).toString();
          this.#describe(socket, option);
          if (option === 7) phase = 'transmission';
        } else {
          if (input.length < 28) return;
          const type = input.readUInt16BE(6);
          const length = input.readUInt32BE(24);
          const total = 28 + (type === WRITE ? length : 0);
          if (input.length < total) return;
          this.#request(socket, connection, Buffer.from(input.subarray(0, total)));
          input = input.subarray(total);
        }
      }
    });
  }

  #describe(socket: Socket, option: number): void {
    const info = Buffer.alloc(12);
    info.writeBigUInt64BE(BigInt(this.options.sizeBytes), 2);
    info.writeUInt16BE(this.options.flags ?? 0b1_0110_0101, 10);
    this.#optionReply(socket, option, { type: 3, data: info });
    const { description } = this.options;
    if (description !== undefined) {
      const data = Buffer.concat([Buffer.from([0, 2]), Buffer.from(description)]);
      this.#optionReply(socket, option, { type: 3, data });
    }
    this.#optionReply(socket, option, { type: 1, data: Buffer.alloc(0) });
  }

  #optionReply(socket: Socket, option: number, reply: { type: number; data: Buffer }): void {
    const header = Buffer.alloc(20);
    header.writeBigUInt64BE(0x3e889045565a9n, 0);
    header.writeUInt32BE(option, 8);
    header.writeUInt32BE(reply.type, 12);
    header.writeUInt32BE(reply.data.length, 16);
    this.#write(socket, Buffer.concat([header, reply.data]));
  }

  #request(socket: Socket, connection: number, bytes: Buffer): void {
    const type = bytes.readUInt16BE(6);
    if (type === DISC) {
      this.disconnects += 1;
      socket.end();
      return;
    }
    const offset = Number(bytes.readBigUInt64BE(16));
    const length = bytes.readUInt32BE(24);
    const payload = bytes.subarray(28);
    const apply = (): void => {
      if (type === WRITE) payload.copy(this.disk, offset);
      if (type === TRIM || type === WRITE_ZEROES) this.disk.fill(0, offset, offset + length);
    };
    const reply = (errno = 0): void => {
      if (errno === 0) apply();
      const header = Buffer.alloc(16);
      header.writeUInt32BE(0x67446698, 0);
      header.writeUInt32BE(errno, 4);
      bytes.copy(header, 8, 8, 16);
      const data = this.disk.subarray(offset, offset + length);
      const withData = type === READ && errno === 0;
      this.#write(socket, withData ? Buffer.concat([header, data]) : header);
    };
    const flags = bytes.readUInt16BE(4);
    const request = { connection, type, flags, offset, length, payload, reply, apply };
    this.seen.push(request);
    this.onRequest(request);
  }

  #write(socket: Socket, bytes: Buffer): void {
    const pieceBytes = this.options.pieceBytes;
    if (pieceBytes === undefined) {
      socket.write(bytes);
      return;
    }
    for (let at = 0; at < bytes.length; at += pieceBytes) {
      socket.write(bytes.subarray(at, at + pieceBytes));
    }
  }
}
