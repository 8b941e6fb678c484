import { describe, expect, it } from 'vitest';
import { StorageError } from '../../../common/errors.js';
import { BLOCK_SIZE, EXTENT_SIZE, MIB, REGION_SIZE } from '../../../common/units.js';
import { IO_OP } from '../../../proto/io-codec.js';
import { CatchUpBed as Bed } from '../../support/catch-up-bed.js';
import { fill, outcome, turns } from '../../support/engine-bed.js';
import { ManualGate } from '../../support/manual-gate.js';

const C = 2;

/** Copies of extents that travelled to the member, as first block and number of blocks. */
const replaced = (bed: Bed): string[] =>
  bed
    .at(C)
    .seen.filter((s) => s.op === IO_OP.REPLACE)
    .map((s) => `${s.offsetBytes / BLOCK_SIZE}+${s.lengthBytes / BLOCK_SIZE}`);

/** Three equal members with some content, cleaned; then `c` is cut off and excluded. */
async function degraded(tuning: ConstructorParameters<typeof Bed>[1] = {}): Promise<Bed> {
  const bed = new Bed(3, tuning);
  for (const extent of [0, 1, 3]) await bed.write(extent * MIB, fill(8 * BLOCK_SIZE, extent + 1));
  await bed.cleaner.clean(0);
  bed.at(C).cut();
  await bed.keeper.changed();
  bed.at(C).seen.length = 0;
  return bed;
}

async function expectPromoted(bed: Bed): Promise<void> {
  expect(bed.at(C).seen.at(-1)?.op).toBe(IO_OP.FLUSH);
  await bed.keeper.promote('c');
  await turns(3);
  bed.expectEqualCopies();
  expect(bed.set.healthy()).toEqual(['a', 'b', 'c']);
  expect(bed.lock.size).toBe(0);
}

describe('a member that was away for a while, by what it missed (F2, P6)', () => {
  it('gets the blocks that it missed and no others, then flushes, and is promoted', async () => {
    const bed = await degraded();
    await bed.write(5 * BLOCK_SIZE, fill(2 * BLOCK_SIZE, 9));
    await bed.write(3 * MIB, fill(BLOCK_SIZE, 8));
    await bed.catchUp(C);
    expect(replaced(bed).sort()).toEqual(['5+2', '768+1']);
    expect(bed.calls).toEqual([]);
    await expectPromoted(bed);
  });

  it('nothing missed: only a flush', async () => {
    const bed = await degraded();
    await bed.catchUp(C);
    expect(bed.at(C).seen.map((s) => s.op)).toEqual([IO_OP.FLUSH]);
    await expectPromoted(bed);
  });

  it('D3: a member that may have lost more has its dirty regions compared as well', async () => {
    const bed = await degraded();
    await bed.write(0, fill(BLOCK_SIZE, 9));
    bed.at(C).copy.write(7 * BLOCK_SIZE, BLOCK_SIZE, fill(BLOCK_SIZE, 99));
    await bed.catchUp(C, { suspectRegions: [0] });
    await expectPromoted(bed);
  });

  it('R6: a write to a range that is being copied waits, and wins', async () => {
    const bed = await degraded();
    await bed.write(0, fill(4 * BLOCK_SIZE, 9));
    bed.at(C).hold(true);
    const caughtUp = bed.catchUp(C);
    await turns(10);
    const write = bed.write(0, fill(4 * BLOCK_SIZE, 10));
    await turns(5);
    expect(bed.at(C).bytes[0]).toBe(9);
    bed.at(C).hold(false);
    await Promise.all([caughtUp, write]);
    expect(bed.at(C).bytes[0]).toBe(10);
    await expectPromoted(bed);
  });

  it('what it did not get before it broke off is missed still, and nothing else', async () => {
    const bed = await degraded();
    for (const extent of [0, 1, 2, 3]) await bed.write(extent * MIB, fill(BLOCK_SIZE, 9));
    let copies = 0;
    bed.at(C).onRequest = ({ op }) => {
      copies += op === IO_OP.REPLACE ? 1 : 0;
      if (copies === 2) bed.at(C).cut();
    };
    expect(await outcome(bed.catchUp(C))).toBe('UNAVAILABLE');
    bed.at(C).onRequest = () => undefined;
    const left = bed.table.away.get('c')?.extentCount ?? 0;
    expect(left).toBeGreaterThan(0);
    bed.at(C).seen.length = 0;
    await bed.catchUp(C);
    expect(replaced(bed)).toHaveLength(left);
    await expectPromoted(bed);
  });
});

