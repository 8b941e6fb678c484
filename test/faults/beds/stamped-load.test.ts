/** The load finds what it is there to find: each planted fault of a volume is in its report, and a
 *  good volume is not accused. */
import { afterEach, describe, expect, it } from 'vitest';
import { MIB } from '../../../common/units.js';
import type { ReadResult } from '../../../engine/block-volume.js';
import { SeededRandom } from '../../engine/nbd/seeded-random.js';
import { startServer, type TestServer } from '../../engine/nbd/test-server.js';
import { NbdLoadClient } from '../../support/load-client.js';
import { MemoryVolume } from '../../support/memory-volume.js';
import { StampedLoad } from '../../support/stamped-load.js';
import { readStamps, stampCells } from '../../support/stamps.js';

const SEED = SeededRandom.runSeed();
const SIZE = 8 * MIB;

let server: TestServer | undefined;
afterEach(() => server?.stop());

/** Runs a load on the volume, sweeps, and says which kinds of violation were found. */
async function judged(volume: MemoryVolume, cellBytes = 4096): Promise<string[]> {
  server = await startServer({ volume });
  const { path } = server;
  const load = new StampedLoad({
    seed: SEED,
    bytes: SIZE,
    connect: () => NbdLoadClient.connect(path, 'v1'),
    rate: 100_000,
    cellBytes,
  });
  await load.start();
  await load.more(1500);
  await load.stop();
  await load.sweep();
  return load.problems().map((problem) => problem.split(':')[1]?.trim() ?? '');
}

describe('stamps', () => {
  it('say which write made a cell, and what is wrong with it', () => {
    const range = { first: 7, count: 3, cellBytes: 512 };
    const bytes = stampCells({ run: 5, op: 9 }, range);
    const read = (run: number, first: number): number[] =>
      readStamps(bytes, { run, first, cellBytes: 512 });
    expect(read(5, 7)).toEqual([9, 9, 9]);
    expect(read(6, 7)).toEqual([-2, -2, -2]);
    expect(read(5, 8)).toEqual([-3, -3, -3]);
    stampCells({ run: 5, op: 10 }, range).copy(bytes, 512 + 256, 512 + 256, 1024);
    bytes.fill(0, 1024);
    expect(read(5, 7)).toEqual([9, -1, 0]);
  });
});

describe('the stamped load', () => {
  it.each([4096, 512])('does not accuse a good volume (cells of %i bytes)', async (cellBytes) => {
    expect(await judged(new SoundVolume({ sizeBytes: SIZE }), cellBytes)).toEqual([]);
  });

  it('finds writes that are answered and forgotten (F1)', async () => {
    const found = await judged(new ForgetfulVolume({ sizeBytes: SIZE }));
    expect(new Set(found)).toEqual(new Set(['stale']));
  });

  it('finds two copies that differ (N1)', async () => {
    expect(await judged(new TwoCopies({ sizeBytes: SIZE }))).toContain('stale');
  });

  it('finds a block of two writes (N2) and a block in the wrong place (R7)', async () => {
    expect(await judged(new SpoilingVolume({ sizeBytes: SIZE }, 100))).toContain('torn');
    await server?.stop();
    expect(await judged(new SpoilingVolume({ sizeBytes: SIZE }, 4096))).toContain('foreign');
  });
});

/** Reads are copies: what is sent does not change under way (N2). */
class SoundVolume extends MemoryVolume {
  override async read(...args: Parameters<MemoryVolume['read']>): Promise<ReadResult> {
    const { chunks, release } = await super.read(...args);
    const copy = Buffer.concat(chunks);
    release();
    return { chunks: [copy], release: () => undefined };
  }
}

const oneIn = (count: number): boolean => Math.random() * count < 1;

class ForgetfulVolume extends SoundVolume {
  override write(...args: Parameters<MemoryVolume['write']>): Promise<void> {
    return oneIn(100) ? Promise.resolve() : super.write(...args);
  }
}

/** Reads go to one of two volumes, and one in a hundred writes to one alone. */
class TwoCopies extends SoundVolume {
  readonly #other = new SoundVolume({ sizeBytes: SIZE });

  override async write(...args: Parameters<MemoryVolume['write']>): Promise<void> {
    if (!oneIn(100)) await this.#other.write(...args);
    await super.write(...args);
  }

  override async trim(...args: Parameters<MemoryVolume['trim']>): Promise<void> {
    await this.#other.trim(...args);
    await super.trim(...args);
  }

  override async writeZeroes(...args: Parameters<MemoryVolume['writeZeroes']>): Promise<void> {
    await this.#other.writeZeroes(...args);
    await super.writeZeroes(...args);
  }

  override read(...args: Parameters<MemoryVolume['read']>): ReturnType<MemoryVolume['read']> {
    return oneIn(2) ? this.#other.read(...args) : super.read(...args);
  }
}

/** One in a hundred writes is shifted. */
class SpoilingVolume extends SoundVolume {
  constructor(
    options: ConstructorParameters<typeof MemoryVolume>[0],
    readonly byBytes: number,
  ) {
    super(options);
  }

  override write(...args: Parameters<MemoryVolume['write']>): Promise<void> {
    const [offset, length, payload, options] = args;
    const shifted = oneIn(100) && offset + length + this.byBytes <= this.sizeBytes;
    return super.write(shifted ? offset + this.byBytes : offset, length, payload, options);
  }
}
