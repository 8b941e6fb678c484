/** One replace, or one taking over of tags, cut off after each of its steps: each device operation
 *  and each metadata batch (F1, F3, P1, P2). */
import { afterEach, describe, expect, it } from 'vitest';
import { BLOCK_SIZE } from '../../../common/units.js';
import type { Fate } from '../../support/memory-device.js';
import { type Blocks, names, readSparse, replace } from './sparse-ops.js';
import { StoreBed, stamped } from './store-bed.js';

type Cut = 'kill' | Fate;

const CUTS: readonly Cut[] = ['kill', 'kept', 'dropped', 'subset'];
const BLOCKS = 64;
const ZERO = Buffer.alloc(BLOCK_SIZE);
const TAG = { epoch: 1, counter: 1 };

let bed: StoreBed;

afterEach(() => bed.close());

/** Lets `steps` answers of device and metadata through; the rest never comes. */
class Stepper {
  left = Number.POSITIVE_INFINITY;
  #reached = (): void => undefined;
  readonly #never = new Promise<void>(() => undefined);
  /** resolves when an answer was held back */
  held = new Promise<void>((resolve) => {
    this.#reached = resolve;
  });

  arm(steps: number): void {
    this.left = steps;
    this.held = new Promise((resolve) => {
      this.#reached = resolve;
    });
  }

  disarm(): void {
    this.left = Number.POSITIVE_INFINITY;
  }

  async pass(): Promise<void> {
    this.left -= 1;
    if (this.left < 0) {
      this.#reached();
      await this.#never;
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
}

const stamps = (text: string, first: number): Blocks =>
  Array.from(text, (letter, n) => (letter === '#' ? stamped(first + n, 1) : undefined));

/** What was before, clean and durable. */
async function prepare(steps: Stepper, before: Blocks): Promise<void> {
  bed = new StoreBed({ disk: { answerAfter: () => steps.pass() } });
  bed.kvs.beforeBatch = () => steps.pass();
  await bed.open();
  await replace(bed, 0, before);
  await bed.store.flush();
  if (bed.store.dirtyRegions().length > 0) await bed.store.clean(0, TAG);
  await bed.store.flush();
}

async function cut(how: Cut, kvBatchesKept: number): Promise<void> {
  if (how === 'kill') await bed.kill();
  else await bed.powerCut(how, kvBatchesKept);
}

/** True if the work was done before its steps were used up. */
async function runFor(steps: Stepper, count: number, work: () => Promise<void>): Promise<boolean> {
  steps.arm(count);
  const done = work().then(
    () => true,
    () => false,
  );
  const finished = await Promise.race([done, steps.held.then(() => false)]);
  // Whatever else was let through comes to where it stops.
  for (let n = 0; n < 10; n += 1) await new Promise((resolve) => setImmediate(resolve));
  return finished;
}

function expectOldOrNew(found: Blocks, before: Blocks, after: Blocks, where: string): void {
  for (let n = 0; n < BLOCKS; n += 1) {
    const allowed = [before[n], after[n]].map((block) => names([block ?? ZERO])[0]);
    expect(allowed, `${where}, block ${n}`).toContain(names([found[n] ?? ZERO])[0]);
  }
}

const EMPTY = '.'.repeat(BLOCKS);
const cases: Array<[string, string, string]> = [
  ['into an empty extent', EMPTY, '#.'.repeat(BLOCKS / 2)],
  ['over what is there', '#'.repeat(BLOCKS), '.#'.repeat(BLOCKS / 2)],
  ['few blocks for many', '#'.repeat(BLOCKS), `#${'.'.repeat(BLOCKS - 2)}#`],
  ['nothing for something', '##..'.repeat(BLOCKS / 4), EMPTY],
  ['the same bits', '#..#'.repeat(BLOCKS / 4), '#..#'.repeat(BLOCKS / 4)],
];

describe('F1, F3: a replace that is cut off', () => {
  it.each(cases)('%s: each block is old or new, whatever was lost', async (_name, old, next) => {
    const before = stamps(old, 1);
    const after = stamps(next, 1000);
    for (const how of CUTS) {
      for (let count = 0; ; count += 1) {
        const steps = new Stepper();
        await prepare(steps, before);
        const done = await runFor(steps, count, () => replace(bed, 0, after));
        steps.disarm();
        await cut(how, count % 3);
        await bed.open();
        const where = `${how} after ${count} steps`;
        const found = await readSparse(bed, 0, BLOCKS);
        expectOldOrNew(found, before, after, where);
        // P1, P2: where the region is clean still, all of it is as it was.
        const clean = bed.store.dirtyRegions().length === 0;
        if (clean) expect(names(found), where).toEqual(names(before));
        if (done && how === 'kill' && !clean) expect(names(found), where).toEqual(names(after));
        expect(names(await readSparse(bed, 0, BLOCKS)), where).toEqual(names(found));
        await bed.close();
        if (done) break;
      }
    }
  });
});

describe('P2: taking over tags that is cut off', () => {
  it('leaves the mark, or the tags with everything they name', async () => {
    const before = stamps('#.'.repeat(BLOCKS / 2), 1);
    const after = stamps('##..'.repeat(BLOCKS / 4), 1000);
    const tag = { epoch: 9, counter: 9 };
    for (const how of CUTS) {
      for (let count = 0; ; count += 1) {
        const steps = new Stepper();
        await prepare(steps, before);
        await replace(bed, 0, after);
        const extentTags = [{ extent: 0, tag }];
        const done = await runFor(steps, count, () => bed.store.cleanAs(0, tag, extentTags));
        steps.disarm();
        await cut(how, 0);
        await bed.open();
        const where = `${how} after ${count} steps`;
        const [info] = bed.store.regions(0, 1);
        const [extent] = await bed.store.extents(0);
        if (done) expect(info, where).toMatchObject({ dirty: false, tag });
        if (info?.dirty === false) {
          expect(info.tag, where).toEqual(tag);
          expect(extent, where).toMatchObject({ allocated: true, written: false, tag });
          expect(names(await readSparse(bed, 0, BLOCKS)), where).toEqual(names(after));
        } else {
          expect(info?.tag, where).toEqual(TAG);
          expect(extent, where).toMatchObject({ written: true, tag: TAG });
          expectOldOrNew(await readSparse(bed, 0, BLOCKS), before, after, where);
        }
        await bed.close();
        if (done) break;
      }
    }
  });
});
