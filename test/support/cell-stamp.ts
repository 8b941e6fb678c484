/**
 * Cells of a volume, and contents that say who wrote them.
 *
 * A cell is a block or a part of one, cut at the same places in every block, so that writes of any
 * alignment still change whole cells. Only some windows of the volume have cells. A stamped cell
 * holds {magic, run, cell, write}, noise that depends on both, and a checksum of all of it: a read
 * maps every cell to the one write that made it, and finds bytes of two writes, of another place or
 * of nobody.
 */
import assert from 'node:assert';
import { BLOCK_SIZE } from '../../common/units.js';
import { crc32c } from '../../native/index.js';
import { BAD_FOREIGN, BAD_MISPLACED, BAD_TORN, ZERO } from './history.js';
import { seededRandom } from './memory-device.js';

export interface CellWindow {
  readonly firstBlock: number;
  readonly blocks: number;
}

/** Numbers, noise, checksum. */
export const CELL_BYTES_MIN = 32;

interface PlacedWindow extends CellWindow {
  readonly firstCell: number;
}

export class CellLayout {
  readonly cells: number;
  readonly #windows: readonly PlacedWindow[];
  readonly #cuts: readonly number[];

  /** @param cuts where the cells of a block begin, ascending from 0 */
  constructor(windows: readonly CellWindow[], cuts: readonly number[] = [0]) {
    assert(cuts[0] === 0);
    for (const [n, cut] of cuts.entries()) {
      assert((cuts[n + 1] ?? BLOCK_SIZE) - cut >= CELL_BYTES_MIN, 'a cell is too small');
    }
    this.#cuts = cuts;
    let cells = 0;
    this.#windows = windows.map((window) => {
      const firstCell = cells;
      cells += window.blocks * cuts.length;
      return { ...window, firstCell };
    });
    this.cells = cells;
  }

  /** First cell of each window. */
  windowStarts(): number[] {
    return this.#windows.map(({ firstCell }) => firstCell);
  }

  /** Cells from this one to the end of its window: what one operation may cover. */
  roomAt(cell: number): number {
    const { firstCell, blocks } = this.#windowOf(cell);
    return firstCell + blocks * this.#cuts.length - cell;
  }

  offsetOf(cell: number): number {
    const { firstCell, firstBlock } = this.#windowOf(cell);
    const inside = cell - firstCell;
    const block = firstBlock + Math.floor(inside / this.#cuts.length);
    return block * BLOCK_SIZE + (this.#cuts[inside % this.#cuts.length] ?? 0);
  }

  lengthOf(cell: number): number {
    const cut = (cell - this.#windowOf(cell).firstCell) % this.#cuts.length;
    return (this.#cuts[cut + 1] ?? BLOCK_SIZE) - (this.#cuts[cut] ?? 0);
  }

  /** The bytes of cells that follow each other in one window. */
  rangeOf(first: number, count: number): { offsetBytes: number; lengthBytes: number } {
    assert(count > 0 && count <= this.roomAt(first));
    const last = first + count - 1;
    const offsetBytes = this.offsetOf(first);
    return { offsetBytes, lengthBytes: this.offsetOf(last) + this.lengthOf(last) - offsetBytes };
  }

  /** The cells of a window that lie in a block of the volume; undefined if none do. */
  cellsOfBlock(block: number): { first: number; count: number } | undefined {
    const window = this.#windows.find(
      ({ firstBlock, blocks }) => block >= firstBlock && block < firstBlock + blocks,
    );
    if (window === undefined) return undefined;
    const count = this.#cuts.length;
    return { first: window.firstCell + (block - window.firstBlock) * count, count };
  }

  #windowOf(cell: number): PlacedWindow {
    const window = this.#windows.findLast(({ firstCell }) => cell >= firstCell);
    assert(window !== undefined && cell < this.cells, `cell ${cell} of ${this.cells}`);
    return window;
  }
}

const MAGIC = 0x41757263;
const NUMBERS_BYTES = 16;
const CHECKSUM_BYTES = 4;
const NOISE_BYTES = 64 * 1024;
const ZEROES = Buffer.alloc(BLOCK_SIZE);

const noise = makeNoise();

function makeNoise(): Buffer {
  const random = seededRandom(4711);
  const bytes = Buffer.alloc(NOISE_BYTES + BLOCK_SIZE);
  for (let at = 0; at < bytes.length; at += 4) bytes.writeUInt32LE(random() * 2 ** 32, at);
  return bytes;
}

export class CellStamps {
  constructor(
    readonly layout: CellLayout,
    readonly run: number,
  ) {}

  /** The payload of a write. */
  payload(first: number, count: number, op: number): Buffer {
    const bytes = Buffer.allocUnsafe(this.layout.rangeOf(first, count).lengthBytes);
    let at = 0;
    for (let cell = first; cell < first + count; cell += 1) {
      const end = at + this.layout.lengthOf(cell);
      this.#stamp(bytes.subarray(at, end), cell, op);
      at = end;
    }
    return bytes;
  }

  /** The value of each cell in the bytes that a read of them returned. */
  values(first: number, count: number, bytes: Buffer): number[] {
    const values: number[] = [];
    let at = 0;
    for (let cell = first; cell < first + count; cell += 1) {
      const end = at + this.layout.lengthOf(cell);
      values.push(this.#valueOf(bytes.subarray(at, end), cell));
      at = end;
    }
    assert(at === bytes.length, `${bytes.length} bytes for cells of ${at}`);
    return values;
  }

  #stamp(bytes: Buffer, cell: number, op: number): void {
    const from = (Math.imul(op, 0x9e3779b1) ^ Math.imul(cell, 0x85ebca6b)) & (NOISE_BYTES - 1);
    noise.copy(bytes, 0, from, from + bytes.length);
    bytes.writeUInt32LE(MAGIC, 0);
    bytes.writeUInt32LE(this.run, 4);
    bytes.writeUInt32LE(cell, 8);
    bytes.writeUInt32LE(op, 12);
    const end = bytes.length - CHECKSUM_BYTES;
    bytes.writeUInt32LE(checksum(bytes, end), end);
  }

  #valueOf(bytes: Buffer, cell: number): number {
    if (bytes.readUInt32LE(0) !== MAGIC) {
      return bytes.equals(ZEROES.subarray(0, bytes.length)) ? ZERO : BAD_TORN;
    }
    const end = bytes.length - CHECKSUM_BYTES;
    if (checksum(bytes, end) !== bytes.readUInt32LE(end)) return BAD_TORN;
    if (bytes.readUInt32LE(4) !== this.run) return BAD_FOREIGN;
    return bytes.readUInt32LE(8) === cell ? bytes.readUInt32LE(12) : BAD_MISPLACED;
  }
}

/** Not the plain crc32c: a block that ends with its own has the same crc32c as every other such
 *  block, and the checksums of the system under test would tell none from another. */
function checksum(bytes: Buffer, end: number): number {
  let mixed = 0;
  for (let at = 4; at < NUMBERS_BYTES; at += 4) {
    mixed = Math.imul(mixed ^ bytes.readUInt32LE(at), 0x85ebca6b);
    mixed ^= mixed >>> 15;
  }
  return (crc32c(bytes.subarray(0, end)) ^ mixed) >>> 0;
}

assert(CELL_BYTES_MIN > NUMBERS_BYTES + CHECKSUM_BYTES);
