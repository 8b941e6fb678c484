/**
 * The attached volume: what frontends call, made of range lock, fan-out and read path (design
 * section 4).
 *
 * Life of a write: admission -> exclusive range lock -> edges that are not whole blocks are read
 * and merged -> pieces of at most one extent -> fan-out -> all members -> unlock. A read holds the
 * same lock shared.
 */
import type { Clock } from '../../common/clock.js';
import { StorageError } from '../../common/errors.js';
import { Gate } from '../../common/gate.js';
import { Semaphore } from '../../common/semaphore.js';
import { BLOCK_SIZE, MIB, REQUEST_BYTES_MAX, WIRE_IO_BYTES_MAX } from '../../common/units.js';
import { IO_FLAG, IO_OP } from '../../proto/io-codec.js';
import type { BlockVolume, ReadResult, StatusRun, WriteOptions } from '../block-volume.js';
import type { OpName } from '../engine-metrics.js';
import type { DirtyTracker } from './dirty-tracker.js';
import { coveringBlocks, innerBlocks, subpieces } from './edges.js';
import type { EqualGate } from './equal-gate.js';
import type { Fanout } from './fanout.js';
import type { MapReader } from './map-reader.js';
import type { Settled } from './pending-op.js';
import type { RangeHold, RangeLock } from './range-lock.js';
import type { ReadPath } from './read-path.js';

export interface VolumeParts {
  readonly name: string;
  readonly sizeBytes: number;
  readonly lock: RangeLock;
  readonly fanout: Fanout;
  readonly reads: ReadPath;
  readonly maps: MapReader;
  readonly tracker: DirtyTracker;
  readonly gate: EqualGate;
  readonly clock: Clock;
  /** seconds from admission to reply, by kind of operation; failed ones too */
  readonly observe: Readonly<Record<OpName, (seconds: number) => void>>;
}

/** Admission over all frontends of the volume. */
const IN_FLIGHT_BYTES_MAX = 64 * MIB;
const IN_FLIGHT_REQUESTS_MAX = 1024;
/** Trim and zeroes travel in parts so that one giant discard neither blocks a replica nor passes
 *  its deadline. */
const COMMAND_BYTES_MAX = 256 * MIB;

const NOTHING: ReadResult = { chunks: [], release: () => undefined };

/** Whole blocks inside one extent: what travels as one request and needs no merging. */
function isOnePiece(offsetBytes: number, lengthBytes: number): boolean {
  return (
    offsetBytes % BLOCK_SIZE === 0 &&
    lengthBytes % BLOCK_SIZE === 0 &&
    (offsetBytes % WIRE_IO_BYTES_MAX) + lengthBytes <= WIRE_IO_BYTES_MAX
  );
}

/** An operation between its range lock and its end. */
class HeldOperation implements Settled {
  constructor(
    readonly volume: EngineVolume,
    readonly op: OpName,
    readonly hold: RangeHold,
    readonly startedMs: number,
  ) {}

  settled(): void {
    this.volume.ended(this);
  }
}

export class EngineVolume implements BlockVolume {
  readonly name: string;
  readonly readOnly = false;
  /** when the newest client operation began */
  lastOperationMs = Number.NEGATIVE_INFINITY;
  readonly #parts: VolumeParts;
  readonly #gate: Gate;
  readonly #bytes: Semaphore;
  readonly #requests: Semaphore;
  readonly #resizeListeners = new Set<(sizeBytes: number) => void>();
  #sizeBytes: number;

