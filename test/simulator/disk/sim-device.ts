/**
 * A SimDisk as one process has it open.
 *
 * The kernel finishes an operation whether or not the process runs; the process hears of it in a
 * turn of its own. Asserts what the contract asks of callers: alignment, and that a borrowed buffer
 * is left alone while a write is in flight.
 */
import assert from 'node:assert';
import type { BlockDevice } from '../../../common/block-device.js';
import { type ErrnoName, type ErrorCode, StorageError } from '../../../common/errors.js';
import { crc32c } from '../../../native/index.js';
import type { SimProcess } from '../kernel/sim-process.js';
import type { DiskOp } from './disk-faults.js';
import { PAGE_SIZE } from './page-store.js';
import type { PageWrite, SimDisk } from './sim-disk.js';

interface Range {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

const WHOLE: Range = { offsetBytes: 0, lengthBytes: 0 };
const DISCARDED = Buffer.alloc(PAGE_SIZE, 0xdc);

export class SimDevice implements BlockDevice {
  readonly kind = 'memory';
  readonly path: string;
  readonly sizeBytes: number;
  readonly sectorSize = PAGE_SIZE;
  #closed = false;
  #flushError: StorageError | undefined;
  #inFlight = 0;
  #drained: (() => void) | undefined;

  constructor(
    readonly disk: SimDisk,
    readonly process: SimProcess,
    /** D3: a flush has failed and taken something with it */
    readonly onFlushFailed: () => void = () => undefined,
  ) {
    this.path = disk.options.name;
    this.sizeBytes = disk.options.sizeBytes;
    process.onDeath((how) => {
      if (how !== 'power') disk.kill();
    });
  }

