/** Bytes of a large disk in little memory: pieces that nobody wrote are zeroes and take none, and a
 *  copy shares its pieces until one of the two is written. */
import assert from 'node:assert';
import { KIB } from '../../../common/units.js';

const PIECE_BYTES = 64 * KIB;

export class SparseBytes {
  #pieces = new Map<number, Buffer>();
  /** pieces that no copy shares */
  #own = new Set<number>();

  constructor(readonly sizeBytes: number) {}

  /** Pieces that take memory here, shared ones included. */
  get residentBytes(): number {
    return this.#pieces.size * PIECE_BYTES;
  }

  read(offsetBytes: number, lengthBytes: number): Buffer {
    const bytes = Buffer.alloc(lengthBytes);
    this.#walk(offsetBytes, lengthBytes, (index, at, length, done) => {
      this.#pieces.get(index)?.copy(bytes, done, at, at + length);
    });
    return bytes;
  }

  write(offsetBytes: number, bytes: Buffer): void {
    this.#walk(offsetBytes, bytes.length, (index, at, length, done) => {
      bytes.copy(this.#take(index), at, done, done + length);
    });
  }

  zero(offsetBytes: number, lengthBytes: number): void {
    this.#walk(offsetBytes, lengthBytes, (index, at, length) => {
      if (!this.#pieces.has(index)) return;
      if (length < PIECE_BYTES) {
        this.#take(index).fill(0, at, at + length);
        return;
      }
      this.#pieces.delete(index);
      this.#own.delete(index);
    });
  }

  /** An equal copy; what is written to either later is not seen in the other. */
  fork(): SparseBytes {
    const copy = new SparseBytes(this.sizeBytes);
    copy.#pieces = new Map(this.#pieces);
    this.#own.clear();
    return copy;
  }

  #take(index: number): Buffer {
    const piece = this.#pieces.get(index);
    if (piece !== undefined && this.#own.has(index)) return piece;
    const taken = piece === undefined ? Buffer.alloc(PIECE_BYTES) : Buffer.from(piece);
    this.#pieces.set(index, taken);
    this.#own.add(index);
    return taken;
  }

  #walk(
    offsetBytes: number,
    lengthBytes: number,
    visit: (index: number, at: number, length: number, done: number) => void,
  ): void {
    assert(offsetBytes >= 0 && offsetBytes + lengthBytes <= this.sizeBytes, 'inside the disk');
    for (let done = 0; done < lengthBytes; ) {
      const at = (offsetBytes + done) % PIECE_BYTES;
      const length = Math.min(PIECE_BYTES - at, lengthBytes - done);
      visit(Math.floor((offsetBytes + done) / PIECE_BYTES), at, length, done);
      done += length;
    }
  }
}
