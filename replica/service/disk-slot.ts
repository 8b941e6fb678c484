/**
 * One disk of the command line: opened, refused, failed, and tried again until it serves
 * (scenarios 44, 54).
 *
 * Invariants:
 * - At most one opening is under way, and the disk before it is closed by then: locks are
 *   exclusive.
 * - A try never makes or formats anything, and takes only the disk that was there before, if one
 *   was; it passes the same checks as at start.
 * - Each opening after the first one that served is another incarnation (P7). If a flush had failed
 *   it is told so (D3).
 */
import assert from 'node:assert';
import type { Clock, Timer } from '../../common/clock.js';
import { type StorageError, toStorageError } from '../../common/errors.js';
import type { Logger } from '../../common/log.js';
import type { DiskInfo } from '../../proto/control.js';
import type { Disk, DiskOptions } from '../disk/disk.js';
import type { DiskSpec } from './disk-spec.js';
import { RetryDelay } from './retry-delay.js';

/** Where a replica is: the disk there is another object after each opening. */
export interface DiskPlace {
  readonly disk: Disk;
}

/** What differs from one opening to the next. */
export type Opening = Pick<
  DiskOptions,
  'path' | 'sizeBytes' | 'incarnation' | 'reuse' | 'diskId' | 'lostWrites' | 'onFailed'
>;

export interface DiskSlotOptions {
  readonly spec: DiskSpec;
  /** of the daemon */
  readonly incarnation: string;
  readonly openDisk: (opening: Opening) => Promise<Disk>;
  readonly clock: Clock;
  readonly log: Logger;
}

export class DiskSlot implements DiskPlace {
  readonly #options: DiskSlotOptions;
  readonly #delay = new RetryDelay();
  #disk: Disk | undefined;
  /** why it is not open, or not again */
  #refusal: StorageError | undefined;
  #openings = 0;
  #openedMs = 0;
  #timer: Timer | undefined;
  #trying: Promise<void> = Promise.resolve();
  #onOpened: ((slot: DiskSlot) => void) | undefined;
  #closing = false;

  constructor(options: DiskSlotOptions) {
    this.#options = options;
  }

  get path(): string {
    return this.#options.spec.path;
  }

  /** As it was opened last, also if it has failed or was closed since. */
  get opened(): Disk | undefined {
    return this.#disk;
  }

  /** For what was found on it. */
  get disk(): Disk {
    assert(this.#disk !== undefined, `disk ${this.path} was never opened`);
    return this.#disk;
  }

  get refusal(): StorageError | undefined {
    return this.#refusal;
  }

  /** Opens it the first time; what is provably empty is formatted. Never throws. */
  async open(): Promise<void> {
    await this.#open({});
  }

  /** From now on it is tried again whenever it is not served. @param onOpened  in the same step as
   *  the disk changes */
  retry(onOpened: (slot: DiskSlot) => void): void {
    this.#onOpened = onOpened;
    if (this.#refusal !== undefined || this.#disk?.state === 'failed') this.#schedule();
  }

  info(): DiskInfo {
    const disk = this.#disk;
    const refusal = this.#refusal;
    const reason = refusal === undefined ? '' : `${refusal.code}: ${refusal.message}`;
    const sizes = { sizeBytes: 0, usedBytes: 0, reservedBytes: 0 };
    if (disk === undefined)
      return { diskId: '', path: this.path, ...sizes, state: 'refused', reason };
    const { id, path, sizeBytes, usedBytes, reservedBytes, state } = disk;
    const known = { diskId: id, path, sizeBytes, usedBytes, reservedBytes };
    if (refusal === undefined) return { ...known, state, reason: disk.reason };
    return { ...known, state: 'failed', reason };
  }

  /** Tries no more, and closes what is open. Never throws. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#timer?.cancel();
    await this.#trying;
    await this.#disk?.close();
  }

  /** @param change  what is not as at start */
  async #open(change: Pick<Opening, 'reuse' | 'diskId' | 'lostWrites'>): Promise<void> {
    const { spec, incarnation, openDisk, log } = this.#options;
    const { path, sizeBytes } = spec;
    let disk: Disk;
    try {
      disk = await openDisk({
        path,
        ...(sizeBytes === undefined ? {} : { sizeBytes }),
        incarnation: this.#openings === 0 ? incarnation : `${incarnation}.${this.#openings}`,
        ...change,
        onFailed: () => this.#schedule(),
      });
    } catch (cause) {
      this.#refusal = toStorageError(cause, `disk ${path}`);
      const { code, message, details } = this.#refusal;
      log.error({ path, code, error: message, hint: details.hint }, 'disk refused');
      return;
    }
    this.#serve(disk);
  }

  #serve(disk: Disk): void {
    const { clock, log } = this.#options;
    this.#disk = disk;
    this.#refusal = undefined;
    this.#openings += 1;
    this.#openedMs = clock.nowMs();
    const { id, path, sizeBytes, usedBytes } = disk;
    log.info({ disk: id, path, sizeBytes, usedBytes, openings: this.#openings }, 'disk serves');
    if (!this.#closing) this.#onOpened?.(this);
  }

  #schedule(): void {
    if (this.#onOpened === undefined || this.#closing || this.#timer !== undefined) return;
    const { clock, log } = this.#options;
    const served = this.#refusal === undefined ? clock.nowMs() - this.#openedMs : 0;
    const delayMs = this.#delay.next(served);
    log.info({ path: this.path, delayMs }, 'disk will be tried again');
    const go = (): void => {
      this.#timer = undefined;
      // A try may take longer than the wait after it: one at a time.
      this.#trying = this.#trying.then(() => this.#tryAgain());
    };
    this.#timer = clock.after(delayMs, go, { background: true });
  }

  async #tryAgain(): Promise<void> {
    const before = this.#disk;
    if (this.#closing || (before?.state === 'ready' && this.#refusal === undefined)) return;
    await before?.close();
    if (this.#closing) return;
    const same = before === undefined ? {} : { diskId: before.id, lostWrites: before.lostWrites };
    await this.#open({ reuse: true, ...same });
    if (this.#refusal !== undefined || this.#disk?.state === 'failed') this.#schedule();
  }
}
