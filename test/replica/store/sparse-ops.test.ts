/** Sparse reads, replaces and hashes: the suite on a disk in memory, and what only that one can
 *  show. */
import { afterEach, describe, expect, it } from 'vitest';
import { BLOCK_SIZE, MIB } from '../../../common/units.js';
import { blockHash, hashOf, names, readSparse, replace } from './sparse-ops.js';
import { type SuiteBed, sparseSuite } from './sparse-suite.js';
import { StoreBed, stamped } from './store-bed.js';

const ZERO = Buffer.alloc(BLOCK_SIZE);

let bed: StoreBed;

const suiteBed = (): SuiteBed => ({
  ...{ store: bed.store, pool: bed.pool, counters: bed.disk.counters },
});

async function open(options?: ConstructorParameters<typeof StoreBed>[0]): Promise<SuiteBed> {
  bed = new StoreBed(options);
  await bed.open();
  return suiteBed();
}

/** Where the only extent of the volume begins on the device. */
function placeOf(content: Buffer): number {
  return bed.medium.peek(MIB, 31 * MIB).indexOf(content.subarray(0, 64)) + MIB;
}

afterEach(async () => {
  await bed.close();
  expect(bed.pool.usedBytes).toBe(0);
});

describe('on a disk in memory', () => {
  sparseSuite({
    open: () => open(),
    again: async () => {
      await bed.close();
      await bed.open();
      return suiteBed();
    },
  });
});

describe('blocks that are not as written', () => {
  async function rotten(): Promise<{ on: SuiteBed; place: number }> {
    const on = await open();
    await bed.write(0, stamped(1, 16));
    const place = placeOf(stamped(1, 16));
    bed.medium.rot(place + 5 * BLOCK_SIZE + 100);
    return { on, place };
  }

  const block = (n: number): Buffer =>
    stamped(1, 16).subarray(n * BLOCK_SIZE, (n + 1) * BLOCK_SIZE);

  it('R7: a sparse read of one is CORRUPT_BLOCK, with its index in the request', async () => {
    const { on } = await rotten();
    await on.store.trim(2 * BLOCK_SIZE, 2 * BLOCK_SIZE);
    await expect(readSparse(on, 1, 10)).rejects.toMatchObject({
      code: 'CORRUPT_BLOCK',
      details: { badBlock: 4, offsetBytes: 5 * BLOCK_SIZE },
    });
    const raw = await readSparse(on, 1, 10, { raw: true });
    expect(raw.map((found) => found !== undefined)).toEqual([
      ...[true, false, false, true, true, true, true, true, true, true],
    ]);
    expect(raw[4]?.equals(block(5))).toBe(false);
  });

  it('a hash says which are bad, and what they hold; raw judges nothing', async () => {
    const { on, place } = await rotten();
    const held = bed.medium.peek(place + 5 * BLOCK_SIZE, BLOCK_SIZE);
    const hashes = await hashOf(on, 4, 4);
    expect(hashes.map(({ bad }) => bad)).toEqual([false, true, false, false]);
    expect(hashes.map(({ hash }) => hash)).toEqual(
      [block(4), held, block(6), block(7)].map((content) => blockHash(content)),
    );
    expect(bed.disk.counters.corruptBlocks).toBe(1);
    const raw = await hashOf(on, 4, 4, { raw: true });
    expect(raw).toEqual(hashes.map((hashed) => ({ ...hashed, bad: false })));
  });

  it('scenario 43: blocks that the device cannot read are bad, their hash is zero', async () => {
    const { on, place } = await rotten();
    const unreadable = { offsetBytes: place + 6 * BLOCK_SIZE, lengthBytes: 2 * BLOCK_SIZE };
    for (const raw of [false, true]) {
      const disarm = bed.medium.inject({ op: 'read', errno: 'EIO', count: 99, range: unreadable });
      const hashes = await hashOf(on, 0, 16, { raw });
      disarm();
      const bad = hashes.flatMap((hashed, n) => (hashed.bad ? [n] : []));
      expect(bad).toEqual(raw ? [6, 7] : [5, 6, 7]);
      expect(hashes.every(({ present }) => present)).toBe(true);
      for (const [n, { hash }] of hashes.entries()) {
        if (n === 5) continue;
        expect(hash).toBe(n === 6 || n === 7 ? '0'.repeat(32) : blockHash(block(n)));
      }
    }
    expect(bed.store.failedReason).toBeUndefined();
  });

  it('bytes that stand in the gap between present blocks are never looked at', async () => {
    const on = await open();
    await replace(on, 0, [stamped(1, 1), undefined, stamped(2, 1)]);
    bed.medium.poke(placeOf(stamped(1, 1)) + BLOCK_SIZE, stamped(66, 1));
    const reads = on.counters.deviceReads;
    expect((await bed.read(0, 3)).equals(Buffer.concat([stamped(1, 1), ZERO, stamped(2, 1)]))).toBe(
      true,
    );
    expect((await bed.read(0, 3, { raw: true })).subarray(BLOCK_SIZE, 2 * BLOCK_SIZE)).toEqual(
      ZERO,
    );
    const [, gap] = await hashOf(on, 0, 3);
    expect(gap).toEqual({ present: false, bad: false, hash: blockHash(undefined) });
    expect(on.counters.deviceReads - reads).toBe(3);
  });

  it('a replace of the bad block makes it good', async () => {
    const { on } = await rotten();
    await replace(on, 5, [block(5)]);
    expect((await hashOf(on, 0, 16)).some(({ bad }) => bad)).toBe(false);
  });
});

