/**
 * One replica against a naive model, with kills and power cuts at any step
 * (D1, F1, F3, N4, P1, P2, P9).
 *
 * The model keeps for each block the values that it may hold. An acknowledged write leaves one. A
 * flush makes that one the only one a power cut may show; later ones, acknowledged or not, join the
 * candidates. What a restart shows is read back whole and must be one of
 * them. A region that is clean must hold what it held when its tag was given.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BLOCK_SIZE, MIB, REGION_SIZE } from '../../../common/units.js';
import { type Fate, seededRandom } from '../../support/memory-device.js';
import { replace } from './sparse-ops.js';
import { StoreBed, stamped } from './store-bed.js';

/** Windows of the volume that are used: extent edges, a region edge, the end. */
const VOLUME_BYTES = REGION_SIZE + 8 * MIB;
const WINDOWS = [0, 240, 500, REGION_SIZE / BLOCK_SIZE - 20, VOLUME_BYTES / BLOCK_SIZE - 40];
const WINDOW_BLOCKS = 40;

type Step =
  | { op: Change; window: number; at: number; blocks: number; density: number }
  | { op: 'extents'; first: number; count: number }
  | { op: 'flush' | 'reopen' | 'read' }
  | { op: 'clean' | 'cleanAs'; region: number }
  | { op: 'kill'; inFlight: number; cleaning: Cleaning }
  | { op: 'power'; inFlight: number; cleaning: Cleaning; fate: Fate; kept: number };

type Change = 'write' | 'trim' | 'zeroes' | 'noHole' | 'replace';
/** what begins in region 0 just before the operations that a crash meets; without operations it is
 *  done before the crash */
type Cleaning = 'none' | 'clean' | 'cleanAs';

