/**
 * A load that proves what it did: several connections with overlapping operations in flight, every
 * block stamped by the write that made it, everything recorded in one history, which is checked by
 * the rules of a replicated block device.
 *
 * Three in ten operations go to a hot hundredth of the volume; sizes are 1 to 64 cells (blocks, or
 * parts of them); a block is often read again at once, so that copies that differ show. A load may
 * be started again, on a new engine: the history goes on.
 */

import { BLOCK_SIZE } from '../../common/units.js';
import { SeededRandom } from '../engine/nbd/seeded-random.js';
import { cellStory, checkHistory } from '../simulator/checker/check-history.js';
import { CellLayout, CellStamps } from './cell-stamp.js';
import { History, type OperationFields, type Outcome } from './history.js';
import { type LoadClient, Refused } from './load-client.js';

/** Weights of the operations; FUA as a percentage of the writes. */
export interface LoadMix {
  readonly write: number;
  readonly read: number;
  readonly flush: number;
  readonly trim: number;
  readonly zero: number;
  readonly fuaPercent: number;
}

const MIX: LoadMix = { write: 60, read: 34, flush: 3, trim: 2, zero: 1, fuaPercent: 5 };

/** Each of the smallest blocks that are advertised is a register of its own. */
export const SECTORS = [0, 512, 1024, 1536, 2048, 2560, 3072, 3584];

export interface LoadOptions {
  readonly seed: number;
  /** of the volume that is used, from its start */
  readonly bytes: number;
  /** opens one connection to the engine that serves now */
  readonly connect: () => Promise<LoadClient>;
  /** default 2 */
  readonly connections?: number;
  /** operations in flight on each; default 16 */
  readonly depth?: number;
  /** operations begun per second at most; default 2000 */
  readonly rate?: number;
  /** where the cells of a block begin; default: a block is one cell. SECTORS finds what happens
   *  inside of a block, at the cost of a longer history */
  readonly cuts?: readonly number[];
  readonly mix?: Partial<LoadMix>;
}

/** A connection to the engine of a tenure. */
interface Lane {
  readonly client: LoadClient;
  readonly connection: number;
  readonly tenure: number;
}

/** Time after an operation that was refused before its worker goes on. */
const REFUSED_PAUSE_MS = 20;
const COUNT_MAX = 64;
/** cells per read of a sweep */
const SWEEP_CELLS = 256;
const STORY_LINES = 12;

export class StampedLoad {
  readonly history: History;
  /** writes, trims and zeroes that were acknowledged */
  acknowledged = 0;
  /** texts of operations that were answered with an error */
  readonly refusals: string[] = [];
  /** longest time from start to a good answer since it was last set to 0 */
  slowestMs = 0;
  readonly #options: LoadOptions;
  readonly #mix: LoadMix;
  readonly #random: SeededRandom;
  readonly #cells: number;
  readonly #layout: CellLayout;
  readonly #stamps: CellStamps;
  readonly #touched = new Set<number>();
  readonly #inFlight = new Set<number>();
  #clients: LoadClient[] = [];
  #workers: Promise<void>[] = [];
  #stopping = false;
  #connections = 0;
  #tenure = 0;
  #begun = 0;
  #startedMs = 0;
  #waiters: Array<{ count: number; resolve: () => void }> = [];