describe('after an unclean stop', () => {
  it('a hash makes checksums true first; raw leaves them alone', async () => {
    await open();
    await bed.write(0, stamped(1, 8));
    await bed.write(2, stamped(2, 1));
    await bed.kill();
    await bed.open();
    const on = suiteBed();
    const raw = await hashOf(on, 0, 8, { raw: true });
    expect(on.counters.reprovenExtents).toBe(0);
    const proved = await hashOf(on, 0, 8);
    expect(on.counters.reprovenExtents).toBe(1);
    expect(proved).toEqual(raw);
    expect(proved.some(({ bad }) => bad)).toBe(false);
  });

  it('what a killed write left beside replaced blocks does not show', async () => {
    await open();
    await bed.write(0, stamped(1, 1));
    await bed.kill();
    bed.medium.poke(placeOf(stamped(1, 1)) + 7 * BLOCK_SIZE, stamped(66, 1));
    await bed.open();
    const on = suiteBed();
    await replace(on, 6, [stamped(2, 1), undefined, stamped(3, 1)]);
    const place = placeOf(stamped(1, 1)) + 7 * BLOCK_SIZE;
    expect(bed.medium.peek(place, BLOCK_SIZE).equals(Buffer.alloc(BLOCK_SIZE))).toBe(true);
    expect(names(await readSparse(on, 6, 3))).toEqual(
      names([stamped(2, 1), undefined, stamped(3, 1)]),
    );
  });
});

describe('invariants of a replace', () => {
  it('an absent block is zero on the device, wherever it was', async () => {
    const on = await open();
    await bed.write(0, stamped(1, 256));
    const place = placeOf(stamped(1, 256));
    const content = Array.from({ length: 256 }, (_, n) =>
      n < 40 ? (n % 2 === 0 ? stamped(9, 1) : undefined) : n === 200 ? stamped(8, 1) : undefined,
    );
    await replace(on, 0, content);
    for (const [n, bytes] of content.entries()) {
      const held = bed.medium.peek(place + n * BLOCK_SIZE, BLOCK_SIZE);
      expect(held.equals(bytes ?? Buffer.alloc(BLOCK_SIZE)), `block ${n}`).toBe(true);
    }
  });

  it('P1: the mark is durable before the device is touched', async () => {
    const on = await open();
    await bed.write(0, stamped(1, 4));
    await bed.store.flush();
    await bed.store.clean(0, { epoch: 1, counter: 1 });
    const { syncs } = bed.kvs.only;
    const operations = bed.medium.operations;
    const work = replace(on, 0, [stamped(2, 1), undefined]);
    while (bed.medium.operations === operations) await new Promise((go) => setImmediate(go));
    const syncsAtWrite = bed.kvs.only.syncs;
    await work;
    expect(syncsAtWrite).toBe(syncs + 1);
    expect(bed.store.dirtyRegions()).toEqual([0]);
  });

  it('N3: one that meets a write waits for it', async () => {
    const on = await open();
    await bed.write(0, stamped(1, 8));
    const write = bed.write(2, stamped(2, 2));
    const swap = replace(on, 0, [undefined, stamped(3, 1), stamped(4, 1), undefined]);
    await Promise.all([write, swap]);
    expect(names(await readSparse(on, 0, 4))).toEqual(
      names([...[undefined, stamped(3, 1), stamped(4, 1), undefined]]),
    );
  });

  it('P2: a clean is refused while one is in flight', async () => {
    const on = await open();
    await bed.write(0, stamped(1, 8));
    const swap = replace(on, 0, [stamped(3, 1)]);
    await expect(bed.store.clean(0, { epoch: 1, counter: 7 })).rejects.toMatchObject({
      code: 'CONFLICT',
    });
    await swap;
    await bed.store.clean(0, { epoch: 1, counter: 7 });
  });
});

describe('a replace that cannot be done', () => {
  it('scenario 37: NO_SPACE changes nothing', async () => {
    const on = await open({ diskBytes: 9 * MIB });
    for (let n = 0; n < 8; n += 1) await bed.write(n * 256, stamped(n + 1, 1));
    const full = replace(on, 9 * 256, [stamped(50, 1), undefined, stamped(51, 1)]);
    await expect(full).rejects.toMatchObject({ code: 'NO_SPACE' });
    expect(names(await readSparse(on, 9 * 256, 3))).toEqual(
      names([undefined, undefined, undefined]),
    );
    expect(bed.store.failedReason).toBeUndefined();
    expect(bed.store.allocatedBytes).toBe(8 * MIB);
  });

  it('NO_SPACE of the device below: absent blocks stay absent and zero', async () => {
    const on = await open();
    await bed.write(0, stamped(1, 2));
    bed.medium.inject({ op: 'write', errno: 'ENOSPC' });
    const swap = replace(on, 4, [stamped(2, 1), undefined, stamped(3, 1)]);
    await expect(swap).rejects.toMatchObject({ code: 'NO_SPACE' });
    expect(bed.store.failedReason).toBeUndefined();
    expect(names(await readSparse(on, 4, 3))).toEqual(names([undefined, undefined, undefined]));
    await replace(on, 4, [undefined, stamped(4, 1)]);
    expect(names(await readSparse(on, 4, 2))).toEqual(names([undefined, stamped(4, 1)]));
  });

  for (const op of ['write', 'zeroes'] as const) {
    it(`P8: EIO on ${op} fails the replica`, async () => {
      const on = await open();
      await bed.write(0, stamped(1, 200));
      bed.medium.inject({ op, errno: 'EIO' });
      const content = Array.from({ length: 200 }, (_, n) => (n < 4 ? stamped(2, 1) : undefined));
      await expect(replace(on, 0, content)).rejects.toMatchObject({ code: 'IO_ERROR' });
      await expect(readSparse(on, 0, 1)).rejects.toMatchObject({ code: 'REPLICA_FAILED' });
    });
  }
});