const range = {
  window: fc.integer({ min: 0, max: WINDOWS.length - 1 }),
  at: fc.integer({ min: 0, max: WINDOW_BLOCKS - 1 }),
  blocks: fc.integer({ min: 1, max: WINDOW_BLOCKS }),
  density: fc.integer({ min: 0, max: 4 }),
};
const inFlight = fc.constantFrom(0, 0, 0, 1, 2, 3, 4, 6);
const cleaning = fc.constantFrom<Cleaning>('none', 'clean', 'cleanAs');

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ op: fc.constant('write' as const), ...range }) },
  {
    weight: 3,
    arbitrary: fc.record({ op: fc.constantFrom('trim', 'zeroes', 'noHole'), ...range }),
  },
  { weight: 5, arbitrary: fc.record({ op: fc.constant('replace' as const), ...range }) },
  {
    weight: 1,
    arbitrary: fc.record({
      op: fc.constant('extents' as const),
      first: fc.integer({ min: 0, max: 3 }),
      count: fc.integer({ min: 1, max: 3 }),
    }),
  },
  { weight: 4, arbitrary: fc.record({ op: fc.constant('flush' as const) }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constantFrom('read', 'reopen') }) },
  {
    weight: 4,
    arbitrary: fc.record({
      op: fc.constantFrom('clean', 'cleanAs'),
      region: fc.integer({ min: 0, max: 1 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      op: fc.constant('kill' as const),
      inFlight,
      cleaning,
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      op: fc.constant('power' as const),
      inFlight,
      cleaning,
      fate: fc.constantFrom<Fate>('kept', 'dropped', 'subset'),
      kept: fc.integer({ min: 0, max: 5 }),
    }),
  },
);

/** Stamp of a block's content: 0 is zeroes. */
type Value = number;

class Model {
  /** the value that the last acknowledged operation left */
  readonly current = new Map<number, Value>();
  /** what a power cut may show; missing: only the current one */
  readonly candidates = new Map<number, Set<Value>>();
  /** operations without an answer yet */
  readonly open = new Map<number, Set<Value>>();

  get(block: number): Value {
    return this.current.get(block) ?? 0;
  }

  begin(block: number, value: Value): void {
    const open = this.open.get(block) ?? new Set();
    this.open.set(block, open.add(value));
  }

  acknowledge(block: number, value: Value): void {
    const candidates = this.candidates.get(block) ?? new Set([this.get(block)]);
    this.candidates.set(block, candidates.add(value));
    this.current.set(block, value);
    this.open.get(block)?.delete(value);
  }

  /** Everything acknowledged is durable. */
  flushed(): void {
    this.candidates.clear();
  }

  /** After a kill: the current value or an open one; after a power cut: any candidate too. */
  allowed(block: number, powerCut: boolean): Set<Value> {
    const allowed = new Set(powerCut ? this.candidates.get(block) : []);
    if (allowed.size === 0 || !powerCut) allowed.add(this.get(block));
    for (const value of this.open.get(block) ?? []) allowed.add(value);
    return allowed;
  }
}

const NO_TAG = { epoch: 0, counter: 0 };
const USED = WINDOWS.flatMap((from) => Array.from({ length: WINDOW_BLOCKS }, (_, n) => from + n));

class Run {
  readonly bed: StoreBed;
  readonly model = new Model();
  #stamp = 0;
  #tag = 0;
  /** what a region held when it was given a tag, by counter */
  readonly #named = new Map<number, ReadonlyMap<number, Value>>();
  /** content by first word: stamp and index in its write */
  readonly #contents = new Map<Value, Buffer>([[0, Buffer.alloc(BLOCK_SIZE)]]);

  constructor(seed: number) {
    // Answers take a random number of turns, so that crashes fall between any two of them.
    const random = seededRandom(seed + 7);
    const later = async (most: number): Promise<void> => {
      for (let n = Math.floor(random() * most); n >= 0; n -= 1) await turn();
    };
    this.bed = new StoreBed({
      diskBytes: 14 * MIB,
      volumeBytes: VOLUME_BYTES,
      seed,
      disk: { answerAfter: () => later(4) },
    });
    this.bed.kvs.beforeBatch = () => later(4);
  }

  async step(step: Step): Promise<void> {
    const { bed, model } = this;
    switch (step.op) {
      case 'flush':
        await bed.store.flush();
        model.flushed();
        break;
      case 'read':
        await this.check(false);
        break;
      case 'reopen':
        await bed.close();
        await bed.open();
        model.flushed();
        break;
      case 'clean':
      case 'cleanAs':
        await this.clean(step.op, step.region);
        break;
      case 'extents':
        await this.trimExtents(step.first, step.count);
        break;
      case 'kill':
      case 'power':
        await this.crash(step);
        break;
      default:
        await this.operation(step);
    }
  }

  operation(step: Extract<Step, { op: Change }>): Promise<void> {
    const { model } = this;
    const first = (WINDOWS[step.window] ?? 0) + step.at;
    // A replace stays in its extent.
    const edge = step.op === 'replace' ? (Math.floor(first / 256) + 1) * 256 : Infinity;
    const blocks = Math.min(step.blocks, WINDOW_BLOCKS - step.at, edge - first);
    const values: Value[] = [];
    for (let n = 0; n < blocks; n += 1) {
      const comes = step.op === 'write' || (step.op === 'replace' && n % 5 < step.density);
      values.push(comes ? ++this.#stamp : 0);
      model.begin(first + n, values[n] ?? 0);
    }
    return this.perform(step.op, first, values).then(() => {
      for (const [n, value] of values.entries()) model.acknowledge(first + n, value);
    });
  }

  perform(op: Change, first: number, values: readonly Value[]): Promise<void> {
    const { bed } = this;
    const contents = values.map((value) => (value === 0 ? undefined : this.contentOf(value)));
    if (op === 'replace') return replace(bed, first, contents);
    const zeroes = this.contentOf(0);
    if (op === 'write') return bed.write(first, Buffer.concat(contents.map((c) => c ?? zeroes)));
    const [at, length] = [first * BLOCK_SIZE, values.length * BLOCK_SIZE];
    if (op === 'trim') return bed.store.trim(at, length);
    return bed.store.writeZeroes(at, length, { noHole: op === 'noHole' });
  }

  /** With nothing in flight in the region: its tag names what the model holds now. */
  async clean(how: 'clean' | 'cleanAs', region: number): Promise<void> {
    const { store } = this.bed;
    const tag = { epoch: 1, counter: ++this.#tag };
    const name = (): void => {
      const held = blocksOf(region).map((block) => [block, this.model.get(block)] as const);
      this.#named.set(tag.counter, new Map(held));
    };
    if (how === 'clean') {
      name();
      await store.clean(region, tag);
      return;
    }
    const extents = (await store.extents(region)).filter(({ allocated }) => allocated);
    name();
    const extentTags = extents.map(({ number }) => ({ extent: number, tag }));
    await store.cleanAs(region, extents.length === 0 ? NO_TAG : tag, extentTags);
  }

  async trimExtents(first: number, count: number): Promise<void> {
    const blocks = USED.filter((block) => block >= first * 256 && block < (first + count) * 256);
    for (const block of blocks) this.model.begin(block, 0);
    await this.bed.store.trim(first * MIB, count * MIB);
    for (const block of blocks) this.model.acknowledge(block, 0);
  }

  /** With operations in flight, each in a window of its own. */
  async crash(step: Extract<Step, { op: 'kill' | 'power' }>): Promise<void> {
    const { bed } = this;
    const ops: readonly Change[] = ['write', 'trim', 'replace', 'noHole', 'write'];
    const work: Array<Promise<void>> = [];
    if (step.cleaning !== 'none') {
      // Refused if the operations below are there first.
      work.push(this.clean(step.cleaning, 0).catch(() => undefined));
    }
    for (const [window] of WINDOWS.entries()) {
      if (window >= step.inFlight) break;
      const op = ops[(window + this.#stamp) % ops.length] ?? 'write';
      const size = { window, at: window * 3, blocks: 12 + window * 5, density: window };
      const operation = this.operation({ op, ...size });
      work.push(operation.catch(() => undefined));
    }
    if (step.inFlight === 0) await Promise.all(work);
    else for (let n = 0; n < this.#stamp % 23; n += 1) await turn();
    if (step.op === 'kill') await bed.kill();
    else await bed.powerCut(step.fate, step.kept);
    await Promise.all(work);
    await bed.open();
    await this.check(step.op === 'power');
    this.model.open.clear();
  }

  /** Reads everything; what is there is what there is from now on (R2). */
  async check(powerCut: boolean): Promise<void> {
    for (const from of WINDOWS) {
      const bytes = await this.bed.read(from, WINDOW_BLOCKS);
      for (let n = 0; n < WINDOW_BLOCKS; n += 1) {
        const block = from + n;
        const content = bytes.subarray(n * BLOCK_SIZE, (n + 1) * BLOCK_SIZE);
        const allowed = this.model.allowed(block, powerCut);
        const found = [...allowed].find((value) => this.contentOf(value).equals(content));
        if (found === undefined) {
          const want = [...allowed].join(' or ');
          throw new Error(`block ${block} begins ${content.readUInt32LE(0)}, want ${want}`);
        }
        // After a kill an unanswered write that is there counts as acknowledged; flushing it is the
        // engine's part (P5).
        if (found !== this.model.get(block)) this.model.acknowledge(block, found);
        if (powerCut) this.model.candidates.delete(block);
      }
    }
    this.checkTags();
  }

  /** P2: a region without mark holds what its tag was given to; without a tag, nothing. */
  checkTags(): void {
    const infos = this.bed.store.regions(0, 2);
    for (const region of [0, 1]) {
      const info = infos.find(({ number }) => number === region);
      if (info?.dirty === true) continue;
      const named = this.#named.get(info?.tag.counter ?? 0);
      for (const block of blocksOf(region)) {
        const want = named?.get(block) ?? 0;
        if (this.model.get(block) === want) continue;
        const text = `block ${block} holds ${this.model.get(block)}, its clean region ${want}`;
        throw new Error(`tag ${info?.tag.counter}: ${text}`);
      }
    }
  }

  contentOf(value: Value): Buffer {
    let content = this.#contents.get(value);
    if (content === undefined) {
      content = stamped(value, 1);
      this.#contents.set(value, content);
    }
    return content;
  }
}

function blocksOf(region: number): number[] {
  const first = (region * REGION_SIZE) / BLOCK_SIZE;
  return USED.filter((block) => block >= first && block < first + REGION_SIZE / BLOCK_SIZE);
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

async function play(steps: readonly Step[], seed: number): Promise<void> {
  const run = new Run(seed);
  await run.bed.open();
  for (const next of steps) await run.step(next);
  await run.check(false);
  await run.bed.close();
  expect(run.bed.pool.usedBytes).toBe(0);
}

describe('F1, F3, D1, N4, P2: a replica that is killed and loses power', () => {
  const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
  const numRuns = Number(process.env['RUNS'] ?? 25);

  it(`holds what the model allows (SEED=${seed} RUNS=${numRuns})`, async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { minLength: 15, maxLength: 40, size: 'max' }),
        fc.integer({ min: 1, max: 1 << 30 }),
        play,
      ),
      { seed, numRuns, timeout: 15_000 },
    );
  }, 120_000);
});
