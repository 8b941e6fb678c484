/**
 * Reads from one good copy, verified, with the other copies behind it.
 *
 * - Local members first, then the lowest smoothed latency weighed by what is in flight.
 * - Every block is verified here against the checksum the replica stored, end to end: a wrong byte
 *   is never returned (R7). A mismatch, an I/O error or a lost link leads to the next copy; only
 *   when no copy is good the read fails.
 * - A read that takes longer than nearly all others do is asked of a second member as well; the
 *   first good answer counts. At most one read in HEDGE_EVERY, so that a slow set does not become
 *   slower.
 * - An answer leaves only while the read lease is held (P13); without it it waits, and the members
 *   are asked to confirm. Between tenures reads wait and are asked again in the next one, once
 *  their  range is equal on all members there (P5).
 * - The caller holds the range lock (shared), so that no write runs in the range meanwhile (N1).
 */
import type { Clock, Timer } from '../../common/clock.js';
import { StorageError, toStorageError } from '../../common/errors.js';
import { BLOCK_SIZE, WIRE_IO_BYTES_MAX } from '../../common/units.js';
import { IO_OP, type IoReplyView } from '../../proto/io-codec.js';
import type { ReadResult } from '../block-volume.js';
import type { EqualGate } from './equal-gate.js';
import type { LinkTable } from './link-table.js';
import type { Settled } from './pending-op.js';
import { ReadLatency } from './read-latency.js';
import type { ReadLease } from './read-lease.js';
import { type PieceOwner, type Question, ReadPiece } from './read-piece.js';
import type { ReplicaLink } from './replica-link.js';

/** Index of the first bad block or -1. */
export type VerifyBlocks = (
  src: Buffer,
  srcOffset: number,
  lengthBytes: number,
  expected: Buffer,
  expectedOffset: number,
) => number;

export interface ReadPathOptions {
  readonly table: LinkTable;
  readonly gate: EqualGate;
  readonly lease: ReadLease;
  readonly clock: Clock;
  readonly verifyBlocks: VerifyBlocks;
  readonly onBadCopy: (link: ReplicaLink, error: StorageError, offsetBytes: number) => void;
}

/** How long a chosen member is kept. */
const CHOICE_MS = 50;
/** With more than this on its way to the chosen member, reads go to whoever is cheapest. */
const SPREAD_IN_FLIGHT = 128;
/** A read is slow past this part of all, and past this time. */
const HEDGE_PART = 0.99;
const HEDGE_FLOOR_MS = 10;
const HEDGE_MAX_MS = 1_000;
/** Before enough reads were seen to know what is slow. */
const HEDGE_UNKNOWN_MS = 100;
const HEDGE_EVERY = 20;

export class ReadPath implements PieceOwner {
  readonly #options: ReadPathOptions;
  readonly #latency = new ReadLatency();
  #chosen: ReplicaLink | undefined;
  #chosenAtMs = -1;
  /** between tenures */
  #suspended = true;
  #refusal: StorageError | undefined;
  readonly #parked: ReadPiece[] = [];
  /** answered, waiting for the lease */
  #unleased: ReadPiece[] = [];
  #hedgeTimer: Timer | undefined;
  #hedgeCredit = 0;
  /** reads that were asked of a second member */
  hedges = 0;
  /** answers that had to wait because the read lease was not held (P13) */
  leaseMisses = 0;

  constructor(options: ReadPathOptions) {
    this.#options = options;
  }

  /** Reads that wait for a tenure or the lease. */
  get waiting(): number {
    return this.#parked.length + this.#unleased.length;
  }

  /** @param offsetBytes whole blocks, as is the length. The result is borrowed until `release`.
   *  @throws StorageError NO_REPLICA | CORRUPT_BLOCK | CORRUPT_MESSAGE | IO_ERROR: no copy could
   *  serve all of it */
  async read(offsetBytes: number, lengthBytes: number): Promise<ReadResult> {
    const first = WIRE_IO_BYTES_MAX - (offsetBytes % WIRE_IO_BYTES_MAX);
    if (lengthBytes <= first) return this.readPiece(offsetBytes, lengthBytes);
    const pieces: Promise<ReadResult>[] = [];
    const end = offsetBytes + lengthBytes;
    for (let at = offsetBytes; at < end; ) {
      const length = Math.min(end - at, WIRE_IO_BYTES_MAX - (at % WIRE_IO_BYTES_MAX));
      pieces.push(this.readPiece(at, length));
      at += length;
    }
    const outcomes = await Promise.allSettled(pieces);
    const results = outcomes.flatMap((o) => (o.status === 'fulfilled' ? [o.value] : []));
    const release = (): void => {
      for (const result of results) result.release();
    };
    const failed = outcomes.find((o) => o.status === 'rejected');
    if (failed !== undefined) {
      release();
      throw failed.reason;
    }
    return { chunks: results.flatMap((result) => [...result.chunks]), release };
  }

