/** A real client of one replica daemon: control calls and one data stream, with a promise per
 *  request. */
import { Buffer } from 'node:buffer';
import type { AlignedBuffer } from '../../../common/block-device.js';
import { SystemClock } from '../../../common/clock.js';
import { StorageError } from '../../../common/errors.js';
import { crc32cBlocks } from '../../../native/index.js';
import { ReplicaControlClient } from '../../../proto/control.js';
import {
  decodeIoReplyBatch,
  encodeIoHello,
  IO_OP,
  IoBatchEncoder,
  type IoHello,
  type IoHelloReply,
  type IoReplaceContent,
  type IoReplaceFields,
  type IoReplyView,
  type IoRequestFields,
} from '../../../proto/io-codec.js';
import type { MessageStream } from '../../../proto/message-stream.js';
import { codeOfStatus } from '../../../proto/status.js';
import { connectIo } from '../../../proto/transport.js';

export interface Answer {
  readonly payload: Buffer;
  readonly checksums: Buffer;
}

interface Pending {
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: StorageError) => void;
}

export function acquirePlain(lengthBytes: number): AlignedBuffer {
  return { bytes: Buffer.allocUnsafeSlow(lengthBytes), release: () => undefined };
}

export class IoClient {
  readonly control: ReplicaControlClient;
  helloReply: IoHelloReply | undefined;
  closed: { error: StorageError | undefined } | undefined;
  #stream: MessageStream | undefined;
  #nextId = 1;
  #scheduled = false;
  #onHello: ((reply: IoHelloReply) => void) | undefined;
  #onClosed: (() => void) | undefined;
  readonly #pending = new Map<number, Pending>();
  readonly #encoder = new IoBatchEncoder({ checksumBlocks: crc32cBlocks });

  constructor(readonly address: string) {
    this.control = new ReplicaControlClient({ address });
  }

  /** Connects and says hello. @throws StorageError with which the replica ended the stream */
  async connect(hello: Omit<IoHello, 'protocolVersion'>): Promise<IoHelloReply> {
    this.#stream = await connectIo({
      address: this.address,
      acquire: acquirePlain,
      clock: new SystemClock(),
      handlers: {
        onMessage: (message) =>
          decodeIoReplyBatch(message.bytes, {
            onHello: (reply) => this.#onHello?.(reply),
            onReply: (view) => this.#onReply(view),
          }),
        onDrain: () => undefined,
        onClose: (error) => this.#onClose(error),
      },
    });
    this.#stream.send(encodeIoHello({ protocolVersion: 1, ...hello }));
    return new Promise((resolve, reject) => {
      this.#onHello = (reply) => {
        this.helloReply = reply;
        resolve(reply);
      };
      this.#onClosed = () => reject(this.closed?.error ?? new StorageError('CLOSED', 'ended'));
      if (this.closed !== undefined) this.#onClosed();
    });
  }

  async write(offsetBytes: number, payload: Buffer, flags = 0): Promise<void> {
    await this.#request(payload.length, (id) =>
      this.#encoder.addWrite({ flags, id, offsetBytes, lengthBytes: payload.length }, [payload]),
    );
  }

  async replace(range: Omit<IoReplaceFields, 'id'>, content: IoReplaceContent): Promise<void> {
    const payloadBytes = content.payload.reduce((sum, piece) => sum + piece.length, 0);
    await this.#request(payloadBytes, (id) => this.#encoder.addReplace({ ...range, id }, content));
  }

  /** With flags; the whole answer. */
  ask(fields: Omit<IoRequestFields, 'id' | 'arg'>): Promise<Answer> {
    return this.#request(0, (id) => this.#encoder.add({ ...fields, id, arg: 0 }));
  }

  /** Zero payloads come back as an empty buffer. */
  read(offsetBytes: number, lengthBytes: number): Promise<Buffer> {
    return this.command(IO_OP.READ, offsetBytes, lengthBytes);
  }

  async command(op: number, offsetBytes = 0, lengthBytes = 0): Promise<Buffer> {
    return (await this.ask({ op, flags: 0, offsetBytes, lengthBytes })).payload;
  }

  async close(): Promise<void> {
    this.control.close();
    const stream = this.#stream;
    if (stream === undefined || this.closed !== undefined) return;
    await new Promise<void>((resolve) => {
      this.#onClosed = resolve;
      stream.close();
    });
  }

  #request(payloadBytes: number, add: (id: number) => void): Promise<Answer> {
    if (this.closed !== undefined) {
      return Promise.reject(this.closed.error ?? new StorageError('CLOSED', 'ended'));
    }
    if (!this.#encoder.fits(payloadBytes)) this.#flush();
    const id = this.#nextId++;
    add(id);
    if (!this.#scheduled) {
      this.#scheduled = true;
      queueMicrotask(() => {
        this.#scheduled = false;
        this.#flush();
      });
    }
    return new Promise((resolve, reject) => this.#pending.set(id, { resolve, reject }));
  }

  #flush(): void {
    if (this.#encoder.requests > 0) this.#stream?.send(this.#encoder.finish(0, 1));
  }

  #onReply(view: IoReplyView): void {
    const pending = this.#pending.get(view.id);
    this.#pending.delete(view.id);
    if (view.status === 0) {
      const payload = Buffer.from(view.bytes.subarray(view.payloadStart, view.payloadEnd));
      const checksums = view.bytes.subarray(view.checksumsStart, view.checksumsEnd);
      pending?.resolve({ payload, checksums: Buffer.from(checksums) });
    } else {
      pending?.reject(new StorageError(codeOfStatus(view.status) ?? 'INTERNAL', view.detail));
    }
  }

  #onClose(error: StorageError | undefined): void {
    this.closed = { error };
    const lost = error ?? new StorageError('CLOSED', 'ended');
    for (const pending of this.#pending.values()) pending.reject(lost);
    this.#pending.clear();
    this.#onClosed?.();
  }
}
