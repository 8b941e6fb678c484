/**
 * One request while it runs: the call into the store, then its reply. Recycled, so that an I/O
 * makes no closures.
 *
 * Life: `admit` (fields and memory units are taken) -> `start` -> store settles -> reply handed to
 * the batcher and `context.finished` -> memory units given back (a read: when its bytes have left)
 * and `context.recycle`.
 */
import assert from 'node:assert';
import type { AlignedBuffer } from '../../common/block-device.js';
import { type StorageError, toStorageError } from '../../common/errors.js';
import { BLOCK_SIZE } from '../../common/units.js';
import { IO_FLAG, IO_OP, type IoRequestView } from '../../proto/io-codec.js';
import type { IncomingMessage } from '../../proto/message-stream.js';
import type { BlockHashes, MapRun, SparseRead, StoredRead } from '../replica-store.js';
import { takeReplacement } from './replace-payload.js';
import { checkRequest, MAP_RUNS_MAX, opName, regionOf } from './request-check.js';
import type { RequestContext } from './request-context.js';
import { takePayload } from './write-payload.js';

export class RunningRequest implements IoRequestView {
  op = 0;
  flags = 0;
  id = 0;
  offsetBytes = 0;
  lengthBytes = 0;
  arg = 0;
  checksumsStart = 0;
  checksumsEnd = 0;
  payloadStart = 0;
  payloadEnd = 0;
  bytes: Buffer = NO_BYTES;

  readonly #context: RequestContext;
  #startedMs = 0;
  /** bytes of admission held */
  #units = 0;
  #data: AlignedBuffer | undefined;
  // Bound once: handed to promises and to the reply encoder for every request this object carries.
  readonly #onRead = (read: StoredRead | SparseRead): void => this.#answerRead(read);
  readonly #onHash = (found: BlockHashes): void => this.#answerHash(found);
  readonly #onMap = (runs: MapRun[]): void => this.#answerMap(runs);
  readonly #onChanged = (): void => this.#afterChange();
  readonly #onDone = (): void => this.#succeed();
  readonly #onFailed = (error: unknown): void => this.#fail(error);
  readonly #onSent = (): void => this.#release();

  constructor(context: RequestContext) {
    this.#context = context;
  }

  /** Takes over the fields of a decoded request. */
  fill(view: IoRequestView, nowMs: number): void {
    this.op = view.op;
    this.flags = view.flags;
    this.id = view.id;
    this.offsetBytes = view.offsetBytes;
    this.lengthBytes = view.lengthBytes;
    this.arg = view.arg;
    this.checksumsStart = view.checksumsStart;
    this.checksumsEnd = view.checksumsEnd;
    this.payloadStart = view.payloadStart;
    this.payloadEnd = view.payloadEnd;
    this.#startedMs = nowMs;
  }

  get payloadBytes(): number {
    return this.payloadEnd - this.payloadStart;
  }