  async read(offsetBytes: number, view: Buffer): Promise<void> {
    assert(view.byteOffset % this.sectorSize === 0, 'view is not aligned');
    view.fill(0xa5); // nobody may look before the answer
    const range = { offsetBytes, lengthBytes: view.length };
    await this.#run('read', range, this.disk.options.times.readMs, () => ({
      act: () => this.disk.read(offsetBytes / PAGE_SIZE, view),
    }));
  }

  async write(offsetBytes: number, view: Buffer): Promise<void> {
    assert(view.byteOffset % this.sectorSize === 0, 'view is not aligned');
    const bytes = Buffer.from(view);
    const sum = crc32c(bytes);
    const range = { offsetBytes, lengthBytes: view.length };
    await this.#run('write', range, this.disk.options.times.writeMs, (effect) => {
      const write = this.#pageWrite(range, bytes, effect === 'misdirected');
      this.disk.begin(write);
      return {
        act: () => {
          assert(
            !this.process.alive || crc32c(view) === sum,
            'the buffer of a write was changed before it was answered',
          );
          this.disk.finish(write, effect !== 'lost');
        },
        fail: () => this.disk.finishInPart(write),
      };
    });
  }

  async flush(): Promise<void> {
    if (this.#flushError !== undefined) throw this.#flushError;
    await this.#run('flush', WHOLE, this.disk.options.times.flushMs, () => {
      const covered = this.disk.covered();
      return {
        act: () => this.disk.flushed(covered, false),
        fail: (error) => {
          this.#flushError ??= error;
          this.disk.flushed(covered, true);
          this.onFlushFailed();
        },
      };
    });
  }

  /** Undefined afterwards; bytes that nobody wrote make sure that nobody relies on zeroes. */
  async discard(offsetBytes: number, lengthBytes: number): Promise<void> {
    const range = { offsetBytes, lengthBytes };
    await this.#overwrite('discard', range, DISCARDED);
  }

  async writeZeroes(offsetBytes: number, lengthBytes: number): Promise<void> {
    await this.#overwrite('zeroes', { offsetBytes, lengthBytes }, undefined);
  }

  async close(): Promise<void> {
    this.#closed = true;
    if (this.#inFlight === 0) return;
    await new Promise<void>((resolve) => {
      this.#drained = resolve;
    });
  }

  #overwrite(op: DiskOp, range: Range, fill: Buffer | undefined): Promise<void> {
    return this.#run(op, range, this.disk.options.times.writeMs, (effect) => {
      const first = range.offsetBytes / PAGE_SIZE;
      const count = range.lengthBytes / PAGE_SIZE;
      const content = fill === undefined ? undefined : new Array<Buffer>(count).fill(fill);
      const write = { first, count, content };
      this.disk.begin(write);
      return {
        act: () => this.disk.finish(write, effect !== 'lost'),
        fail: () => this.disk.finishInPart(write),
      };
    });
  }

  #pageWrite(range: Range, bytes: Buffer, misdirected: boolean): PageWrite {
    const count = bytes.length / PAGE_SIZE;
    let first = range.offsetBytes / PAGE_SIZE;
    if (misdirected) first = this.#elsewhere(first, count);
    const content = Array.from({ length: count }, (_, n) =>
      bytes.subarray(n * PAGE_SIZE, (n + 1) * PAGE_SIZE),
    );
    return { first, count, content };
  }

  /** Over other data, not over the superblock: that would be noticed at once. */
  #elsewhere(first: number, count: number): number {
    const { disk } = this;
    const used = disk.usedPages().filter((page) => page >= 256 && page !== first);
    const target = used.length === 0 ? first : disk.random.pick(used);
    for (let n = 0; n < count; n += 1) {
      disk.damaged.add(first + n);
      disk.damaged.add(target + n);
    }
    return Math.min(target, this.sizeBytes / PAGE_SIZE - count);
  }

  /** @param begin what the operation is about to do, told how the device will betray it */
  #run(
    op: DiskOp,
    range: Range,
    usualMs: number,
    begin: (effect: 'lost' | 'misdirected' | undefined) => {
      act(): void;
      fail?(error: StorageError): void;
    },
  ): Promise<void> {
    const refusal = this.#refusal(op, range);
    if (refusal !== undefined) return Promise.reject(refusal);
    const { disk, process } = this;
    const effect = disk.faults.effectOn(op);
    const errno = effect?.kind === 'error' ? effect.errno : undefined;
    const work = begin(effect === undefined || effect.kind === 'error' ? undefined : effect.kind);
    if (effect?.kind === 'lost') this.#noteLost(range);
    this.#inFlight += 1;
    const { scheduler } = process;
    const latency = disk.faults.latencyMs(scheduler.nowMs, op, usualMs);
    return new Promise((resolve, reject) => {
      process.post(scheduler.nowMs + latency, () => {
        if (errno === undefined) work.act();
        const error = errno === undefined ? undefined : this.#failed(op, range, errno);
        if (error !== undefined) work.fail?.(error);
        if (error === undefined) resolve();
        else reject(error);
        this.#inFlight -= 1;
        // One turn later: the last caller hears of its operation first.
        if (this.#inFlight === 0) process.post(scheduler.nowMs, () => this.#drained?.());
      });
    });
  }

  #noteLost({ offsetBytes, lengthBytes }: Range): void {
    const first = offsetBytes / PAGE_SIZE;
    for (let n = 0; n < lengthBytes / PAGE_SIZE; n += 1) this.disk.damaged.add(first + n);
  }

  #refusal(op: DiskOp, { offsetBytes, lengthBytes }: Range): StorageError | undefined {
    for (const value of [offsetBytes, lengthBytes]) {
      assert(Number.isSafeInteger(value) && value >= 0, `${op}: ${value}`);
      assert(value % this.sectorSize === 0, `${op}: ${value} is not whole sectors`);
    }
    if (this.#closed) return new StorageError('CLOSED', `${this.path} is closed`);
    if (lengthBytes <= this.sizeBytes - offsetBytes) return undefined;
    const range = `[${offsetBytes}, ${offsetBytes + lengthBytes})`;
    return new StorageError('OUT_OF_RANGE', `${op} ${range} ends past ${this.sizeBytes}`);
  }

  #failed(op: DiskOp, range: Range, errno: ErrnoName): StorageError {
    const code: ErrorCode = errno === 'ENOSPC' ? 'NO_SPACE' : 'IO_ERROR';
    const details = { errno, ...range, disk: this.path };
    return new StorageError(
      code,
      `${op} at ${range.offsetBytes} of ${this.path}: ${errno}`,
      details,
    );
  }
}