  /** A read that stays in one extent: one promise, one object. @param after told when it has ended,
   *  either way */
  readPiece(offsetBytes: number, lengthBytes: number, after?: Settled): Promise<ReadResult> {
    return this.#ask({ op: IO_OP.READ, offsetBytes, lengthBytes, arg: 0 }, 0, after);
  }

  /** One piece from any copy but these: what a repair writes. @throws as `read` */
  readFromOthers(
    avoid: readonly ReplicaLink[],
    offsetBytes: number,
    lengthBytes: number,
  ): Promise<ReadResult> {
    const question = { op: IO_OP.READ, offsetBytes, lengthBytes, arg: 0 };
    const tried = avoid.reduce((mask, link) => mask | (1 << link.index), 0);
    return this.#ask(question, tried, undefined);
  }

  /** The allocation runs of whole blocks, encoded as in the wire protocol. @throws as `read` */
  map(offsetBytes: number, lengthBytes: number, runsMax: number): Promise<ReadResult> {
    return this.#ask({ op: IO_OP.MAP, offsetBytes, lengthBytes, arg: runsMax }, 0, undefined);
  }

  #ask(question: Question, avoid: number, after: Settled | undefined): Promise<ReadResult> {
    const piece = new ReadPiece(this, question, after);
    piece.avoid = avoid;
    piece.tried = avoid;
    return new Promise((resolve, reject) => {
      piece.resolve = resolve;
      piece.reject = reject;
      this.#enter(piece);
    });
  }

  /** Asks, once the range may be read. */
  #enter(piece: ReadPiece): void {
    const { gate } = this.#options;
    const { offsetBytes, lengthBytes } = piece.question;
    if (!gate.active || this.#suspended) this.#send(piece);
    else void this.#enterLater(piece, gate.pending(offsetBytes, lengthBytes));
  }

  async #enterLater(piece: ReadPiece, pending: Promise<void> | undefined): Promise<void> {
    if (pending === undefined) {
      this.#send(piece);
      return;
    }
    try {
      await pending;
    } catch (cause) {
      piece.fail(toStorageError(cause, 'wait until the members are equal'));
      return;
    }
    // Maybe in another tenure.
    this.#enter(piece);
  }

  #send(piece: ReadPiece): void {
    const link = piece.tried === 0 ? this.choose() : this.#cheapest(piece.tried);
    if (link !== undefined) this.#sendTo(piece, link);
    else if (this.#suspended) this.#park(piece);
    else {
      const error = new StorageError('NO_REPLICA', 'no in-sync replica can be read');
      piece.fail(piece.lastError ?? error);
    }
  }

  #sendTo(piece: ReadPiece, link: ReplicaLink): void {
    piece.tried |= 1 << link.index;
    piece.asked += 1;
    const { op, offsetBytes, lengthBytes, arg } = piece.question;
    link.request(piece, { op, flags: 0, offsetBytes, lengthBytes, arg });
    this.#hedgeTimer ??= this.#options.clock.after(this.#hedgeAfterMs(), this.#hedge, BACKGROUND);
  }

  answered(piece: ReadPiece, link: ReplicaLink): void {
    this.#latency.note(link.lastHeardMs - piece.sentMs);
    this.#hedgeCredit = Math.min(this.#hedgeCredit + 1 / HEDGE_EVERY, HEDGE_EVERY);
    if (this.#options.lease.held) piece.succeed();
    else this.#awaitLease(piece);
  }

  #awaitLease(piece: ReadPiece): void {
    if (this.#suspended) {
      this.#park(piece);
      return;
    }
    this.leaseMisses += 1;
    this.#unleased.push(piece);
    this.#options.lease.renew();
  }

  /** Something was confirmed, or the members changed. */
  leaseChanged(): void {
    if (this.#unleased.length === 0 || !this.#options.lease.held) return;
    const pieces = this.#unleased;
    this.#unleased = [];
    for (const piece of pieces) piece.succeed();
  }

  /** This copy did not serve: remember why, ask the next one. */
  notServed(piece: ReadPiece, link: ReplicaLink, error: StorageError): void {
    // The most telling error survives: bad bytes say more than a link that is gone.
    if (piece.lastError === undefined || error.code === 'CORRUPT_BLOCK') piece.lastError = error;
    this.#options.onBadCopy(link, error, piece.question.offsetBytes);
    const bit = 1 << link.index;
    if (error.code === 'CORRUPT_MESSAGE' && (piece.again & bit) === 0) {
      // The member had verified it: what the way has damaged may come whole the next time.
      piece.again |= bit;
      piece.tried &= ~bit;
    }
    this.#chosen = undefined;
    if (piece.asked === 0 && !piece.parked) this.#send(piece);
  }

  /** What comes from now on, and what has no answer left to wait for, waits for the next tenure. */
  suspend(): void {
    this.#suspended = true;
    this.#chosen = undefined;
    this.#options.lease.reset();
    for (const piece of this.#unleased.splice(0)) this.#park(piece);
  }

  /** A tenure begins: what waited is asked. */
  resume(): void {
    this.#suspended = false;
    this.#refusal = undefined;
    for (const piece of this.#unpark()) this.#enter(piece);
  }

  /** Between tenures: what waits fails with `error`, and so does what comes, until `resume`. */
  refuse(error: StorageError): void {
    if (!this.#suspended) return;
    this.#refusal = error;
    for (const piece of this.#unpark()) piece.fail(error);
  }

  #park(piece: ReadPiece): void {
    piece.release();
    if (this.#refusal !== undefined) {
      piece.fail(this.#refusal);
      return;
    }
    piece.done = false;
    piece.hedged = false;
    piece.tried = piece.avoid;
    piece.again = 0;
    piece.parked = true;
    this.#parked.push(piece);
  }

  #unpark(): ReadPiece[] {
    const pieces = this.#parked.splice(0);
    for (const piece of pieces) piece.parked = false;
    return pieces;
  }

  #hedgeAfterMs(): number {
    const usualMs = this.#latency.percentile(HEDGE_PART) ?? HEDGE_UNKNOWN_MS;
    return Math.min(HEDGE_MAX_MS, Math.max(HEDGE_FLOOR_MS, usualMs));
  }

  /** Asks a second member what a first one is slow to answer. Runs only while reads are on their
   *  way. */
  readonly #hedge = (): void => {
    const { table, clock } = this.#options;
    const afterMs = this.#hedgeAfterMs();
    const slowMs = clock.nowMs() - afterMs;
    this.#hedgeTimer = undefined;
    let more = false;
    for (const link of [...table.inSync]) {
      for (const op of link.pending()) {
        if (!(op instanceof ReadPiece) || op.done) continue;
        more = true;
        if (op.sentMs > slowMs || this.#hedgeCredit < 1) break;
        this.#hedgeOne(op);
      }
    }
    if (more) this.#hedgeTimer = clock.after(afterMs, this.#hedge, BACKGROUND);
  };

  #hedgeOne(piece: ReadPiece): void {
    if (piece.hedged || piece.owner !== this) return;
    const second = this.#cheapest(piece.tried);
    if (second === undefined) return;
    piece.hedged = true;
    this.#hedgeCredit -= 1;
    this.hedges += 1;
    this.#chosen = undefined;
    // The first answer is timed from the first question.
    const { sentMs } = piece;
    this.#sendTo(piece, second);
    piece.sentMs = sentMs;
  }

  check(
    piece: ReadPiece,
    link: ReplicaLink,
    reply: IoReplyView,
    bytes: Buffer,
  ): StorageError | undefined {
    const { offsetBytes, lengthBytes } = piece.question;
    const length = reply.payloadEnd - reply.payloadStart;
    const checksums = reply.checksumsEnd - reply.checksumsStart;
    if (length !== lengthBytes || checksums !== (length / BLOCK_SIZE) * 4) {
      const got = `${length} bytes and ${checksums} of checksums`;
      const text = `replica ${link.replicaId} answered ${got} to a read of ${lengthBytes}`;
      return new StorageError('PROTOCOL_ERROR', text);
    }
    const { verifyBlocks } = this.#options;
    const bad = verifyBlocks(bytes, reply.payloadStart, length, bytes, reply.checksumsStart);
    if (bad < 0) return undefined;
    const at = offsetBytes + bad * BLOCK_SIZE;
    const where = `block at ${at} from replica ${link.replicaId}`;
    const text = `${where} was damaged on its way`;
    return new StorageError('CORRUPT_MESSAGE', text, { replica: link.replicaId, offsetBytes: at });
  }

  /** The member to read from. It is kept for a while: reads that go one way share messages and wake
   *  fewer processes. It is left early when it broke, failed to serve, or has more on its way than
   *  one member should. */
  choose(): ReplicaLink | undefined {
    const chosen = this.#chosen;
    const now = this.#options.clock.nowMs();
    const stale = now - this.#chosenAtMs > CHOICE_MS;
    if (chosen === undefined || chosen.broken !== undefined || stale) {
      this.#chosen = this.#cheapest(0);
      this.#chosenAtMs = now;
      return this.#chosen;
    }
    return chosen.inFlight < SPREAD_IN_FLIGHT ? chosen : this.#cheapest(0);
  }

  #cheapest(tried: number): ReplicaLink | undefined {
    let best: ReplicaLink | undefined;
    let bestCost = Number.POSITIVE_INFINITY;
    for (const link of this.#options.table.inSync) {
      if (link.broken !== undefined || (tried & (1 << link.index)) !== 0) continue;
      const cost = (link.local ? 0 : 1e6) + (link.readLatencyMs + 0.01) * (1 + link.inFlight);
      if (cost < bestCost) {
        best = link;
        bestCost = cost;
      }
    }
    return best;
  }
}

const BACKGROUND = { background: true } as const;
