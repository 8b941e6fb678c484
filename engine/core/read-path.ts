/**
 * Reads from one good copy, verified, with the other copies behind it.
 *
 * - Local members first, then the lowest smoothed latency weighed by what is in flight.
 * - Every block is verified here against the checksum the replica stored, end to end: a wrong byte
 *   is never returned (R7). A mismatch, an I/O error or a lost link leads to the next copy; only
 *   when no copy is good the read fails.
 * - The caller holds the range lock (shared), so that no write runs in the range meanwhile (N1).
 */
import type { Clock } from '../../common/clock.js';
import { StorageError } from '../../common/errors.js';
import { BLOCK_SIZE, WIRE_IO_BYTES_MAX } from '../../common/units.js';
import { IO_OP, type IoReplyView } from '../../proto/io-codec.js';
import type { IncomingMessage } from '../../proto/message-stream.js';
import { codeOfStatus } from '../../proto/status.js';
import type { ReadResult } from '../block-volume.js';
import type { PendingOp, Settled } from './pending-op.js';
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
  readonly links: () => readonly ReplicaLink[];
  readonly clock: Clock;
  readonly verifyBlocks: VerifyBlocks;
  readonly onBadCopy: (link: ReplicaLink, error: StorageError, offsetBytes: number) => void;
}

/** How long a chosen member is kept. */
const CHOICE_MS = 50;
/** With more than this on its way to the chosen member, reads go to whoever is cheapest. */
const SPREAD_IN_FLIGHT = 128;

const ZEROES = Buffer.alloc(64 * 1024);

/** One wire read on its way, or its data. */
class ReadPiece implements PendingOp, ReadResult {
  sentMs = 0;
  /** copies that were tried, as bits by link index */
  tried = 0;
  chunks: Buffer[] = [];
  message: IncomingMessage | undefined;
  lastError: StorageError | undefined;
  resolve!: (result: ReadResult) => void;
  reject!: (error: StorageError) => void;

  constructor(
    readonly path: ReadPath,
    readonly offsetBytes: number,
    readonly lengthBytes: number,
    readonly after?: Settled,
  ) {}

  release(): void {
    this.message?.release();
  }

  #succeed(): void {
    this.after?.settled();
    this.resolve(this);
  }

  onReply(link: ReplicaLink, reply: IoReplyView, message: IncomingMessage): void {
    link.noteRead(this.sentMs);
    if (reply.status !== 0) {
      const code = codeOfStatus(reply.status) ?? 'INTERNAL';
      const at = code === 'CORRUPT_BLOCK' ? reply.badBlock * BLOCK_SIZE : 0;
      const details = { replica: link.replicaId, offsetBytes: this.offsetBytes + at };
      const error = new StorageError(code, reply.detail || `read: ${code}`, details);
      this.path.badCopy(this, link, error);
      return;
    }
    const length = reply.payloadEnd - reply.payloadStart;
    if (length === 0) {
      for (let left = this.lengthBytes; left > 0; left -= ZEROES.length) {
        this.chunks.push(left >= ZEROES.length ? ZEROES : ZEROES.subarray(0, left));
      }
      this.#succeed();
      return;
    }
    const error = this.path.check(this, link, reply, message.bytes);
    if (error !== undefined) {
      this.path.badCopy(this, link, error);
      return;
    }
    message.retain();
    this.message = message;
    this.chunks.push(message.bytes.subarray(reply.payloadStart, reply.payloadEnd));
    this.#succeed();
  }

  onLost(link: ReplicaLink, error: StorageError): void {
    this.path.badCopy(this, link, error);
  }
}

export class ReadPath {
  readonly #options: ReadPathOptions;
  #chosen: ReplicaLink | undefined;
  #chosenAtMs = -1;

  constructor(options: ReadPathOptions) {
    this.#options = options;
  }

