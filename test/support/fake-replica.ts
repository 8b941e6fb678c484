/**
 * A replica in memory behind the real wire format: decodes batches, applies them, answers. Faults
 * are switched on by tests: hold answers back, refuse an operation with a code, rot a block, break
 * the stream.
 *
 * What comes on the stream is applied when it arrives, in the order in which it was sent.
 */
import { createHash } from 'node:crypto';
import { type ErrorCode, StorageError } from '../../common/errors.js';
import { BLOCK_SIZE, REGION_SIZE } from '../../common/units.js';
import {
  bitmapBytesOf,
  decodeIoBatch,
  encodeIoHelloReply,
  HASH_BYTES,
  IO_FLAG,
  IO_OP,
  type IoHello,
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
import { FakeCopy, isZero } from './fake-copy.js';

export interface SeenRequest {
  readonly op: number;
  readonly flags: number;
  readonly id: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly arg: number;
}

interface AskedRange {
  readonly id: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly raw: boolean;
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

function setBit(bitmap: Buffer, fromByte: number, block: number): void {
  const at = fromByte + (block >> 3);
  bitmap[at] = (bitmap[at] ?? 0) | (1 << (block & 7));
}

/** Who may speak to the replica: why a hello is refused. */
export type AdmitHello = (hello: IoHello) => StorageError | undefined;

export class FakeReplica {
  readonly copy: FakeCopy;
  readonly seen: SeenRequest[] = [];
  ackedThrough = 0;
  /** P7: told in the answer to a hello */
  incarnation = 'i';
  /** of the tenure whose stream is attached */
  epoch = 0;
  admit: AdmitHello = () => undefined;
  /** told before a request is applied */
  onRequest: (request: SeenRequest) => void = () => undefined;
  /** what is sent to it does not arrive, though the connection stands (scenario 25) */
  deaf = false;
  /** answers that somebody holds on to; below zero: given back twice */
  retained = 0;
  /** batches arrive and are applied, answers wait until false again */
  #held = false;
  #refusals = new Map<number, ErrorCode>();
  #outbox: Buffer[] = [];
  #stalled = false;
  #inbox: Array<() => void> = [];
  #handlers: MessageStreamHandlers | undefined;
  #encoder = new IoReplyEncoder();

  constructor(
    readonly replicaId: string,
    sizeBytes: number,
    readonly checksum: Checksum,
  ) {
    this.copy = new FakeCopy(sizeBytes);
  }

  /** so many of the next READ answers come with another bit than they were sent with */
  damagedReads = 0;

  get bytes(): Buffer {
    return this.copy.bytes;
  }

  get rotten(): Set<number> {
    return this.copy.rotten;
  }

  get attached(): boolean {
    return this.#handlers !== undefined;
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

  /** Stopped: what is sent to it arrives when it goes on (scenario 15). */
  stall(stalled: boolean): void {
    this.#stalled = stalled;
    if (!stalled) for (const receive of this.#inbox.splice(0)) receive();
  }

  /** The connection breaks: nothing more arrives on either side. */
  cut(error?: StorageError): void {
    const handlers = this.#handlers;
    this.#handlers = undefined;
    this.#outbox = [];
    const text = `replica ${this.replicaId} was cut off`;
    handlers?.onClose(error ?? new StorageError('UNAVAILABLE', text));
  }

  /** The engine is gone without a word. */
  drop(): void {
    this.#handlers = undefined;
    this.#outbox = [];
  }

  /** The newest stream is the only one: what comes on an older one is not taken any more. */
  connect(handlers: MessageStreamHandlers): MessageStream {
    this.#handlers = handlers;
    this.#outbox = [];
    return {
      peer: this.replicaId,
      queuedBytes: 0,
      send: (message) => {
        const bytes = contiguous(message);
        message.done();
        setImmediate(() => this.#receive(bytes, handlers));
        return true;
      },
      pause: () => undefined,
      resume: () => undefined,
      close: () => {
        if (this.#handlers === handlers) this.#handlers = undefined;
      },
    };
  }

  #receive(bytes: Buffer, from: MessageStreamHandlers): void {
    if (this.#handlers !== from || this.deaf) return;
    if (this.#stalled) {
      this.#inbox.push(() => this.#receive(bytes, from));
      return;
    }
    decodeIoBatch(bytes, {
      onHello: (hello) => this.#onHello(hello),
      onAckedThrough: (id) => {
        this.ackedThrough = Math.max(this.ackedThrough, id);
      },
      onRequest: (request) => this.#apply(request),
    });
    if (this.#encoder.replies > 0) this.#outbox.push(contiguous(this.#encoder.finish()));
    this.#deliver();
  }

  #onHello(hello: IoHello): void {
    const refusal = this.admit(hello);
    if (refusal !== undefined) {
      this.cut(refusal);
      return;
    }
    this.epoch = hello.epoch;
    const { incarnation } = this;
    const reply = { protocolVersion: 1, incarnation, windowBytes: 1 << 24, windowRequests: 4096 };
    this.#outbox.push(contiguous(encodeIoHelloReply(reply)));
  }

  #apply(r: IoRequestView): void {
    const { op, flags, id, offsetBytes, lengthBytes, arg } = r;
    const request = { op, flags, id, offsetBytes, lengthBytes, arg };
    this.seen.push(request);
    this.onRequest(request);
    const refusal = this.#refusals.get(op);
    if (refusal !== undefined) {
      this.#encoder.add(id, statusOf(refusal), { detail: `${this.replicaId} refuses` });
    } else if (op === IO_OP.READ || op === IO_OP.HASH || op === IO_OP.MAP) this.#ask(r);
    else {
      this.#change(r);
      this.#encoder.add(id, 0);
    }
  }

  #ask({ op, flags, id, offsetBytes, lengthBytes }: IoRequestView): void {
    const raw = (flags & IO_FLAG.RAW) !== 0;
    const range = { id, offsetBytes, lengthBytes, raw };
    if (op === IO_OP.MAP) this.#map(id, offsetBytes, lengthBytes);
    else if (op === IO_OP.HASH) this.#hash(range);
    else if ((flags & IO_FLAG.SPARSE) !== 0) this.#readSparse(range);
    else this.#read(range);
  }

  #change(r: IoRequestView): void {
    const { op, flags, offsetBytes, lengthBytes, arg } = r;
    const { copy } = this;
    if (op === IO_OP.WRITE) {
      copy.write(offsetBytes, lengthBytes, r.bytes.subarray(r.payloadStart, r.payloadEnd));
    } else if (op === IO_OP.REPLACE) this.#replace(r);
    else if (op === IO_OP.TRIM || op === IO_OP.WRITE_ZEROES) {
      copy.write(offsetBytes, lengthBytes, undefined);
    } else if (op === IO_OP.CLEAN) {
      copy.clean(offsetBytes / REGION_SIZE, { epoch: this.epoch, counter: arg });
    }
    if (op === IO_OP.FLUSH || (flags & IO_FLAG.FUA) !== 0) copy.flush();
  }

  #replace(r: IoRequestView): void {
    const blocks = r.lengthBytes / BLOCK_SIZE;
    let from = r.payloadStart;
    for (let block = 0; block < blocks; block += 1) {
      const at = r.offsetBytes + block * BLOCK_SIZE;
      const bits = r.bytes[r.checksumsStart + (block >> 3)] ?? 0;
      const present = (bits & (1 << (block & 7))) !== 0;
      const content = present ? r.bytes.subarray(from, from + BLOCK_SIZE) : undefined;
      this.copy.write(at, BLOCK_SIZE, content);
      if (present) from += BLOCK_SIZE;
    }
  }

  #read({ id, offsetBytes, lengthBytes, raw }: AskedRange): void {
    const { copy } = this;
    if (this.#failsToRead(id, copy.badBlocks(offsetBytes, lengthBytes, true), 'IO_ERROR')) return;
    const rotten = copy.badBlocks(offsetBytes, lengthBytes, raw);
    if (this.#failsToRead(id, rotten, 'CORRUPT_BLOCK')) return;
    const payload = Buffer.from(this.bytes.subarray(offsetBytes, offsetBytes + lengthBytes));
    const checksums = Buffer.alloc((lengthBytes / BLOCK_SIZE) * 4);
    this.checksum(payload, 0, lengthBytes, checksums, 0);
    if (this.damagedReads > 0) {
      this.damagedReads -= 1;
      payload.writeUInt8((payload[0] ?? 0) ^ 1, 0);
    }
    const zero = isZero(payload);
    this.#answer(id, checksums, zero ? undefined : payload);
  }

  /** A block of zeroes counts as absent. */
  #readSparse({ id, offsetBytes, lengthBytes, raw }: AskedRange): void {
    const { copy } = this;
    if (this.#failsToRead(id, copy.badBlocks(offsetBytes, lengthBytes, true), 'IO_ERROR')) return;
    const rotten = copy.badBlocks(offsetBytes, lengthBytes, raw);
    if (this.#failsToRead(id, rotten, 'CORRUPT_BLOCK')) return;
    const blocks = lengthBytes / BLOCK_SIZE;
    const bitmap = Buffer.alloc(bitmapBytesOf(blocks));
    const present: Buffer[] = [];
    for (let block = 0; block < blocks; block += 1) {
      const at = offsetBytes + block * BLOCK_SIZE;
      const bytes = this.bytes.subarray(at, at + BLOCK_SIZE);
      if (isZero(bytes)) continue;
      setBit(bitmap, 0, block);
      present.push(bytes);
    }
    const payload = Buffer.concat(present);
    const checksums = Buffer.alloc(present.length * 4);
    if (present.length > 0) this.checksum(payload, 0, payload.length, checksums, 0);
    this.#answer(id, Buffer.concat([bitmap, checksums]), payload);
  }

  #failsToRead(id: number, bad: readonly number[], code: ErrorCode): boolean {
    const [badBlock] = bad;
    if (badBlock === undefined) return false;
    this.#encoder.add(id, statusOf(code), { badBlock, detail: `block ${badBlock} is bad` });
    return true;
  }

  /** Any strong hash will do: it is only compared with those of other replicas like this. */
  #hash({ id, offsetBytes, lengthBytes, raw }: AskedRange): void {
    const blocks = lengthBytes / BLOCK_SIZE;
    const hashes: Buffer[] = [];
    for (let at = offsetBytes; at < offsetBytes + lengthBytes; at += BLOCK_SIZE) {
      const bytes = this.bytes.subarray(at, at + BLOCK_SIZE);
      hashes.push(createHash('sha256').update(bytes).digest().subarray(0, HASH_BYTES));
    }
    const bitmaps = Buffer.alloc(2 * bitmapBytesOf(blocks));
    for (const block of this.copy.badBlocks(offsetBytes, lengthBytes, raw)) {
      setBit(bitmaps, bitmapBytesOf(blocks), block);
      hashes[block] = Buffer.alloc(HASH_BYTES, 0xee);
    }
    this.#answer(id, bitmaps, Buffer.concat(hashes));
  }

  #answer(id: number, checksums: Buffer, payload: Buffer | undefined): void {
    if (!this.#encoder.fits(payload?.length ?? 0)) {
      this.#outbox.push(contiguous(this.#encoder.finish()));
    }
    this.#encoder.addRead(id, checksums, payload);
  }

  #map(id: number, offsetBytes: number, lengthBytes: number): void {
    const runs: Array<[number, number]> = [];
    for (let at = offsetBytes; at < offsetBytes + lengthBytes; at += BLOCK_SIZE) {
      const hole = isZero(this.bytes.subarray(at, at + BLOCK_SIZE)) ? 1 : 0;
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
      const retain = (): void => {
        this.retained += 1;
      };
      const release = (): void => {
        this.retained -= 1;
      };
      this.#handlers.onMessage({ bytes, aligned: false, retain, release });
    }
  }
}