  constructor(parts: VolumeParts) {
    this.name = parts.name;
    this.#parts = parts;
    this.#sizeBytes = parts.sizeBytes;
    this.#gate = new Gate(`volume ${parts.name}`);
    this.#bytes = new Semaphore('volume admission bytes', IN_FLIGHT_BYTES_MAX, 1 << 16);
    this.#requests = new Semaphore('volume admission', IN_FLIGHT_REQUESTS_MAX, 1 << 16);
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  get inFlight(): number {
    return this.#gate.holders;
  }

  /** Refuses new operations and resolves when those under way have ended. */
  close(): Promise<void> {
    return this.#gate.close();
  }

  enter(lengthBytes: number): Promise<void> | undefined {
    const bytes = Math.min(lengthBytes, IN_FLIGHT_BYTES_MAX);
    if (!this.#requests.tryAcquire(1)) return this.#enterLater(bytes);
    if (this.#bytes.tryAcquire(bytes)) return undefined;
    this.#requests.release(1);
    return this.#enterLater(bytes);
  }

  async #enterLater(bytes: number): Promise<void> {
    await this.#requests.acquire(1);
    try {
      await this.#bytes.acquire(bytes);
    } catch (error) {
      this.#requests.release(1);
      throw error;
    }
  }

  leave(lengthBytes: number): void {
    this.#bytes.release(Math.min(lengthBytes, IN_FLIGHT_BYTES_MAX));
    this.#requests.release(1);
  }

  read(offsetBytes: number, lengthBytes: number): Promise<ReadResult> {
    try {
      this.#check('read', offsetBytes, lengthBytes, REQUEST_BYTES_MAX);
      if (lengthBytes === 0) return Promise.resolve(NOTHING);
      this.#gate.enter();
    } catch (error) {
      return Promise.reject(error);
    }
    const held = this.#hold('read', offsetBytes, lengthBytes, false);
    if (this.#mayGo(held) && isOnePiece(offsetBytes, lengthBytes)) {
      return this.#parts.reads.readPiece(offsetBytes, lengthBytes, held);
    }
    return this.#readLater(offsetBytes, lengthBytes, held);
  }

  async #readLater(
    offsetBytes: number,
    lengthBytes: number,
    held: HeldOperation,
  ): Promise<ReadResult> {
    try {
      await this.#granted(held);
      return await this.#readBytes(offsetBytes, lengthBytes);
    } finally {
      held.settled();
    }
  }

  async #readBytes(offsetBytes: number, lengthBytes: number): Promise<ReadResult> {
    const whole = coveringBlocks(offsetBytes, lengthBytes);
    const result = await this.#parts.reads.read(whole.offsetBytes, whole.lengthBytes);
    if (whole.lengthBytes === lengthBytes) return result;
    const skip = offsetBytes - whole.offsetBytes;
    return { chunks: subpieces(result.chunks, skip, lengthBytes), release: () => result.release() };
  }

  write(
    offsetBytes: number,
    lengthBytes: number,
    payload: readonly Buffer[],
    options: WriteOptions,
  ): Promise<void> {
    try {
      this.#check('write', offsetBytes, lengthBytes, REQUEST_BYTES_MAX);
      if (lengthBytes === 0) return Promise.resolve();
      this.#gate.enter();
    } catch (error) {
      return Promise.reject(error);
    }
    const flags = options.fua ? IO_FLAG.FUA : 0;
    const held = this.#hold('write', offsetBytes, lengthBytes, true);
    if (this.#mayGo(held) && isOnePiece(offsetBytes, lengthBytes)) {
      this.#parts.tracker.touch(offsetBytes, lengthBytes, held.startedMs);
      return this.#parts.fanout.write(offsetBytes, lengthBytes, payload, flags, held);
    }
    return this.#writeLater(offsetBytes, lengthBytes, { payload, flags, held });
  }

