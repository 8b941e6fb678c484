/** The load finds what it is there to find: each planted fault of a volume is in its report, and a
 *  good volume is not accused. */
import { afterEach, describe, expect, it } from 'vitest';
import { MIB } from '../../../common/units.js';
import type { ReadResult } from '../../../engine/block-volume.js';
import { SeededRandom } from '../../engine/nbd/seeded-random.js';
import { startServer, type TestServer } from '../../engine/nbd/test-server.js';
import { NbdLoadClient } from '../../support/load-client.js';
import { MemoryVolume } from '../../support/memory-volume.js';
import { SECTORS, StampedLoad } from '../../support/stamped-load.js';

const SEED = SeededRandom.runSeed();
const SIZE = 8 * MIB;

let server: TestServer | undefined;
afterEach(() => server?.stop());

/** Runs a load on the volume, sweeps, and says which kinds of violation were found. */
async function judged(volume: MemoryVolume, cuts = [0]): Promise<string[]> {
  server = await startServer({ volume });
  const { path } = server;
  const load = new StampedLoad({
    seed: SEED,
    bytes: SIZE,
    connect: () => NbdLoadClient.connect(path, 'v1'),
    rate: 100_000,
    cuts,
  });
  await load.start();
  await load.more(600);
  await load.stop();
  await load.sweep();
  return load.problems().map((problem) => problem.split(':')[1]?.trim() ?? '');
}

describe('the stamped load', () => {
  it.each([
    { name: 'blocks', cuts: [0] },
    { name: 'sectors', cuts: SECTORS },
    { name: 'cells of any alignment', cuts: [0, 512, 1000, 3333] },
  ])('does not accuse a good volume of $name', async ({ cuts }) => {
    expect(await judged(new SoundVolume({ sizeBytes: SIZE }), cuts)).toEqual([]);
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