  /** @param offsetBytes whole blocks, as is the length. The result is borrowed until `release`.
   *  @throws StorageError NO_REPLICA | CORRUPT_BLOCK | IO_ERROR: no copy could serve all of it */
  async read(offsetBytes: number, lengthBytes: number): Promise<ReadResult> {
    const first = WIRE_IO_BYTES_MAX - (offsetBytes % WIRE_IO_BYTES_MAX);
    if (lengthBytes <= first) return this.readPiece(offsetBytes, lengthBytes);
    const pieces: ReadPiece[] = [];
    const end = offsetBytes + lengthBytes;
    for (let at = offsetBytes; at < end; ) {
      const length = Math.min(end - at, WIRE_IO_BYTES_MAX - (at % WIRE_IO_BYTES_MAX));
      pieces.push(new ReadPiece(this, at, length));
      at += length;
    }
    const release = (): void => {
      for (const piece of pieces) piece.message?.release();
    };
    const outcomes = await Promise.allSettled(pieces.map((piece) => this.#start(piece)));
    const failed = outcomes.find((o) => o.status === 'rejected');
    if (failed !== undefined) {
      release();
      throw failed.reason;
    }
    return { chunks: pieces.flatMap((piece) => piece.chunks), release };
  }

  #start(piece: ReadPiece): Promise<ReadResult> {
    return new Promise((resolve, reject) => {
      piece.resolve = resolve;
      piece.reject = reject;
      this.#send(piece);
    });
  }

  #send(piece: ReadPiece): void {
    const link = piece.tried === 0 ? this.choose() : this.#cheapest(piece.tried);
    if (link === undefined) {
      piece.after?.settled();
      piece.reject(
        piece.lastError ?? new StorageError('NO_REPLICA', 'no in-sync replica can be read'),
      );
      return;
    }
    piece.tried |= 1 << link.index;
    link.request(piece, {
      op: IO_OP.READ,
      flags: 0,
      offsetBytes: piece.offsetBytes,
      lengthBytes: piece.lengthBytes,
    });
  }

  /** A read that stays in one extent: one promise, one object. @param after told when it has ended,
   *  either way */
  readPiece(offsetBytes: number, lengthBytes: number, after?: Settled): Promise<ReadResult> {
    return this.#start(new ReadPiece(this, offsetBytes, lengthBytes, after));
  }

  /** One piece from any copy but `avoid`'s: what a repair writes. @throws as `read` */
  async readFromOthers(
    avoid: ReplicaLink,
    offsetBytes: number,
    lengthBytes: number,
  ): Promise<ReadResult> {
    const piece = new ReadPiece(this, offsetBytes, lengthBytes);
    piece.tried = 1 << avoid.index;
    return this.#start(piece);
  }

  /** This copy did not serve: remember why, ask the next one. */
  badCopy(piece: ReadPiece, link: ReplicaLink, error: StorageError): void {
    // The most telling error survives: bad bytes say more than a link that is gone.
    if (piece.lastError === undefined || error.code === 'CORRUPT_BLOCK') piece.lastError = error;
    this.#options.onBadCopy(link, error, piece.offsetBytes);
    this.#chosen = undefined;
    this.#send(piece);
  }

  check(
    piece: ReadPiece,
    link: ReplicaLink,
    reply: IoReplyView,
    bytes: Buffer,
  ): StorageError | undefined {
    const length = reply.payloadEnd - reply.payloadStart;
    const checksums = reply.checksumsEnd - reply.checksumsStart;
    if (length !== piece.lengthBytes || checksums !== (length / BLOCK_SIZE) * 4) {
      const got = `${length} bytes and ${checksums} of checksums`;
      const text = `replica ${link.replicaId} answered ${got} to a read of ${piece.lengthBytes}`;
      return new StorageError('PROTOCOL_ERROR', text);
    }
    const { verifyBlocks } = this.#options;
    const bad = verifyBlocks(bytes, reply.payloadStart, length, bytes, reply.checksumsStart);
    if (bad < 0) return undefined;
    const offsetBytes = piece.offsetBytes + bad * BLOCK_SIZE;
    const where = `block at ${offsetBytes} from replica ${link.replicaId}`;
    const text = `${where} does not match its checksum`;
    return new StorageError('CORRUPT_BLOCK', text, { replica: link.replicaId, offsetBytes });
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
    for (const link of this.#options.links()) {
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