  async #writeLater(
    offsetBytes: number,
    lengthBytes: number,
    work: { payload: readonly Buffer[]; flags: number; held: HeldOperation },
  ): Promise<void> {
    const { payload, flags, held } = work;
    try {
      await this.#granted(held);
      await this.#writeBytes(offsetBytes, lengthBytes, payload, flags);
    } finally {
      held.settled();
    }
  }

  /** Writes any byte range under a held lock: partial blocks at the edges are read and merged. */
  async #writeBytes(
    offsetBytes: number,
    lengthBytes: number,
    payload: readonly Buffer[],
    flags: number,
  ): Promise<void> {
    if (offsetBytes % BLOCK_SIZE === 0 && lengthBytes % BLOCK_SIZE === 0) {
      return this.#writeBlocks(offsetBytes, lengthBytes, payload, flags);
    }
    const whole = coveringBlocks(offsetBytes, lengthBytes);
    const end = offsetBytes + lengthBytes;
    const head = offsetBytes - whole.offsetBytes;
    const tail = whole.offsetBytes + whole.lengthBytes - end;
    const pieces = [
      await this.#readCopy(whole.offsetBytes, head),
      ...payload,
      await this.#readCopy(end, tail),
    ];
    await this.#writeBlocks(whole.offsetBytes, whole.lengthBytes, pieces, flags);
  }

  /** Bytes of a partial block, copied: they outlive the read. */
  async #readCopy(offsetBytes: number, lengthBytes: number): Promise<Buffer> {
    if (lengthBytes === 0) return Buffer.alloc(0);
    const result = await this.#readBytes(offsetBytes, lengthBytes);
    const copy = Buffer.concat(result.chunks);
    result.release();
    return copy;
  }

  #writeBlocks(
    offsetBytes: number,
    lengthBytes: number,
    payload: readonly Buffer[],
    flags: number,
  ): Promise<void> {
    const { fanout, tracker, clock } = this.#parts;
    tracker.touch(offsetBytes, lengthBytes, clock.nowMs());
    const first = WIRE_IO_BYTES_MAX - (offsetBytes % WIRE_IO_BYTES_MAX);
    if (lengthBytes <= first) return fanout.write(offsetBytes, lengthBytes, payload, flags);
    return this.#writePieces(offsetBytes, lengthBytes, payload, flags);
  }

  async #writePieces(
    offsetBytes: number,
    lengthBytes: number,
    payload: readonly Buffer[],
    flags: number,
  ): Promise<void> {
    const writes: Promise<void>[] = [];
    for (let done = 0; done < lengthBytes; ) {
      const at = offsetBytes + done;
      const length = Math.min(lengthBytes - done, WIRE_IO_BYTES_MAX - (at % WIRE_IO_BYTES_MAX));
      writes.push(this.#parts.fanout.write(at, length, subpieces(payload, done, length), flags));
      done += length;
    }
    await this.#all(writes);
  }

  async flush(): Promise<void> {
    const startedMs = this.#parts.clock.nowMs();
    await this.#gate.run(() => this.#parts.fanout.flush());
    this.#observe('flush', startedMs);
  }

  trim(offsetBytes: number, lengthBytes: number, options: WriteOptions): Promise<void> {
    return this.#zero(IO_OP.TRIM, 'trim', offsetBytes, lengthBytes, options.fua ? IO_FLAG.FUA : 0);
  }

  writeZeroes(
    offsetBytes: number,
    lengthBytes: number,
    options: WriteOptions & { readonly noHole: boolean },
  ): Promise<void> {
    const flags = (options.fua ? IO_FLAG.FUA : 0) | (options.noHole ? IO_FLAG.NO_HOLE : 0);
    return this.#zero(IO_OP.WRITE_ZEROES, 'write zeroes', offsetBytes, lengthBytes, flags);
  }

  /** Whole blocks by command, partial blocks at the edges by merging zeroes (N4). */
  async #zero(
    op: number,
    name: string,
    offsetBytes: number,
    lengthBytes: number,
    flags: number,
  ): Promise<void> {
    this.#check(name, offsetBytes, lengthBytes, Number.MAX_SAFE_INTEGER);
    if (lengthBytes === 0) return;
    this.#gate.enter();
    const kind = op === IO_OP.TRIM ? 'trim' : 'zero';
    const held = this.#hold(kind, offsetBytes, lengthBytes, true);
    try {
      await this.#granted(held);
      const inner = innerBlocks(offsetBytes, lengthBytes);
      if (inner.lengthBytes === 0) {
        await this.#zeroEdge(offsetBytes, lengthBytes, flags & IO_FLAG.FUA);
        return;
      }
      const end = offsetBytes + lengthBytes;
      const innerEnd = inner.offsetBytes + inner.lengthBytes;
      await this.#zeroEdge(offsetBytes, inner.offsetBytes - offsetBytes, flags & IO_FLAG.FUA);
      await this.#zeroEdge(innerEnd, end - innerEnd, flags & IO_FLAG.FUA);
      await this.#zeroBlocks(op, inner.offsetBytes, inner.lengthBytes, flags);
    } finally {
      held.settled();
    }
  }

  async #zeroEdge(offsetBytes: number, lengthBytes: number, flags: number): Promise<void> {
    if (lengthBytes === 0) return;
    await this.#writeBytes(offsetBytes, lengthBytes, [Buffer.alloc(lengthBytes)], flags);
  }

  async #zeroBlocks(
    op: number,
    offsetBytes: number,
    lengthBytes: number,
    flags: number,
  ): Promise<void> {
    const { fanout, tracker, clock } = this.#parts;
    const end = offsetBytes + lengthBytes;
    for (let at = offsetBytes; at < end; ) {
      const length = Math.min(end - at, COMMAND_BYTES_MAX - (at % COMMAND_BYTES_MAX));
      tracker.touch(at, length, clock.nowMs());
      await fanout.command({ op, flags, offsetBytes: at, lengthBytes: length, arg: 0 });
      at += length;
    }
  }

  async blockStatus(
    offsetBytes: number,
    lengthBytes: number,
    runsMax: number,
  ): Promise<StatusRun[]> {
    this.#check('block status', offsetBytes, lengthBytes, Number.MAX_SAFE_INTEGER);
    if (lengthBytes === 0) return [];
    this.#gate.enter();
    const length = Math.min(lengthBytes, COMMAND_BYTES_MAX);
    const held = this.#hold('status', offsetBytes, length, false);
    try {
      await this.#granted(held);
      return await this.#parts.maps.status(offsetBytes, length, runsMax);
    } finally {
      held.settled();
    }
  }

  onResize(listener: (sizeBytes: number) => void): () => void {
    this.#resizeListeners.add(listener);
    return () => this.#resizeListeners.delete(listener);
  }

  /** True: the range is held and equal on all members, nothing need be waited for. */
  #mayGo(held: HeldOperation): boolean {
    return held.hold.ready === undefined && !this.#parts.gate.active;
  }

  /** Resolves when the range is held, and equal on all members (P5). */
  async #granted({ hold }: HeldOperation): Promise<void> {
    if (hold.ready !== undefined) await hold.ready;
    const { gate } = this.#parts;
    if (gate.active) await gate.pending(hold.startBytes, hold.endBytes - hold.startBytes);
  }

  #observe(op: OpName, startedMs: number): void {
    this.#parts.observe[op]((this.#parts.clock.nowMs() - startedMs) / 1000);
  }

  /** Takes the range lock for an operation that has entered the gate. */
  #hold(op: OpName, offsetBytes: number, lengthBytes: number, exclusive: boolean): HeldOperation {
    const { lock, clock } = this.#parts;
    const hold = lock.lock(offsetBytes, lengthBytes, exclusive);
    const now = clock.nowMs();
    this.lastOperationMs = now;
    return new HeldOperation(this, op, hold, now);
  }

  /** For HeldOperation: the operation has ended, either way. */
  ended(held: HeldOperation): void {
    this.#parts.lock.unlock(held.hold);
    this.#gate.leave();
    this.#observe(held.op, held.startedMs);
  }

  /** Waits for every part, also after a failure: the lock is held until nothing of the operation
   *  moves (N5). */
  async #all(parts: readonly Promise<void>[]): Promise<void> {
    const outcomes = await Promise.allSettled(parts);
    const failed = outcomes.find((outcome) => outcome.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
  }

  #check(name: string, offsetBytes: number, lengthBytes: number, lengthMax: number): void {
    const end = offsetBytes + lengthBytes;
    if (!Number.isSafeInteger(end) || offsetBytes < 0 || lengthBytes < 0 || end > this.#sizeBytes) {
      throw new StorageError(
        'OUT_OF_RANGE',
        `${name} [${offsetBytes}, ${end}) of volume ${this.name} ends past ${this.#sizeBytes}`,
        { volume: this.name, offsetBytes, lengthBytes },
      );
    }
    if (lengthBytes > lengthMax) {
      const text = `${name} of ${lengthBytes} bytes is longer than ${lengthMax}`;
      throw new StorageError('LIMIT_EXCEEDED', text, { volume: this.name });
    }
  }
}