  /** Memory that this request will hold: admission units to take before `start`. Never more than
   *  the largest I/O. */
  get memoryBytes(): number {
    if (this.op === IO_OP.WRITE) return this.payloadBytes;
    // The blocks of a replace are spread over its range, those of a hash are read.
    const ranged =
      this.op === IO_OP.READ ||
      this.op === IO_OP.HASH ||
      (this.op === IO_OP.REPLACE && this.payloadBytes > 0);
    return ranged ? Math.min(this.lengthBytes, this.#context.readBytesMax) : 0;
  }

  /** Runs the request; `units` were taken from the context's admission and are given back by this
   *  object. */
  start(message: IncomingMessage, units: number): void {
    this.#units = units;
    try {
      checkRequest(this, this.#context.store.sizeBytes);
      this.#call(message);
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Ends without having run. */
  drop(): void {
    this.#release();
  }

  #call(message: IncomingMessage): void {
    const { store, window } = this.#context;
    const { offsetBytes, lengthBytes } = this;
    switch (this.op) {
      case IO_OP.READ:
        this.#read();
        return;
      case IO_OP.WRITE: {
        const data = takePayload(message, this, this.#context.pool);
        const sums = message.bytes.subarray(this.checksumsStart, this.checksumsEnd);
        window.note(this.id, offsetBytes, lengthBytes);
        store.write(offsetBytes, data, sums).then(this.#onChanged, this.#onFailed);
        return;
      }
      case IO_OP.REPLACE:
        this.#replace(message);
        return;
      case IO_OP.HASH:
        store.hash(offsetBytes, lengthBytes, this.#raw).then(this.#onHash, this.#onFailed);
        return;
      case IO_OP.FLUSH:
        store.flush().then(this.#onDone, this.#onFailed);
        return;
      case IO_OP.TRIM:
        window.note(this.id, offsetBytes, lengthBytes);
        store.trim(offsetBytes, lengthBytes).then(this.#onChanged, this.#onFailed);
        return;
      case IO_OP.WRITE_ZEROES: {
        const noHole = (this.flags & IO_FLAG.NO_HOLE) !== 0;
        window.note(this.id, offsetBytes, lengthBytes);
        store
          .writeZeroes(offsetBytes, lengthBytes, { noHole })
          .then(this.#onChanged, this.#onFailed);
        return;
      }
      case IO_OP.MAP:
        store.map(offsetBytes, lengthBytes, MAP_RUNS_MAX).then(this.#onMap, this.#onFailed);
        return;
      case IO_OP.CLEAN: {
        const tag = { epoch: this.#context.epoch, counter: this.arg };
        store.clean(regionOf(offsetBytes), tag).then(this.#onDone, this.#onFailed);
        return;
      }
      default:
        assert(this.op === IO_OP.PING, `op ${this.op} passed the check`);
        this.#succeed();
    }
  }

  #read(): void {
    const { store } = this.#context;
    const { offsetBytes, lengthBytes } = this;
    if ((this.flags & IO_FLAG.SPARSE) !== 0) {
      store.readSparse(offsetBytes, lengthBytes, this.#raw).then(this.#onRead, this.#onFailed);
    } else {
      store.read(offsetBytes, lengthBytes, this.#raw).then(this.#onRead, this.#onFailed);
    }
  }

  get #raw(): { readonly raw: true } | undefined {
    return (this.flags & IO_FLAG.RAW) !== 0 ? RAW : undefined;
  }

  #replace(message: IncomingMessage): void {
    const { store, window, pool } = this.#context;
    const { id, offsetBytes, lengthBytes } = this;
    const place = {
      ...{ payloadStart: this.payloadStart, payloadEnd: this.payloadEnd },
      ...{ checksumsStart: this.checksumsStart, checksumsEnd: this.checksumsEnd },
      blocks: lengthBytes / BLOCK_SIZE,
    };
    const replacement = takeReplacement(message, place, pool);
    window.note(id, offsetBytes, lengthBytes);
    store.replace(offsetBytes, lengthBytes, replacement).then(this.#onDone, this.#onFailed);
  }

  /** D2: a FUA change is answered after a flush that began after the change was done. */
  #afterChange(): void {
    if ((this.flags & IO_FLAG.FUA) !== 0) {
      this.#context.store.flush().then(this.#onDone, this.#onFailed);
    } else {
      this.#succeed();
    }
  }

  #answerRead(read: StoredRead | SparseRead): void {
    const sparse = (this.flags & IO_FLAG.SPARSE) !== 0;
    const moved = sparse ? (read.data?.bytes.length ?? 0) : this.lengthBytes;
    this.#context.metrics.moved('read', moved);
    this.#data = read.data;
    this.#finish();
    this.#context.replies.data(this.id, read.checksums, read.data?.bytes, this.#onSent);
  }

  #answerMap(runs: MapRun[]): void {
    const payload = Buffer.alloc(runs.length * 8);
    for (const [i, run] of runs.entries()) {
      payload.writeUInt32LE(run.blocks, i * 8);
      payload.writeUInt32LE(run.hole ? 1 : 0, i * 8 + 4);
    }
    this.#finish();
    this.#context.replies.data(this.id, NO_BYTES, payload, this.#onSent);
  }

  #answerHash({ bitmaps, hashes }: BlockHashes): void {
    this.#finish();
    this.#context.replies.data(this.id, bitmaps, hashes, this.#onSent);
  }

  #succeed(): void {
    if (this.payloadBytes > 0) this.#context.metrics.moved('write', this.payloadBytes);
    this.#finish();
    this.#context.replies.succeed(this.id);
    this.#release();
  }

  #fail(cause: unknown): void {
    const error = toStorageError(cause, `replica of volume ${this.#context.store.volume}`);
    this.#context.metrics.failed(opName(this.op), error.code);
    this.#context.onError(this, error);
    this.#finish();
    this.#context.replies.fail(this.id, error.code, replyError(error));
    this.#release();
  }

  #finish(): void {
    const { metrics, clock } = this.#context;
    if (this.op !== IO_OP.PING) metrics.done(opName(this.op), clock.nowMs() - this.#startedMs);
    this.#context.finished(this);
  }

  #release(): void {
    this.#data?.release();
    this.#data = undefined;
    const units = this.#units;
    this.#units = 0;
    this.#context.recycle(this, units);
  }
}

const NO_BYTES = Buffer.alloc(0);
const RAW = { raw: true } as const;

function replyError(error: StorageError): { badBlock?: number; detail: string } {
  const badBlock = error.details['badBlock'];
  if (typeof badBlock !== 'number') return { detail: error.message };
  return { badBlock, detail: error.message };
}
