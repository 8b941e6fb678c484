/**
 * A disk in memory that can lose power, fail and rot, and a buffer pool for it. No root, no files,
 * no time.
 *
 * MemoryDisk is the medium; it outlives the MemoryDevice that has it open. What a write left is
 * visible at once and durable after a flush that started after the write had resolved (D1). At a
 * power cut each un-flushed write is kept, lost or torn by seed. A flush that fails loses some of
 * what it covered for good, even if a later one succeeds (D3).
 */
import assert from 'node:assert';
import type { AlignedBuffer, BlockDevice, BufferPool } from '../../common/block-device.js';
import { type ErrnoName, type ErrorCode, StorageError } from '../../common/errors.js';
import { MIB, roundDown, roundUp, SECTOR_SIZE } from '../../common/units.js';

export type MemoryOp = 'read' | 'write' | 'flush' | 'discard' | 'zeroes';

/** What became of the un-flushed writes: all there, all gone, each there or gone, or cut at any
 *  512-byte sector. */
export type Fate = 'kept' | 'dropped' | 'subset' | 'torn';

export interface Fault {
  readonly op: MemoryOp | 'any';
  readonly errno: ErrnoName;
  /** matching operations that pass first; default 0 */
  readonly skip?: number;
  /** operations that fail; default 1 */
  readonly count?: number;
  /** only operations that touch this range */
  readonly range?: { readonly offsetBytes: number; readonly lengthBytes: number };
}

interface ArmedFault {
  readonly fault: Fault;
  skip: number;
  left: number;
}

/** Bytes that are visible but may not be durable. */
interface Unflushed {
  readonly offsetBytes: number;
  readonly bytes: Buffer;
}

export interface OperationRecord {
  readonly op: MemoryOp;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

export interface MemoryDiskOptions {
  readonly sizeBytes: number;
  readonly sectorSize?: 512 | 4096;
  /** decides what becomes of failed and un-flushed writes; default 1 */
  readonly seed?: number;
  /** when an operation is answered; default: in a later turn of the event loop, in order of arrival
   *  */
  readonly answerAfter?: (record: OperationRecord) => Promise<void>;
  /** called as each operation starts */
  readonly onOperation?: (record: OperationRecord) => void;
}

export class MemoryDisk {
  readonly sizeBytes: number;
  readonly sectorSize: number;
  readonly onOperation: ((record: OperationRecord) => void) | undefined;
  readonly answerAfter: (record: OperationRecord) => Promise<void>;
  /** Operations started, of all kinds: the N of a fault loop. */
  operations = 0;
  readonly #visible: Buffer;
  readonly #durable: Buffer;
  readonly #random: () => number;
  #unflushed: Unflushed[] = [];
  /** started and not answered: may be there, in part or not at all, when the process or the power
   *  goes */
  readonly #started = new Set<Unflushed>();
  #faults: ArmedFault[] = [];
  #device: MemoryDevice | undefined;

  constructor(options: MemoryDiskOptions) {
    this.sectorSize = options.sectorSize ?? 4096;
    this.sizeBytes = roundDown(options.sizeBytes, this.sectorSize);
    this.onOperation = options.onOperation;
    this.answerAfter = options.answerAfter ?? laterTurn;
    this.#random = seededRandom(options.seed ?? 1);
    this.#visible = Buffer.alloc(this.sizeBytes);
    this.#durable = Buffer.alloc(this.sizeBytes);
  }

  /** @throws StorageError DISK_LOCKED while another device has it open */
  open(path = 'memory'): MemoryDevice {
    if (this.#device !== undefined && !this.#device.closed) {
      throw new StorageError('DISK_LOCKED', `${path} is open`);
    }
    this.#device = new MemoryDevice(this, path);
    return this.#device;
  }

  get unflushedWrites(): number {
    return this.#unflushed.length;
  }