describe('a member of which nothing is known, by dirty regions and tags (P2, P6)', () => {
  it('visits what is dirty or has another tag, copies what differs, takes over tags', async () => {
    const bed = await degraded({ sizeBytes: 3 * REGION_SIZE });
    await bed.write(REGION_SIZE, fill(BLOCK_SIZE, 5));
    await bed.cleaner.clean(0);
    await bed.write(2 * REGION_SIZE, fill(BLOCK_SIZE, 6));
    await bed.catchUp(C, { forgets: true });
    const first = (offset: number): number => offset / BLOCK_SIZE;
    expect(replaced(bed)).toEqual([`${first(REGION_SIZE)}+256`, `${first(2 * REGION_SIZE)}+256`]);
    const [a, c] = [bed.at(0).copy, bed.at(C).copy];
    // Region 1 was cleaned on the source: it is now on the member, with the same names.
    expect(c.regions(1, 1)).toEqual(a.regions(1, 1));
    expect(c.extents(1)).toEqual(a.extents(1));
    expect(c.dirtyRegions()).toEqual([2]);
    await expectPromoted(bed);
  });

  it('a new member gets every allocated extent and nothing else', async () => {
    const bed = await degraded();
    bed.at(C).copy.write(0, bed.sizeBytes, undefined);
    bed.at(C).copy.clean(0, { epoch: 0, counter: 0 });
    await bed.catchUp(C, { forgets: true });
    expect(replaced(bed).sort()).toEqual(['0+256', '256+256', '768+256']);
    await expectPromoted(bed);
  });

  it('what only the member has is cleared', async () => {
    const bed = await degraded();
    bed.at(C).copy.write(2 * MIB, BLOCK_SIZE, fill(BLOCK_SIZE, 99));
    await bed.catchUp(C, { forgets: true });
    expect(bed.at(C).bytes[2 * MIB]).toBe(0);
    await expectPromoted(bed);
  });

  it('scenario 65: an extent first written between the lists is kept', async () => {
    const bed = await degraded();
    bed.at(C).copy.write(0, BLOCK_SIZE, fill(BLOCK_SIZE, 99));
    let write: Promise<void> | undefined;
    const written = (): Promise<void> => {
      write ??= bed.write(2 * MIB, fill(BLOCK_SIZE, 7));
      return write;
    };
    // The source says that the extent is empty, then it is written, then the member says that it
    // has it.
    bed.waits.set('a:listExtents', { after: written });
    bed.waits.set('c:listExtents', { before: written });
    await bed.catchUp(C, { forgets: true });
    expect(bed.at(C).bytes[2 * MIB]).toBe(7);
    await expectPromoted(bed);
  });
});

