/** What sparse reads, replaces and hashes owe, on any disk. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { BLOCK_SIZE, BLOCKS_PER_EXTENT, MIB } from '../../../common/units.js';
import type { StoreCounters } from '../../../replica/store/store-counters.js';
import {
  type Blocks,
  blockHash,
  hashOf,
  names,
  readSparse,
  replace,
  type StoreUnderTest,
} from './sparse-ops.js';
import { checksumsOf, stamped } from './store-bed.js';

interface Step {
  readonly kind: string;
  readonly first: number;
  readonly count: number;
  readonly density: number;
}

export interface SuiteBed extends StoreUnderTest {
  readonly counters: StoreCounters;
}

const blocksOf = (count: number, stamp: (n: number) => number): Blocks =>
  Array.from({ length: count }, (_, n) => (stamp(n) === 0 ? undefined : stamped(stamp(n), 1)));

async function write(bed: SuiteBed, block: number, content: Buffer): Promise<void> {
  const data = bed.pool.acquire(content.length);
  content.copy(data.bytes);
  await bed.store.write(block * BLOCK_SIZE, data, checksumsOf(content));
}

const CASES: ReadonlyArray<readonly [string, (beds: Beds) => Promise<void>]> = [
  [
    'a sparse read brings the present blocks, of a new volume none',
    async ({ open }) => {
      const bed = await open();
      const none = await bed.store.readSparse(0, MIB);
      expect(none).toEqual({ data: undefined, checksums: Buffer.alloc(32) });
      expect(bed.counters.deviceReads).toBe(0);
      await write(bed, 3, stamped(1, 1));
      await write(bed, 250, stamped(2, 12));
      const two = stamped(2, 12);
      const found = await readSparse(bed, 248, 20);
      const want = Array.from({ length: 20 }, (_, n) =>
        n >= 2 && n < 14 ? two.subarray((n - 2) * BLOCK_SIZE, (n - 1) * BLOCK_SIZE) : undefined,
      );
      expect(names(found)).toEqual(names(want));
      const whole = Array.from({ length: 256 }, (_, n) => {
        if (n === 3) return stamped(1, 1);
        return n >= 250 ? two.subarray((n - 250) * BLOCK_SIZE, (n - 249) * BLOCK_SIZE) : undefined;
      });
      expect(names(await readSparse(bed, 0, 256))).toEqual(names(whole));
      expect(names(await readSparse(bed, 4, 240, { raw: true }))).toEqual(
        names(Array(240).fill(undefined)),
      );
    },
  ],
  [
    'after a replace the range holds exactly that: old blocks stay, go and change',
    async ({ open }) => {
      const bed = await open();
      await write(bed, 0, stamped(1, 256));
      const content = blocksOf(6, (n) => [0, 11, 0, 0, 12, 0][n] ?? 0);
      await replace(bed, 10, content);
      expect(names(await readSparse(bed, 10, 6))).toEqual(names(content));
      expect(await bed.store.map(8 * BLOCK_SIZE, 10 * BLOCK_SIZE, 10)).toEqual([
        { blocks: 2, hole: false },
        { blocks: 1, hole: true },
        { blocks: 1, hole: false },
        { blocks: 2, hole: true },
        { blocks: 1, hole: false },
        { blocks: 1, hole: true },
        { blocks: 2, hole: false },
      ]);
      const read = await bed.store.read(8 * BLOCK_SIZE, 10 * BLOCK_SIZE);
      const whole = stamped(1, 256);
      const want = [8, 9, 10, 11, 12, 13, 14, 15, 16, 17].map((n) =>
        n < 10 || n > 15
          ? whole.subarray(n * BLOCK_SIZE, (n + 1) * BLOCK_SIZE)
          : (content[n - 10] ?? Buffer.alloc(BLOCK_SIZE)),
      );
      expect(read.data?.bytes.equals(Buffer.concat(want))).toBe(true);
      read.data?.release();
    },
  ],
  [
    'a replace of a whole extent, of its last block, of an absent one',
    async ({ open }) => {
      const bed = await open();
      const whole = blocksOf(256, (n) => (n % 3 === 0 ? n + 1 : 0));
      await replace(bed, 256, whole);
      expect(names(await readSparse(bed, 256, 256))).toEqual(names(whole));
      await replace(
        bed,
        511,
        blocksOf(1, () => 900),
      );
      expect(names(await readSparse(bed, 510, 3))).toEqual(
        names([undefined, stamped(900, 1), undefined]),
      );
      expect(bed.store.allocatedBytes).toBe(MIB);
    },
  ],
  [
    'a replace by nothing is a trim; of nothing by nothing it is nothing (P1)',
    async ({ open }) => {
      const bed = await open();
      await replace(bed, 0, Array(256).fill(undefined));
      expect(bed.store.dirtyRegions()).toEqual([]);
      expect(bed.store.allocatedBytes).toBe(0);
      await write(bed, 0, stamped(1, 4));
      await bed.store.flush();
      await bed.store.clean(0, { epoch: 1, counter: 1 });
      await replace(bed, 4, Array(200).fill(undefined));
      expect(bed.store.dirtyRegions()).toEqual([]);
      await replace(bed, 1, Array(2).fill(undefined));
      expect(bed.store.dirtyRegions()).toEqual([0]);
      expect((await readSparse(bed, 0, 4)).map((block) => block !== undefined)).toEqual([
        ...[true, false, false, true],
      ]);
      await replace(bed, 0, Array(256).fill(undefined));
      expect(bed.store.allocatedBytes).toBe(0);
    },
  ],
  [
    '4 KiB data, 4 KiB hole: one read and one write of the device',
    async ({ open }) => {
      const bed = await open();
      const half = blocksOf(256, (n) => (n % 2 === 0 ? n + 1 : 0));
      await replace(bed, 0, half);
      const before = { ...bed.counters };
      await replace(bed, 0, half);
      expect(bed.counters.deviceWrites - before.deviceWrites).toBe(1);
      expect(names(await readSparse(bed, 0, 256))).toEqual(names(half));
      expect(bed.counters.deviceReads - before.deviceReads).toBe(1);
      const read = await bed.store.read(0, MIB);
      read.data?.release();
      expect(bed.counters.deviceReads - before.deviceReads).toBe(2);
      await bed.store.hash(0, MIB);
      expect(bed.counters.deviceReads - before.deviceReads).toBe(3);
    },
  ],
  [
    'blocks far apart are read and written one by one',
    async ({ open }) => {
      const bed = await open();
      const far = blocksOf(256, (n) => (n % 100 === 7 ? n + 1 : 0));
      await replace(bed, 0, far);
      const before = { ...bed.counters };
      await replace(bed, 0, far);
      expect(bed.counters.deviceWrites - before.deviceWrites).toBe(3);
      expect(names(await readSparse(bed, 0, 256))).toEqual(names(far));
      expect(bed.counters.deviceReads - before.deviceReads).toBe(3);
    },
  ],
  [
    'hashes are of the content, those of absent blocks of zeroes',
    async ({ open }) => {
      const bed = await open();
      const content = blocksOf(300, (n) => (n % 7 < 3 ? n + 1 : 0));
      await replace(bed, 200, content.slice(0, 56));
      await replace(bed, 256, content.slice(56));
      await bed.store.writeZeroes(600 * BLOCK_SIZE, BLOCK_SIZE, { noHole: true });
      for (const raw of [false, true]) {
        expect(await hashOf(bed, 300, 200, { raw })).toEqual(
          content.slice(100).map((block) => ({
            ...{ present: block !== undefined, bad: false, hash: blockHash(block) },
          })),
        );
      }
      const [zero, absent] = await hashOf(bed, 600, 2);
      expect(zero).toEqual({ present: true, bad: false, hash: blockHash(undefined) });
      expect(absent).toEqual({ present: false, bad: false, hash: blockHash(undefined) });
    },
  ],
  [
    'what one store reads another one replaces by; it survives closing and opening',
    async ({ open, again }) => {
      const bed = await open();
      const content = blocksOf(256, (n) => (n % 5 === 1 || n > 200 ? n + 1 : 0));
      await replace(bed, 512, content);
      const sums = await bed.store.readSparse(512 * BLOCK_SIZE, MIB);
      sums.data?.release();
      await bed.store.flush();
      const later = await again();
      expect(names(await readSparse(later, 512, 256))).toEqual(names(content));
      const same = await later.store.readSparse(512 * BLOCK_SIZE, MIB);
      expect(same.checksums.equals(sums.checksums)).toBe(true);
      same.data?.release();
    },
  ],
  [
    'refuses ranges over an extent edge, and what does not go together',
    async ({ open }) => {
      const bed = await open();
      const refused = async (block: number, content: Blocks): Promise<void> => {
        await expect(replace(bed, block, content)).rejects.toMatchObject({
          code: 'INVALID_ARGUMENT',
        });
      };
      await refused(
        255,
        blocksOf(2, () => 1),
      );
      await refused(255, [undefined, undefined]);
      const sums = Buffer.alloc(4);
      const one = { bitmap: Buffer.of(1), checksums: sums, data: bed.pool.acquire(2 * BLOCK_SIZE) };
      const call = bed.store.replace(0, BLOCK_SIZE, one);
      await expect(call).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
      const bare = { bitmap: Buffer.of(1), checksums: sums, data: undefined };
      await expect(bed.store.replace(0, BLOCK_SIZE, bare)).rejects.toMatchObject({
        code: 'INVALID_ARGUMENT',
      });
      expect(bed.store.allocatedBytes).toBe(0);
    },
  ],
  [
    'agrees with a model under writes, trims, zeroes and replaces',
    async ({ open }) => {
      const bed = await open();
      const model: Array<Buffer | undefined> = Array(2 * BLOCKS_PER_EXTENT).fill(undefined);
      let stamp = 1000;
      const range = { first: fc.nat(511), count: fc.integer({ min: 1, max: 60 }) };
      const op = fc.record({
        kind: fc.constantFrom('write', 'trim', 'zero', 'replace', 'replace'),
        density: fc.integer({ min: 0, max: 9 }),
        ...range,
      });
      const play = async (steps: readonly Step[]): Promise<void> => {
        for (const { kind, first, count: most, density } of steps) {
          const edge = kind === 'replace' && first < BLOCKS_PER_EXTENT ? BLOCKS_PER_EXTENT : 512;
          const count = Math.min(most, edge - first);
          const content = Array.from({ length: count }, (_, n): Buffer | undefined => {
            if (kind === 'trim') return undefined;
            if (kind === 'zero') return Buffer.alloc(BLOCK_SIZE);
            stamp += 1;
            return kind === 'write' || (n * 7 + stamp) % 10 < density
              ? stamped(stamp, 1)
              : undefined;
          });
          const [at, length] = [first * BLOCK_SIZE, count * BLOCK_SIZE];
          if (kind === 'replace') await replace(bed, first, content);
          else if (kind === 'trim') await bed.store.trim(at, length);
          else if (kind === 'zero') await bed.store.writeZeroes(at, length, { noHole: true });
          else await write(bed, first, Buffer.concat(content as Buffer[]));
          model.splice(first, count, ...content);
        }
        for (const from of [0, 130, 256]) {
          expect(names(await readSparse(bed, from, 256))).toEqual(
            names(model.slice(from, from + 256)),
          );
          const hashes = await hashOf(bed, from, 256);
          expect(hashes.map(({ hash }) => hash)).toEqual(
            model.slice(from, from + 256).map((block) => blockHash(block)),
          );
        }
      };
      await fc.assert(fc.asyncProperty(fc.array(op, { minLength: 1, maxLength: 12 }), play), {
        numRuns: 12,
      });
    },
  ],
];

export interface Beds {
  /** a fresh store, on a volume of at least 8 MiB */
  readonly open: () => Promise<SuiteBed>;
  /** the same store, closed in order and opened again */
  readonly again: () => Promise<SuiteBed>;
}

export function sparseSuite(beds: Beds): void {
  it.each(CASES)('%s', (_name, run) => run(beds));
}