  constructor(options: LoadOptions) {
    this.#options = options;
    this.#mix = { ...MIX, ...options.mix };
    this.#random = new SeededRandom(options.seed);
    const blocks = Math.floor(options.bytes / BLOCK_SIZE);
    this.#layout = new CellLayout([{ firstBlock: 0, blocks }], options.cuts);
    this.#cells = this.#layout.cells;
    // Not the seed: a replay on a disk that was used before must know its own blocks.
    const run = Math.floor(Math.random() * 2 ** 32);
    this.#stamps = new CellStamps(this.#layout, run);
    this.history = new History({ run, cells: this.#cells, multiConn: true });
  }

  get inFlight(): number {
    return this.#inFlight.size;
  }

  /** Connects and lets workers run, beside those that run already. @param connect  to another
   *  engine than that of the options */
  async start(options: { connect?: () => Promise<LoadClient> } = {}): Promise<void> {
    const connect = options.connect ?? this.#options.connect;
    const count = this.#options.connections ?? 2;
    const clients: LoadClient[] = [];
    for (let n = 0; n < count; n += 1) clients.push(await connect());
    this.#clients.push(...clients);
    this.#stopping = false;
    this.#begun = 0;
    this.#startedMs = performance.now();
    for (const client of clients) {
      const lane = this.#lane(client);
      const depth = this.#options.depth ?? 16;
      for (let n = 0; n < depth; n += 1) this.#workers.push(this.#work(lane));
    }
  }

  #lane(client: LoadClient): Lane {
    this.#connections += 1;
    return { client, connection: this.#connections, tenure: this.#tenure };
  }

  /** Begins nothing more; resolves when everything under way has ended, and closes. */
  async stop(): Promise<void> {
    this.#stopping = true;
    const clients = this.#clients;
    await this.ended();
    await Promise.all(clients.map((client) => client.close().catch(() => undefined)));
  }

  /** Resolves when every worker has ended: after `stop`, or because the connections ended. */
  async ended(): Promise<void> {
    await Promise.all(this.#workers);
    this.#workers = [];
    this.#clients = [];
    for (const waiter of this.#waiters.splice(0)) waiter.resolve();
  }

  /** Resolves when so many more changes are acknowledged, or the load has ended. */
  more(count: number): Promise<void> {
    const ended = Promise.all(this.#workers).then(() => undefined);
    const enough = new Promise<void>((resolve) => {
      this.#waiters.push({ count: this.acknowledged + count, resolve });
    });
    return Promise.race([ended, enough]);
  }

  note(text: string): void {
    this.history.note(performance.now(), text);
  }

  /** A process or the network went; nothing that was acknowledged may be lost (F1, F2). */
  crashed(): void {
    this.history.crash(performance.now(), false);
  }

  /** Every in-sync copy loses power now (F3). Answers that still arrive count as none. */
  lostPower(): void {
    this.#stopping = true;
    for (const op of this.#inFlight) {
      this.history.end(performance.now(), op, { outcome: 'unknown' });
    }
    this.#inFlight.clear();
    this.history.crash(performance.now(), true);
    this.abandon();
  }

  /** Drops the connections: what was in flight stays unknown. */
  abandon(): void {
    this.#stopping = true;
    for (const client of this.#clients) client.abandon();
  }

  /** Another engine serves. */
  served(): void {
    this.#tenure += 1;
    this.history.serve(performance.now(), this.#tenure);
  }

  /** Reads everything that was ever written, `times` over: unread loss is invisible, and what was
   *  read must stay. @throws Error if a read is refused, or the connection ends */
  async sweep(times = 2, connect = this.#options.connect): Promise<void> {
    const client = await connect();
    const lane = this.#lane(client);
    const pieces = [...this.#touched].sort((a, b) => a - b);
    for (let time = 0; time < times; time += 1) {
      for (const piece of pieces) {
        const first = piece * SWEEP_CELLS;
        const count = Math.min(SWEEP_CELLS, this.#cells - first);
        const refusals = this.refusals.length;
        const whole = await this.#read(lane, { first, count });
        const refused = this.refusals[refusals];
        if (refused !== undefined) throw new Error(`sweep: cells ${first} on: ${refused}`);
        if (!whole) throw new Error(`sweep: cells ${first} on: the connection ended`);
      }
    }
    await client.close();
  }

  /** What the history is guilty of, in words; empty: nothing. */
  problems(): string[] {
    const { violations, undecided } = checkHistory(this.history, { violationsMax: 4 });
    const found = violations.map(({ kind, text, cell }) => {
      const story = cellStory(this.history, cell, STORY_LINES);
      return [`seed ${this.#options.seed}: ${kind}: ${text}`, ...story].join('\n');
    });
    return undecided > this.#cells / 100 ? [...found, `${undecided} cells are undecided`] : found;
  }

  async #work(lane: Lane): Promise<void> {
    const rate = this.#options.rate ?? 2000;
    while (!this.#stopping) {
      this.#begun += 1;
      const dueMs = this.#startedMs + (this.#begun / rate) * 1000;
      const waitMs = dueMs - performance.now();
      if (waitMs > 1) await new Promise((resolve) => setTimeout(resolve, waitMs));
      if (this.#stopping) return;
      if (!(await this.#one(lane))) return;
    }
  }

  /** False when the connection is of no use any more. */
  async #one(lane: Lane): Promise<boolean> {
    const { client } = lane;
    const { write, read, flush, trim, zero, fuaPercent } = this.#mix;
    let draw = this.#random.below(write + read + flush + trim + zero);
    const range = this.#range();
    draw -= write;
    if (draw < 0) return this.#write(lane, range, this.#random.chance(fuaPercent));
    draw -= read;
    if (draw < 0) {
      // Again, at once: two copies that differ answer by turns.
      return (await this.#read(lane, range)) && (await this.#read(lane, range));
    }
    draw -= flush;
    if (draw < 0) return this.#run(lane, { kind: 'F' }, () => client.flush());
    this.#touch(range);
    const { offsetBytes, lengthBytes } = this.#layout.rangeOf(range.first, range.count);
    if (draw < trim) {
      return this.#run(lane, { kind: 'T', ...range }, () => client.trim(offsetBytes, lengthBytes));
    }
    return this.#run(lane, { kind: 'Z', ...range }, () => client.zero(offsetBytes, lengthBytes));
  }

  #range(): { first: number; count: number } {
    const random = this.#random;
    const span = random.chance(30) ? Math.max(1, Math.floor(this.#cells / 100)) : this.#cells;
    const first = random.below(span);
    const size = 1 + Math.floor((random.below(1000) / 1000) ** 3 * COUNT_MAX);
    return { first, count: Math.min(size, this.#cells - first) };
  }

  #touch({ first, count }: { first: number; count: number }): void {
    const last = Math.floor((first + count - 1) / SWEEP_CELLS);
    for (let at = Math.floor(first / SWEEP_CELLS); at <= last; at += 1) this.#touched.add(at);
  }

  #write(lane: Lane, range: { first: number; count: number }, fua: boolean): Promise<boolean> {
    this.#touch(range);
    const { first, count } = range;
    return this.#run(lane, { kind: 'W', first, count, fua }, (op) => {
      const bytes = this.#stamps.payload(first, count, op);
      return lane.client.write(this.#layout.offsetOf(first), bytes, { fua });
    });
  }

  #read(lane: Lane, { first, count }: { first: number; count: number }): Promise<boolean> {
    const { offsetBytes, lengthBytes } = this.#layout.rangeOf(first, count);
    return this.#run(lane, { kind: 'R', first, count }, async () => {
      const bytes = await lane.client.read(offsetBytes, lengthBytes);
      return this.#stamps.values(first, count, bytes);
    });
  }

  /** Records one operation from its start to its end. */
  async #run(
    lane: Lane,
    fields: Omit<OperationFields, 'tenure' | 'connection'>,
    work: (op: number) => Promise<unknown>,
  ): Promise<boolean> {
    const startMs = performance.now();
    const { connection, tenure } = lane;
    const op = this.history.start(startMs, { ...fields, connection, tenure });
    this.#inFlight.add(op);
    const end = (result: { outcome: Outcome; code?: string; values?: number[] }): void => {
      if (this.#inFlight.delete(op)) this.history.end(performance.now(), op, result);
    };
    try {
      const values = await work(op);
      if (!this.#inFlight.has(op)) return false;
      end({ outcome: 'ok', ...(Array.isArray(values) ? { values } : {}) });
      this.#succeeded(fields.kind, performance.now() - startMs);
      return true;
    } catch (error) {
      const refused = error instanceof Refused;
      const { message } = error as Error;
      end({ outcome: refused ? 'error' : 'unknown', code: message });
      if (!refused) return false;
      this.refusals.push(`${fields.kind}${op}: ${message}`);
      await new Promise((resolve) => setTimeout(resolve, REFUSED_PAUSE_MS));
      return true;
    }
  }

  #succeeded(kind: string, tookMs: number): void {
    this.slowestMs = Math.max(this.slowestMs, tookMs);
    if (kind !== 'W' && kind !== 'T' && kind !== 'Z') return;
    this.acknowledged += 1;
    const ready = this.#waiters.filter(({ count }) => count <= this.acknowledged);
    if (ready.length === 0) return;
    this.#waiters = this.#waiters.filter(({ count }) => count > this.acknowledged);
    for (const { resolve } of ready) resolve();
  }
}