describe('what a catch-up waits for', () => {
  it('P2: changes that were under way when the member came', async () => {
    const bed = await degraded();
    bed.at(1).hold(true);
    const write = bed.write(2 * MIB, fill(BLOCK_SIZE, 7));
    await turns(3);
    const caughtUp = bed.catchUp(C, { forgets: true });
    await turns(10);
    expect(bed.calls).toEqual([]);
    bed.at(1).hold(false);
    await Promise.all([write, caughtUp]);
    await expectPromoted(bed);
  });

  it('R1: the in-sync members are equal first: that may change what their tags say', async () => {
    const bed = await degraded();
    let equal = (): void => undefined;
    bed.whenEqual = () =>
      new Promise((resolve) => {
        equal = resolve;
      });
    const caughtUp = bed.catchUp(C, { forgets: true });
    await turns(10);
    expect(bed.calls).toEqual([]);
    bed.at(0).copy.write(0, BLOCK_SIZE, fill(BLOCK_SIZE, 50));
    bed.at(1).copy.write(0, BLOCK_SIZE, fill(BLOCK_SIZE, 50));
    equal();
    await caughtUp;
    expect(bed.at(C).bytes[0]).toBe(50);
    await expectPromoted(bed);
  });

  it('P5: a range in which the in-sync members may differ', async () => {
    const gate = new ManualGate();
    const bed = await degraded({ gate });
    await bed.write(0, fill(BLOCK_SIZE, 9));
    gate.close();
    const caughtUp = bed.catchUp(C);
    await turns(10);
    expect(replaced(bed)).toEqual([]);
    expect(gate.asked).toEqual([[0, EXTENT_SIZE]]);
    gate.open();
    await caughtUp;
    await expectPromoted(bed);
  });

  it('the end of the tenure ends it, and nothing is left locked', async () => {
    const bed = await degraded();
    await bed.write(0, fill(BLOCK_SIZE, 9));
    bed.at(C).hold(true);
    const caughtUp = outcome(bed.catchUp(C));
    await turns(10);
    bed.abort.abort(new StorageError('CLOSED', 'the engine stops'));
    bed.endTenure(new StorageError('CLOSED', 'the engine stops'));
    expect(await caughtUp).toBe('CLOSED');
    expect(bed.lock.size).toBe(0);
  });
});

describe('sources and targets that fail (scenarios 43, 64)', () => {
  it('a source that is gone is replaced by another', async () => {
    const bed = await degraded();
    for (const extent of [0, 1, 2, 3]) await bed.write(extent * MIB, fill(BLOCK_SIZE, 9));
    bed.at(0).onRequest = ({ op }) => {
      if (op === IO_OP.READ) bed.at(0).cut();
    };
    await bed.catchUp(C);
    bed.replicas.shift();
    await bed.keeper.promote('c');
    bed.expectEqualCopies();
  });

  it.each([
    { name: 'by what it missed', forgets: false },
    { name: 'by tags', forgets: true },
  ])('43: a block that one source cannot serve comes from another ($name)', async ({ forgets }) => {
    const bed = await degraded();
    const bad = [0, 1, 2, 3].map((extent) => extent * MIB + 2 * BLOCK_SIZE);
    for (const at of bad) await bed.write(at - 2 * BLOCK_SIZE, fill(8 * BLOCK_SIZE, 9));
    for (const at of bad) bed.at(0).rotten.add(at + 100);
    await bed.catchUp(C, { forgets });
    // The bad block itself is named, to be mended.
    expect(bed.badSources.length).toBeGreaterThan(0);
    const named = bed.badSources.map((text) => Number(text.split(':')[2]));
    expect(named.filter((at) => !bad.includes(at))).toEqual([]);
    bed.at(0).rotten.clear();
    await expectPromoted(bed);
  });

  it('43: with no source for a block it fails, and is never promoted with a hole', async () => {
    const bed = await degraded();
    await bed.write(0, fill(8 * BLOCK_SIZE, 9));
    for (const n of [0, 1]) bed.at(n).rotten.add(100);
    expect(await outcome(bed.catchUp(C))).toBe('CORRUPT_BLOCK');
    expect(bed.set.roleOf('c')).toBe('out');
    expect(bed.table.away.get('c')?.extentCount).toBe(1);
    expect(bed.badSources.sort()).toEqual(['a:CORRUPT_BLOCK:0', 'b:CORRUPT_BLOCK:0']);
  });

  it.each([
    { name: 'has no space', op: IO_OP.REPLACE, code: 'NO_SPACE' as const },
    { name: 'cannot flush (D3)', op: IO_OP.FLUSH, code: 'IO_ERROR' as const },
  ])('a member that $name stays out', async ({ op, code }) => {
    const bed = await degraded();
    await bed.write(0, fill(BLOCK_SIZE, 9));
    bed.at(C).refuse(op, code);
    expect(await outcome(bed.catchUp(C))).toBe(code);
    expect(bed.set.healthy()).toEqual(['a', 'b']);
    bed.at(C).refuse(op, undefined);
    await bed.catchUp(C);
    await expectPromoted(bed);
  });

  it('six extents are on the way at a time: more would pass the window of the member', async () => {
    const bed = await degraded({ sizeBytes: 12 * MIB });
    await bed.write(0, fill(12 * MIB, 9));
    bed.at(C).hold(true);
    const caughtUp = bed.catchUp(C);
    await turns(20);
    expect(replaced(bed)).toHaveLength(6);
    bed.at(C).hold(false);
    await caughtUp;
    await expectPromoted(bed);
  });
});

