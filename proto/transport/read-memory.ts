/**
 * Memory that a socket reads into, used again instead of made new for every read: collecting that
 * garbage took a receiver more time than all our code (ADR 0003).
 *
 * A piece with messages that are still held is set aside and comes back when the last of them was
 * released.
 */
import { KIB } from '../../common/units.js';
import type { ReceivedBytes } from './receive-memory.js';

const START_BYTES = 64 * KIB;
const GROWN_BYTES = 256 * KIB;
/** Free pieces kept besides the current one. */
const SPARE_MAX = 4;
/** Pieces held by messages: beyond, what is read is copied, or many small messages would pin many
 * large pieces. */
const HELD_MAX = 8;

/** One piece. Messages that are views of it hold it. */
export class ReadPiece implements ReceivedBytes {
  readonly aligned = false;
  #holders = 0;
  readonly #onFree: (piece: ReadPiece) => void;

  constructor(
    readonly bytes: Buffer,
    onFree: (piece: ReadPiece) => void,
  ) {
    this.#onFree = onFree;
  }

  get held(): boolean {
    return this.#holders > 0;
  }

  hold(): void {
    this.#holders += 1;
  }

  release(): void {
    this.#holders -= 1;
    if (this.#holders === 0) this.#onFree(this);
  }
}

/** The pieces of one connection. */
export class ReadMemory {
  #current: ReadPiece;
  #spare: ReadPiece[] = [];
  #sizeBytes = START_BYTES;
  /** pieces set aside because messages hold them */
  #heldCount = 0;
  readonly #onFree = (piece: ReadPiece): void => {
    if (piece !== this.#current) this.#heldCount -= 1;
    const useful = piece !== this.#current && piece.bytes.length === this.#sizeBytes;
    if (useful && this.#spare.length < SPARE_MAX) this.#spare.push(piece);
  };

  constructor() {
    this.#current = this.#make();
  }

  /** What the last read went to. */
  get current(): ReadPiece {
    return this.#current;
  }

  /** So many pieces are held that the next message should not hold one more. */
  get crowded(): boolean {
    return this.#heldCount >= HELD_MAX;
  }

  /** For the next read. `lastBytes`: what the last one brought; a full piece asks for larger ones.
   */
  next(lastBytes: number): ReadPiece {
    const grow = lastBytes === this.#sizeBytes && this.#sizeBytes < GROWN_BYTES;
    if (grow) {
      this.#sizeBytes = GROWN_BYTES;
      this.#spare = [];
    }
    if (this.#current.held) this.#heldCount += 1;
    else if (!grow) return this.#current;
    this.#current = this.#spare.pop() ?? this.#make();
    return this.#current;
  }

  #make(): ReadPiece {
    return new ReadPiece(Buffer.allocUnsafeSlow(this.#sizeBytes), this.#onFree);
  }
}