  /** The bytes that a read would give now. */
  peek(offsetBytes: number, lengthBytes: number): Buffer {
    return Buffer.from(this.#visible.subarray(offsetBytes, offsetBytes + lengthBytes));
  }

  /** Writes past the device, durably: what a repair tool, or a bit flip, does. */
  poke(offsetBytes: number, bytes: Buffer): void {
    bytes.copy(this.#visible, offsetBytes);
    bytes.copy(this.#durable, offsetBytes);
  }

  /** Flips one bit, in the durable bytes too. */
  rot(offsetBytes: number, bit = 0): void {
    const byte = this.#visible[offsetBytes];
    assert(byte !== undefined);
    this.poke(offsetBytes, Buffer.from([byte ^ (1 << bit)]));
  }

  /** Arms a fault. @returns disarms it */
  inject(fault: Fault): () => void {
    const armed = { fault, skip: fault.skip ?? 0, left: fault.count ?? 1 };
    this.#faults.push(armed);
    return () => {
      this.#faults = this.#faults.filter((other) => other !== armed);
    };
  }

  /** The process that had it open died; the machine lives. What was written stays visible; writes
   *  in flight may have happened or not. */
  kill(): void {
    this.#device?.die();
    this.#device = undefined;
    for (const write of this.#started) {
      if (this.#random() < 0.5) this.apply(write.offsetBytes, write.bytes);
    }
    this.#started.clear();
  }

  /** The machine lost power. Writes in flight share the fate of the un-flushed. */
  powerCut(fate: Fate = 'torn'): void {
    this.#device?.die();
    this.#device = undefined;
    for (const write of [...this.#unflushed, ...this.#started]) this.#settle(write, fate);
    this.#started.clear();
    this.#unflushed = [];
    this.#durable.copy(this.#visible);
  }

  // The rest is for MemoryDevice.

  takeFault(record: OperationRecord): ErrnoName | undefined {
    for (const armed of this.#faults) {
      if (!matches(armed.fault, record)) continue;
      if (armed.skip > 0) {
        armed.skip -= 1;
        continue;
      }
      armed.left -= 1;
      if (armed.left === 0) this.#faults = this.#faults.filter((other) => other !== armed);
      return armed.fault.errno;
    }
    return undefined;
  }

  readInto(offsetBytes: number, view: Buffer): void {
    this.#visible.copy(view, 0, offsetBytes, offsetBytes + view.length);
  }

  begin(offsetBytes: number, bytes: Buffer): () => void {
    const write = { offsetBytes, bytes };
    this.#started.add(write);
    return () => this.#started.delete(write);
  }

  apply(offsetBytes: number, bytes: Buffer): void {
    bytes.copy(this.#visible, offsetBytes);
    this.#unflushed.push({ offsetBytes, bytes });
  }

  /** A failed write: any subset of its sectors is there. */
  applyPart(offsetBytes: number, bytes: Buffer): void {
    for (const part of sectorsOf({ offsetBytes, bytes })) {
      if (this.#random() < 0.5) this.apply(part.offsetBytes, part.bytes);
    }
  }

  /** What a flush that starts now covers. */
  covered(): ReadonlySet<Unflushed> {
    return new Set(this.#unflushed);
  }

  finishFlush(covered: ReadonlySet<Unflushed>, failed: boolean): void {
    for (const write of this.#unflushed) {
      // Lost ones stay visible, as a page cache shows what the disk does not have.
      if (covered.has(write)) this.#settle(write, failed ? 'subset' : 'kept');
    }
    this.#unflushed = this.#unflushed.filter((write) => !covered.has(write));
  }

  #settle(write: Unflushed, fate: Fate): void {
    if (fate === 'dropped' || (fate === 'subset' && this.#random() < 0.5)) return;
    const parts = fate === 'torn' ? sectorsOf(write) : [write];
    for (const part of parts) {
      if (fate === 'torn' && this.#random() < 0.5) continue;
      part.bytes.copy(this.#durable, part.offsetBytes);
    }
  }
}

interface Effect {
  /** of a write: what a crash may leave of it */
  readonly bytes?: Buffer;
  act(): void;
  /** what an injected error leaves behind */
  fail?(error: StorageError): void;
}

/** One open of a MemoryDisk. Asserts what the contract asks of callers: alignment, and that a
 *  borrowed buffer is left alone while a write is in flight. */
export class MemoryDevice implements BlockDevice {
  readonly kind = 'memory';
  readonly sizeBytes: number;
  readonly sectorSize: number;
  #closed = false;
  #dead = false;
  #flushError: StorageError | undefined;
  #inFlight = 0;

  constructor(
    readonly disk: MemoryDisk,
    readonly path: string,
  ) {
    this.sizeBytes = disk.sizeBytes;
    this.sectorSize = disk.sectorSize;
  }

  get closed(): boolean {
    return this.#closed || this.#dead;
  }

  async read(offsetBytes: number, view: Buffer): Promise<void> {
    this.#checkView(view);
    view.fill(0xa5); // nobody may look before the answer
    const record: OperationRecord = { op: 'read', offsetBytes, lengthBytes: view.length };
    await this.#run(record, { act: () => this.disk.readInto(offsetBytes, view) });
  }

  async write(offsetBytes: number, view: Buffer): Promise<void> {
    this.#checkView(view);
    const bytes = Buffer.from(view);
    const record: OperationRecord = { op: 'write', offsetBytes, lengthBytes: view.length };
    await this.#run(record, {
      bytes,
      act: () => {
        assert(bytes.equals(view), 'the buffer of a write was changed before it had resolved');
        this.disk.apply(offsetBytes, bytes);
      },
      fail: () => this.disk.applyPart(offsetBytes, bytes),
    });
  }

  async flush(): Promise<void> {
    if (this.#flushError !== undefined) throw this.#flushError;
    const covered = this.disk.covered();
    const record: OperationRecord = { op: 'flush', offsetBytes: 0, lengthBytes: 0 };
    await this.#run(record, {
      act: () => this.disk.finishFlush(covered, false),
      fail: (error) => {
        this.#flushError ??= error;
        this.disk.finishFlush(covered, true);
      },
    });
  }

  async discard(offsetBytes: number, lengthBytes: number): Promise<void> {
    // Undefined afterwards; bytes that nobody wrote make sure that nobody relies on zeroes.
    await this.#overwrite({ op: 'discard', offsetBytes, lengthBytes }, 0xdc);
  }

  async writeZeroes(offsetBytes: number, lengthBytes: number): Promise<void> {
    await this.#overwrite({ op: 'zeroes', offsetBytes, lengthBytes }, 0);
  }

  async close(): Promise<void> {
    this.#closed = true;
    while (this.#inFlight > 0 && !this.#dead) await laterTurn();
    await laterTurn(); // the last caller hears of its operation first
  }

  /** For MemoryDisk: what is in flight is rejected with CLOSED and has no effect any more. */
  die(): void {
    this.#dead = true;
  }

  async #overwrite(record: OperationRecord, fill: number): Promise<void> {
    const { offsetBytes, lengthBytes } = record;
    const act = (): void => {
      for (let at = 0; at < lengthBytes; at += MIB) {
        this.disk.apply(offsetBytes + at, Buffer.alloc(Math.min(MIB, lengthBytes - at), fill));
      }
    };
    await this.#run(record, { act });
  }

  async #run(record: OperationRecord, effect: Effect): Promise<void> {
    const refusal = this.#refusal(record);
    if (refusal !== undefined) throw refusal;
    this.disk.operations += 1;
    this.disk.onOperation?.(record);
    const errno = this.disk.takeFault(record);
    const ended =
      effect.bytes === undefined ? undefined : this.disk.begin(record.offsetBytes, effect.bytes);
    this.#inFlight += 1;
    try {
      await this.disk.answerAfter(record);
      if (this.#dead) throw this.#closedError();
      ended?.();
      if (errno === undefined) return effect.act();
      const error = this.#injected(record, errno);
      effect.fail?.(error);
      throw error;
    } finally {
      this.#inFlight -= 1;
    }
  }

  #refusal(record: OperationRecord): StorageError | undefined {
    const { op, offsetBytes, lengthBytes } = record;
    for (const value of [offsetBytes, lengthBytes]) {
      assert(Number.isSafeInteger(value) && value >= 0, `${op}: ${value}`);
      assert(value % this.sectorSize === 0, `${op}: ${value} is not whole sectors`);
    }
    if (this.closed) return this.#closedError();
    if (lengthBytes <= this.sizeBytes - offsetBytes) return undefined;
    const range = `[${offsetBytes}, ${offsetBytes + lengthBytes})`;
    return new StorageError('OUT_OF_RANGE', `${op} ${range} ends past ${this.sizeBytes}`);
  }

  #injected(record: OperationRecord, errno: ErrnoName): StorageError {
    const code: ErrorCode = errno === 'ENOSPC' ? 'NO_SPACE' : 'IO_ERROR';
    const { op, offsetBytes, lengthBytes } = record;
    const details = { errno, offsetBytes, lengthBytes, disk: this.path };
    return new StorageError(code, `${op} at ${offsetBytes} of ${this.path}: ${errno}`, details);
  }

  #closedError(): StorageError {
    return new StorageError('CLOSED', `${this.path} is closed`);
  }

  #checkView(view: Buffer): void {
    assert(view.byteOffset % this.sectorSize === 0, 'view is not aligned to the sector size');
  }
}

/** Buffers of the heap at aligned offsets. Each is new memory, poisoned at its release, so a use
 *  after it shows. */
export class MemoryBufferPool implements BufferPool {
  usedBytes = 0;

  constructor(readonly limitBytes = 256 * MIB) {}

  acquire(lengthBytes: number): AlignedBuffer {
    assert(Number.isSafeInteger(lengthBytes) && lengthBytes > 0 && lengthBytes <= 4 * MIB);
    if (this.usedBytes + lengthBytes > this.limitBytes) {
      throw new StorageError('OVERLOADED', `${this.usedBytes} of ${this.limitBytes} used`);
    }
    this.usedBytes += lengthBytes;
    const memory = new ArrayBuffer(roundUp(lengthBytes, 4096));
    const bytes = Buffer.from(memory, 0, lengthBytes);
    bytes.fill(0xee); // "contents are undefined"
    let released = false;
    return {
      bytes,
      release: () => {
        assert(!released, 'second release of a buffer');
        released = true;
        this.usedBytes -= lengthBytes;
        bytes.fill(0xdb);
      },
    };
  }
}

/** Numbers in [0, 1) that a seed repeats (mulberry32). */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function laterTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

function matches(fault: Fault, record: OperationRecord): boolean {
  if (fault.op !== 'any' && fault.op !== record.op) return false;
  if (fault.range === undefined) return true;
  const { offsetBytes, lengthBytes } = fault.range;
  const end = record.offsetBytes + record.lengthBytes;
  return record.offsetBytes < offsetBytes + lengthBytes && end > offsetBytes;
}

function sectorsOf(write: Unflushed): Unflushed[] {
  const parts: Unflushed[] = [];
  for (let at = 0; at < write.bytes.length; at += SECTOR_SIZE) {
    const bytes = write.bytes.subarray(at, at + SECTOR_SIZE);
    parts.push({ offsetBytes: write.offsetBytes + at, bytes });
  }
  return parts;
}
