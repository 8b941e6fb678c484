/** A disk that fails on request, behind the seam of the NBD server. */
import { type Clock, sleep } from '../../../common/clock.js';
import { StorageError } from '../../../common/errors.js';
import type {
  BlockVolume,
  ReadResult,
  StatusRun,
  WriteOptions,
} from '../../../engine/block-volume.js';
import { SeededRandom } from '../../engine/nbd/seeded-random.js';
import { CachedDisk, type Fate } from './cached-disk.js';
import { DiskFaults, type DiskOperation, type Mishap } from './disk-faults.js';

export interface DiskCounts {
  readonly reads: number;
  readonly writes: number;
  readonly trims: number;
  readonly flushes: number;
  /** not answered yet */
  readonly held: number;
  /** written and covered by no flush */
  readonly cachedWrites: number;
}

export class DiskVolume implements BlockVolume {
  readonly name = 'disk';
  readonly readOnly = false;
  readonly sizeBytes: number;
  readonly disk: CachedDisk;
  readonly faults: DiskFaults;
  readonly #random: SeededRandom;
  readonly #counts = { read: 0, write: 0, trim: 0, flush: 0 };
  /** operations that wait, with what ends them */
  readonly #held = new Set<(error: StorageError | undefined) => void>();
  #power: 'on' | 'frozen' | 'off' = 'on';

  constructor(
    sizeBytes: number,
    readonly clock: Clock,
    seed: number,
  ) {
    this.sizeBytes = sizeBytes;
    this.#random = new SeededRandom(seed);
    this.disk = new CachedDisk(sizeBytes);
    this.faults = new DiskFaults(this.#random);
  }

  get counts(): DiskCounts {
    const { read: reads, write: writes, trim: trims, flush: flushes } = this.#counts;
    const { cachedWrites } = this.disk;
    return { reads, writes, trims, flushes, held: this.#held.size, cachedWrites };
  }

  /** The instant of a power cut: from now on nothing is answered and nothing changes the disk. */
  freeze(): void {
    this.#power = 'frozen';
  }

  /** Whoever saw an answer is dead by now: what waits and what comes ends with an error. */
  powerOff(): void {
    this.#power = 'off';
    for (const end of [...this.#held]) end(goneError());
  }

  /** Decides what was in the cache, and serves again. */
  powerOn(fate: Fate): void {
    this.disk.powerCut(fate, this.#random);
    this.faults.disarmAll();
    this.#power = 'on';
  }

  /** Ends the hangs: what waits takes effect now. */
  release(): void {
    for (const end of [...this.#held]) end(undefined);
  }

  enter(): undefined {}

  leave(): void {}

  async read(offsetBytes: number, lengthBytes: number): Promise<ReadResult> {
    await this.#begin({ op: 'read', offsetBytes, lengthBytes });
    return { chunks: [this.disk.read(offsetBytes, lengthBytes)], release: () => undefined };
  }

  async write(
    offsetBytes: number,
    lengthBytes: number,
    payload: readonly Buffer[],
    options: WriteOptions,
  ): Promise<void> {
    const bytes = Buffer.concat(payload);
    const part = (): void => this.disk.writePart(offsetBytes, bytes, this.#random);
    const mishap = await this.#begin({ op: 'write', offsetBytes, lengthBytes }, part);
    if (mishap?.kind === 'lost') return;
    const by = mishap?.kind === 'misplaced' ? mishap.byBytes : 0;
    this.disk.write(offsetBytes + by, bytes);
    if (options.fua) await this.flush();
  }

  async flush(): Promise<void> {
    const mark = this.disk.beginFlush();
    const lose = (): void => this.disk.failFlush(mark, this.#random);
    await this.#begin({ op: 'flush', offsetBytes: 0, lengthBytes: 0 }, lose);
    this.disk.endFlush(mark);
  }

  async trim(offsetBytes: number, lengthBytes: number, options: WriteOptions): Promise<void> {
    const mishap = await this.#begin({ op: 'trim', offsetBytes, lengthBytes });
    if (mishap?.kind !== 'lost') this.disk.zero(offsetBytes, lengthBytes);
    if (options.fua) await this.flush();
  }

  writeZeroes(offsetBytes: number, lengthBytes: number, options: WriteOptions): Promise<void> {
    return this.trim(offsetBytes, lengthBytes, options);
  }

  async blockStatus(_offsetBytes: number, lengthBytes: number): Promise<StatusRun[]> {
    return [{ lengthBytes, hole: false }];
  }

  onResize(): () => void {
    return () => undefined;
  }

  /** Counts the operation and lets happen to it what shall. Resolves when it may take effect.
   *  @param failed  what an error leaves behind */
  async #begin(operation: DiskOperation, failed?: () => void): Promise<Mishap | undefined> {
    this.#counts[operation.op] += 1;
    await this.#awaitPower();
    const mishap = this.faults.befall(operation);
    if (mishap?.kind === 'delay') await sleep(this.clock, mishap.ms);
    if (mishap?.kind === 'hang') await this.#hold();
    // It may have gone meanwhile.
    await this.#awaitPower();
    if (mishap?.kind !== 'error') return mishap;
    failed?.();
    const code = mishap.errno === 'ENOSPC' ? 'NO_SPACE' : 'IO_ERROR';
    throw new StorageError(code, `${operation.op}: ${mishap.errno}`, { errno: mishap.errno });
  }

  async #awaitPower(): Promise<void> {
    if (this.#power === 'frozen') await this.#hold();
    if (this.#power === 'off') throw goneError();
  }

  #hold(): Promise<void> {
    return new Promise((resolve, reject) => {
      const end = (error: StorageError | undefined): void => {
        this.#held.delete(end);
        if (error === undefined) resolve();
        else reject(error);
      };
      this.#held.add(end);
    });
  }
}

function goneError(): StorageError {
  return new StorageError('IO_ERROR', 'the disk has no power', { errno: 'EIO' });
}
