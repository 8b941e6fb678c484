/**
 * A replica in memory behind the real wire format: decodes batches, applies them, answers. Faults
 * are switched on by tests: hold answers back, refuse an operation with a code, rot a block, break
 * the stream.
 */
import { createHash } from 'node:crypto';
import { type ErrorCode, StorageError } from '../../common/errors.js';
import { BLOCK_SIZE } from '../../common/units.js';
import {
  bitmapBytesOf,
  decodeIoBatch,
  encodeIoHelloReply,
  HASH_BYTES,
  IO_FLAG,
  IO_OP,
  IoReplyEncoder,
  type IoRequestView,
} from '../../proto/io-codec.js';
import {
  MESSAGE_HEADROOM,
  type MessageStream,
  type MessageStreamHandlers,
  type OutgoingMessage,
} from '../../proto/message-stream.js';
import { statusOf } from '../../proto/status.js';

export interface SeenRequest {
  readonly op: number;
  readonly flags: number;
  readonly id: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

export type Checksum = (
  bytes: Buffer,
  from: number,
  length: number,
  out: Buffer,
  at: number,
) => void;

const contiguous = (message: OutgoingMessage): Buffer =>
  Buffer.concat([message.head.subarray(MESSAGE_HEADROOM), ...message.tail]);

export class FakeReplica {
  readonly bytes: Buffer;
  readonly seen: SeenRequest[] = [];
  ackedThrough = 0;
  /** batches arrive and are applied, answers wait until false again */
  #held = false;
  #refusals = new Map<number, ErrorCode>();
  readonly rotten = new Set<number>();
  #outbox: Buffer[] = [];
  #handlers: MessageStreamHandlers | undefined;
  #encoder = new IoReplyEncoder();

  constructor(
    readonly replicaId: string,
    sizeBytes: number,
    readonly checksum: Checksum,
  ) {
    this.bytes = Buffer.alloc(sizeBytes);
  }

  /** Every later request of this kind is answered with the code; undefined: served again. */
  refuse(op: number, code: ErrorCode | undefined): void {
    if (code === undefined) this.#refusals.delete(op);
    else this.#refusals.set(op, code);
  }

  hold(held: boolean): void {
    this.#held = held;
    if (!held) this.#deliver();
  }

  /** The connection breaks: nothing more arrives on either side. */
  cut(): void {
    const handlers = this.#handlers;
    this.#handlers = undefined;
    this.#outbox = [];
    handlers?.onClose(new StorageError('UNAVAILABLE', `replica ${this.replicaId} was cut off`));
  }

