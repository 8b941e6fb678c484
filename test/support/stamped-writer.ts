/**
 * Writes blocks that say who wrote them, remembers what was acknowledged, and checks what is there
 * afterwards (correctness 1.6: each block's value maps to the one write that made it).
 *
 * Never two writes to one block in flight, so per block the allowed values are: the last
 * acknowledged write, or a later one whose outcome is unknown; once seen, a value stays (R1, R2).
 */
import { NBD, SimpleNbd } from './simple-nbd.js';

const BLOCK = 4096;
const MAGIC = 0x41757263;

interface Options {
  readonly seed: number;
  /** writes in flight */
  readonly depth: number;
}

interface BlockState {
  /** id of the last acknowledged write; 0 if none */
  acked: number;
  /** issued after it, outcome unknown; 0 if none */
  unknown: number;
  /** what a check has seen; -1 before */
  seen: number;
}

/** mulberry32: small, seeded, good enough to pick blocks. */
function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function stamp(seed: number, block: number, id: number): Buffer {
  const bytes = Buffer.alloc(BLOCK);
  for (let at = 0; at < BLOCK; at += 16) {
    bytes.writeUInt32LE(MAGIC, at);
    bytes.writeUInt32LE(seed, at + 4);
    bytes.writeUInt32LE(block, at + 8);
    bytes.writeUInt32LE(id, at + 12);
  }
  return bytes;
}

export class StampedWriter {
  readonly blocks = new Map<number, BlockState>();
  readonly errors: string[] = [];
  acknowledged = 0;
  #issued = 0;
  #ended = false;
  readonly #random: () => number;
  readonly #busy = new Set<number>();

  private constructor(
    readonly nbd: SimpleNbd,
    readonly options: Options,
  ) {
    this.#random = random(options.seed + 1);
  }

  static async connect(socket: string, name: string, options: Options): Promise<StampedWriter> {
    return new StampedWriter(await SimpleNbd.connect(socket, name), options);
  }

  /** Keeps `depth` writes in flight until `count` in all are acknowledged or the connection
   *  ends. */
  async writeUntil(count: number): Promise<void> {
    const worker = async (): Promise<void> => {
      while (!this.#ended && this.acknowledged < count) await this.#writeOne();
    };
    await Promise.all(Array.from({ length: this.options.depth }, worker));
  }

  /** Writes until the connection ends: the crash comes meanwhile. */
  runToEnd(): Promise<void> {
    return this.writeUntil(Number.POSITIVE_INFINITY);
  }

  close(): Promise<void> {
    this.#ended = true;
    return this.nbd.close();
  }

  async #writeOne(): Promise<void> {
    const total = Math.floor(this.nbd.sizeBytes / BLOCK);
    // Three in ten go to a hot hundredth of the volume.
    const span = this.#random() < 0.3 ? Math.ceil(total / 100) : total;
    const first = Math.floor(this.#random() * span);
    const count = Math.min(1 + Math.floor(this.#random() ** 3 * 64), total - first);
    const blocks = Array.from({ length: count }, (_, n) => first + n);
    if (blocks.some((b) => this.#busy.has(b))) {
      await new Promise(setImmediate);
      return;
    }
    this.#issued += 1;
    const id = this.#issued;
    for (const block of blocks) {
      this.#busy.add(block);
      const state = this.blocks.get(block);
      if (state === undefined) this.blocks.set(block, { acked: 0, unknown: id, seen: -1 });
      else state.unknown = id;
    }
    const payload = Buffer.concat(blocks.map((b) => stamp(this.options.seed, b, id)));
    try {
      await this.nbd.request(NBD.WRITE, first * BLOCK, payload.length, payload);
      this.acknowledged += 1;
      for (const block of blocks) this.blocks.set(block, { acked: id, unknown: 0, seen: -1 });
    } catch (error) {
      this.errors.push((error as Error).message);
      this.#ended = true;
    }
    for (const block of blocks) this.#busy.delete(block);
  }

  /** Reads every block that `writer` touched and returns what is not allowed, in words. */
  async check(writer: StampedWriter): Promise<string[]> {
    const problems: string[] = [];
    const todo = [...writer.blocks];
    const worker = async (): Promise<void> => {
      for (let next = todo.pop(); next !== undefined; next = todo.pop()) {
        const [block, state] = next;
        const bytes = await this.nbd.request(NBD.READ, block * BLOCK, BLOCK);
        const problem = judge(bytes, { block, seed: writer.options.seed, state });
        if (problem !== undefined && problems.length < 10) problems.push(problem);
      }
    };
    await Promise.all(Array.from({ length: this.options.depth }, worker));
    return problems;
  }
}

function judge(
  bytes: Buffer,
  where: { block: number; seed: number; state: BlockState },
): string | undefined {
  const { block, seed, state } = where;
  const foreign = bytes.readUInt32LE(0) !== MAGIC || bytes.readUInt32LE(4) !== seed;
  const id = foreign ? 0 : bytes.readUInt32LE(12);
  if (!foreign && !bytes.equals(stamp(seed, block, id))) return `block ${block}: torn or misplaced`;
  if (state.acked > 0 && foreign)
    return `block ${block}: acknowledged write ${state.acked} is lost`;
  const allowed = id === state.acked || id === state.unknown;
  if (!allowed) return `block ${block}: has ${id}, wants ${state.acked} or ${state.unknown}`;
  if (state.seen >= 0 && state.seen !== id) return `block ${block}: was ${state.seen}, is ${id}`;
  state.seen = id;
  return undefined;
}