describe('tags are taken over only where they are true (P2)', () => {
  const adopt = async (spoil: (bed: Bed) => Promise<void> | void): Promise<Bed> => {
    const bed = await degraded();
    bed.at(C).copy.write(0, BLOCK_SIZE, fill(BLOCK_SIZE, 99));
    bed.waits.set('c:cleanRegion', { before: async () => await spoil(bed) });
    return bed;
  };

  it('a write to the region waits until its tags are there', async () => {
    let write: Promise<void> | undefined;
    let written = false;
    const bed = await adopt(async (b) => {
      write = b.write(0, fill(BLOCK_SIZE, 7)).then(() => {
        written = true;
      });
      await turns(10);
      expect(written).toBe(false);
    });
    await bed.catchUp(C, { forgets: true });
    await write;
    expect(bed.at(C).copy.dirtyRegions()).toEqual([0]);
    await expectPromoted(bed);
  });

  it('a region that is dirty on the source gives none', async () => {
    const bed = await adopt(() => undefined);
    await bed.write(0, fill(BLOCK_SIZE, 7));
    await bed.catchUp(C, { forgets: true });
    expect(bed.calls).not.toContain('c:cleanRegion');
    await expectPromoted(bed);
  });

  it('a member that holds other extents takes none, and catches up all the same', async () => {
    const bed = await adopt((b) => {
      b.at(C).copy.cleanAs = () => {
        throw new StorageError('CONFLICT', 'other extents are here');
      };
    });
    await bed.catchUp(C, { forgets: true });
    expect(bed.at(C).copy.dirtyRegions()).toEqual([0]);
    await expectPromoted(bed);
  });

  it('a member whose answer is missing starts anew: it might take them later', async () => {
    const bed = await adopt(() => {
      throw new StorageError('DEADLINE', 'no answer');
    });
    expect(await outcome(bed.catchUp(C, { forgets: true }))).toBe('DEADLINE');
    expect(bed.set.roleOf('c')).toBe('out');
  });

  it('a member that is gone takes none', async () => {
    const bed = await degraded();
    bed.at(C).copy.write(0, BLOCK_SIZE, fill(BLOCK_SIZE, 99));
    let asked = 0;
    bed.waits.set('a:listRegions', {
      after: async () => {
        asked += 1;
        if (asked === 3) bed.at(C).cut();
      },
    });
    expect(await outcome(bed.catchUp(C, { forgets: true }))).toBe('UNAVAILABLE');
    expect(asked).toBe(3);
    expect(bed.calls).not.toContain('c:cleanRegion');
  });

  it('a source that has left says nothing more: it has missed what the member has', async () => {
    const bed = await degraded();
    bed.at(C).copy.write(0, BLOCK_SIZE, fill(BLOCK_SIZE, 99));
    let asked = 0;
    bed.waits.set('a:listRegions', {
      before: async () => {
        asked += 1;
        if (asked !== 2) return;
        bed.at(0).cut();
        await bed.write(0, fill(BLOCK_SIZE, 7));
      },
    });
    await bed.catchUp(C, { forgets: true });
    expect(bed.at(C).bytes[0]).toBe(7);
    expect(bed.at(0).copy.dirtyRegions()).toEqual([]);
    expect(bed.calls).not.toContain('c:cleanRegion');
  });
});
