/**
 * A disk of a simulated host: the medium, its volatile cache, and what is wrong with it.
 *
 * What a write left is visible at once and durable after a flush that began after the write was
 * answered (D1). At a power cut each page that no flush covered is kept, lost or torn. A flush that
 * fails loses some of what it covered for good, even if a later one succeeds (D3); what was lost
 * stays visible, as a page cache shows what the disk does not have.
 */
import assert from 'node:assert';
import { SECTOR_SIZE } from '../../../common/units.js';
import type { Random } from '../kernel/random.js';
import type { Scheduler } from '../kernel/scheduler.js';
import { DiskFaults, type Fate } from './disk-faults.js';
import { PAGE_SIZE, type Page, PageStore } from './page-store.js';

/** One write: pages from `first` on. Without content: zeroes. */
export interface PageWrite {
  readonly first: number;
  readonly count: number;
  readonly content: readonly Buffer[] | undefined;
}

export interface DiskTimes {
  readonly readMs: number;
  readonly writeMs: number;
  readonly flushMs: number;
}

export class SimDisk {
  readonly faults: DiskFaults;
  readonly random: Random;
  /** pages of data that a fault changed behind the back of the daemon */
  readonly damaged = new Set<number>();
  readonly #visible = new PageStore();
  readonly #durable = new PageStore();
  #unflushed: PageWrite[] = [];
  /** begun and not answered */
  readonly #begun = new Set<PageWrite>();

  constructor(
    readonly scheduler: Scheduler,
    readonly options: {
      readonly name: string;
      readonly sizeBytes: number;
      readonly times: DiskTimes;
    },
    random: Random,
  ) {
    assert(options.sizeBytes % PAGE_SIZE === 0);
    this.random = random.fork(`disk ${options.name}`);
    this.faults = new DiskFaults(this.random);
  }

  read(first: number, into: Buffer): void {
    for (let at = 0; at < into.length; at += PAGE_SIZE) {
      const page = this.#visible.get(first + at / PAGE_SIZE);
      if (page === undefined) into.fill(0, at, at + PAGE_SIZE);
      else page.copy(into, at);
    }
  }

  /** A write is under way: a crash now leaves any part of it. */
  begin(write: PageWrite): void {
    this.#begun.add(write);
  }

  /** The write is answered; with `applied` false it left no trace. */
  finish(write: PageWrite, applied: boolean): void {
    this.#begun.delete(write);
    if (applied) this.#apply(write);
  }

  /** A write that failed: any of its pages is there. */
  finishInPart(write: PageWrite): void {
    this.#begun.delete(write);
    this.#applyPart(write);
  }

  /** What a flush that begins now covers. */
  covered(): ReadonlySet<PageWrite> {
    return new Set(this.#unflushed);
  }

  flushed(covered: ReadonlySet<PageWrite>, failed: boolean): void {
    for (const write of this.#unflushed) {
      if (covered.has(write)) this.#settle(write, failed ? 'subset' : 'kept');
    }
    this.#unflushed = this.#unflushed.filter((write) => !covered.has(write));
  }

  /** The process that used it was killed: what was under way happened in part or not at all. */
  kill(): void {
    for (const write of this.#begun) {
      if (this.random.chance(0.5)) this.#applyPart(write);
    }
    this.#begun.clear();
  }

  powerCut(fate: Fate): void {
    for (const write of [...this.#unflushed, ...this.#begun]) this.#settle(write, fate);
    this.#begun.clear();
    this.#unflushed = [];
    this.#visible.assign(this.#durable);
  }

  /** Flips one bit of a page that holds something, on the medium. */
  rot(page: number): void {
    const bytes = this.#visible.get(page);
    if (bytes === undefined) return;
    const changed = Buffer.from(bytes);
    const at = this.random.int(PAGE_SIZE);
    changed[at] = (changed[at] ?? 0) ^ (1 << this.random.int(8));
    this.#visible.set(page, changed);
    this.#durable.set(page, changed);
    this.damaged.add(page);
  }

  /** Pages that hold something. */
  usedPages(): number[] {
    return this.#visible.used();
  }

  /** Keeps the medium as it is now, to put it back later (scenario 55). */
  image(): PageStore {
    const image = new PageStore();
    image.assign(this.#durable);
    return image;
  }

  blank(): void {
    this.restore(new PageStore());
  }

  restore(image: PageStore): void {
    this.#durable.assign(image);
    this.#visible.assign(image);
    this.#unflushed = [];
  }

  #apply(write: PageWrite): void {
    const { first, count, content } = write;
    if (content === undefined) this.#visible.clear(first, count);
    else for (const [n, page] of content.entries()) this.#visible.set(first + n, page);
    this.#unflushed.push(write);
  }

  #applyPart(write: PageWrite): void {
    const { first, count, content } = write;
    if (content === undefined) {
      if (this.random.chance(0.5)) this.#apply(write);
      return;
    }
    for (let n = 0; n < count; n += 1) {
      if (this.random.chance(0.5)) continue;
      this.#apply({ first: first + n, count: 1, content: [content[n] as Buffer] });
    }
  }

  #settle(write: PageWrite, fate: Fate): void {
    const { first, count, content } = write;
    if (fate === 'dropped') return;
    if (content === undefined) {
      if (fate === 'kept' || this.random.chance(0.5)) this.#durable.clear(first, count);
      return;
    }
    for (const [n, page] of content.entries()) {
      if (fate === 'torn') this.#settleTorn(first + n, page);
      else if (fate === 'kept' || this.random.chance(0.5)) this.#durable.set(first + n, page);
    }
  }

  #settleTorn(number: number, page: Buffer): void {
    const old: Page = this.#durable.get(number);
    const mixed = old === undefined ? Buffer.alloc(PAGE_SIZE) : Buffer.from(old);
    for (let at = 0; at < PAGE_SIZE; at += SECTOR_SIZE) {
      if (this.random.chance(0.5)) page.copy(mixed, at, at, at + SECTOR_SIZE);
    }
    this.#durable.set(number, mixed);
  }
}