  connect(handlers: MessageStreamHandlers): MessageStream {
    this.#handlers = handlers;
    return {
      peer: this.replicaId,
      queuedBytes: 0,
      send: (message) => {
        const bytes = contiguous(message);
        message.done();
        setImmediate(() => this.#receive(bytes));
        return true;
      },
      pause: () => undefined,
      resume: () => undefined,
      close: () => {
        this.#handlers = undefined;
      },
    };
  }

  #receive(bytes: Buffer): void {
    if (this.#handlers === undefined) return;
    decodeIoBatch(bytes, {
      onHello: () => {
        const hello = { protocolVersion: 1, incarnation: 'i', windowBytes: 1 << 24 };
        this.#outbox.push(contiguous(encodeIoHelloReply({ ...hello, windowRequests: 4096 })));
      },
      onAckedThrough: (id) => {
        this.ackedThrough = Math.max(this.ackedThrough, id);
      },
      onRequest: (request) => this.#apply(request),
    });
    if (this.#encoder.replies > 0) this.#outbox.push(contiguous(this.#encoder.finish()));
    this.#deliver();
  }

  #apply(r: IoRequestView): void {
    const { op, flags, id, offsetBytes, lengthBytes } = r;
    this.seen.push({ op, flags, id, offsetBytes, lengthBytes });
    const refusal = this.#refusals.get(op);
    if (refusal !== undefined) {
      this.#encoder.add(id, statusOf(refusal), { detail: `${this.replicaId} refuses` });
      return;
    }
    const end = offsetBytes + lengthBytes;
    if (op === IO_OP.READ && (flags & IO_FLAG.SPARSE) !== 0) {
      this.#readSparse(id, offsetBytes, lengthBytes);
    } else if (op === IO_OP.READ) {
      this.#read(id, offsetBytes, lengthBytes, (flags & IO_FLAG.RAW) !== 0);
    } else if (op === IO_OP.HASH) this.#hash(id, offsetBytes, lengthBytes);
    else {
      if (op === IO_OP.WRITE) r.bytes.copy(this.bytes, offsetBytes, r.payloadStart, r.payloadEnd);
      if (op === IO_OP.REPLACE) this.#replace(r);
      if (op === IO_OP.TRIM || op === IO_OP.WRITE_ZEROES) this.bytes.fill(0, offsetBytes, end);
      if (op === IO_OP.MAP) this.#map(id, offsetBytes, lengthBytes);
      else this.#encoder.add(id, 0);
    }
  }

  #read(id: number, offsetBytes: number, lengthBytes: number, raw: boolean): void {
    const payload = Buffer.from(this.bytes.subarray(offsetBytes, offsetBytes + lengthBytes));
    const checksums = Buffer.alloc((lengthBytes / BLOCK_SIZE) * 4);
    this.checksum(payload, 0, lengthBytes, checksums, 0);
    for (const offset of raw ? [] : this.rotten) {
      const at = offset - offsetBytes;
      if (at >= 0 && at < lengthBytes) payload.writeUInt8((payload[at] ?? 0) ^ 1, at);
    }
    if (!this.#encoder.fits(lengthBytes)) this.#outbox.push(contiguous(this.#encoder.finish()));
    const zero = payload.every((byte) => byte === 0);
    this.#encoder.addRead(id, checksums, zero ? undefined : payload);
  }

  /** A block of zeroes counts as absent. */
  #readSparse(id: number, offsetBytes: number, lengthBytes: number): void {
    const blocks = lengthBytes / BLOCK_SIZE;
    const bitmap = Buffer.alloc(bitmapBytesOf(blocks));
    const present: Buffer[] = [];
    for (let block = 0; block < blocks; block += 1) {
      const at = offsetBytes + block * BLOCK_SIZE;
      const bytes = this.bytes.subarray(at, at + BLOCK_SIZE);
      if (bytes.every((byte) => byte === 0)) continue;
      bitmap[block >> 3] = (bitmap[block >> 3] ?? 0) | (1 << (block & 7));
      present.push(bytes);
    }
    const payload = Buffer.concat(present);
    const checksums = Buffer.alloc(present.length * 4);
    if (present.length > 0) this.checksum(payload, 0, payload.length, checksums, 0);
    if (!this.#encoder.fits(lengthBytes)) this.#outbox.push(contiguous(this.#encoder.finish()));
    this.#encoder.addRead(id, Buffer.concat([bitmap, checksums]), payload);
  }

  #replace(r: IoRequestView): void {
    const blocks = r.lengthBytes / BLOCK_SIZE;
    let from = r.payloadStart;
    for (let block = 0; block < blocks; block += 1) {
      const at = r.offsetBytes + block * BLOCK_SIZE;
      const bits = r.bytes[r.checksumsStart + (block >> 3)] ?? 0;
      if ((bits & (1 << (block & 7))) === 0) this.bytes.fill(0, at, at + BLOCK_SIZE);
      else {
        r.bytes.copy(this.bytes, at, from, from + BLOCK_SIZE);
        from += BLOCK_SIZE;
      }
    }
  }

  /** Any strong hash will do: it is only compared with those of other replicas like this. */
  #hash(id: number, offsetBytes: number, lengthBytes: number): void {
    const blocks = lengthBytes / BLOCK_SIZE;
    const hashes: Buffer[] = [];
    for (let at = offsetBytes; at < offsetBytes + lengthBytes; at += BLOCK_SIZE) {
      const sum = createHash('sha256')
        .update(this.bytes.subarray(at, at + BLOCK_SIZE))
        .digest();
      hashes.push(sum.subarray(0, HASH_BYTES));
    }
    const bitmaps = Buffer.alloc(2 * bitmapBytesOf(blocks));
    this.#encoder.addRead(id, bitmaps, Buffer.concat(hashes));
  }

  #map(id: number, offsetBytes: number, lengthBytes: number): void {
    const runs: Array<[number, number]> = [];
    for (let at = offsetBytes; at < offsetBytes + lengthBytes; at += BLOCK_SIZE) {
      const hole = this.bytes.subarray(at, at + BLOCK_SIZE).every((b) => b === 0) ? 1 : 0;
      const last = runs[runs.length - 1];
      if (last !== undefined && last[1] === hole) last[0] += 1;
      else runs.push([1, hole]);
    }
    const payload = Buffer.alloc(runs.length * 8);
    for (const [index, [blocks, state]] of runs.entries()) {
      payload.writeUInt32LE(blocks, index * 8);
      payload.writeUInt32LE(state, index * 8 + 4);
    }
    this.#encoder.addRead(id, Buffer.alloc(0), payload);
  }

  #deliver(): void {
    while (!this.#held && this.#handlers !== undefined) {
      const bytes = this.#outbox.shift();
      if (bytes === undefined) return;
      const keep = (): void => undefined;
      this.#handlers.onMessage({ bytes, aligned: false, retain: keep, release: keep });
    }
  }
}
