import { describe, expect, it } from 'vitest';
import { StorageError } from '../../../common/errors.js';
import { BLOCK_SIZE, MIB } from '../../../common/units.js';
import { IO_OP } from '../../../proto/io-codec.js';
import { EngineBed as Bed, fill, outcome, turns } from '../../support/engine-bed.js';
import { ManualGate } from '../../support/manual-gate.js';

const replica = (bed: Bed, index: number) => {
  const found = bed.replicas[index];
  if (found === undefined) throw new Error(`no replica ${index}`);
  return found;
};

/** Blocks that a member misses, as offsets. */
const missedBlocks = (missed: {
  runs(extent: number): readonly { first: number; count: number }[];
}) =>
  missed.runs(0).flatMap(({ first, count }) => Array.from({ length: count }, (_, n) => first + n));

describe('what a member that left has missed', () => {
  it('F2: what it refused is missed, also when it is back before others answered', async () => {
    const bed = new Bed(3);
    const [, b, c] = [0, 1, 2].map((n) => replica(bed, n));
    b?.refuse(IO_OP.WRITE, 'IO_ERROR');
    c?.hold(true);
    const write = outcome(bed.write(2 * BLOCK_SIZE, fill(BLOCK_SIZE, 7)));
    await turns(5);
    b?.cut();
    await turns(5);
    expect(bed.set.roleOf('b')).toBe('out');
    b?.refuse(IO_OP.WRITE, undefined);
    const { missed } = bed.attach(1);
    expect(missedBlocks(missed)).toEqual([2]);
    c?.hold(false);
    expect(await write).toBe('ok');
    expect(bed.set.roleOf('b')).toBe('rebuilding');
  });

  it('scenario 38: a rebuilding member that took what all refused and left undoes it', async () => {
    const bed = new Bed(3);
    replica(bed, 2).cut();
    await bed.write(0, fill(BLOCK_SIZE, 1));
    bed.attach(2);
    await turns(3);
    replica(bed, 0).refuse(IO_OP.WRITE, 'NO_SPACE');
    replica(bed, 1).refuse(IO_OP.WRITE, 'NO_SPACE');
    replica(bed, 1).hold(true);
    const write = outcome(bed.write(5 * BLOCK_SIZE, fill(BLOCK_SIZE, 9)));
    await turns(5);
    expect(replica(bed, 2).bytes[5 * BLOCK_SIZE]).toBe(9);
    replica(bed, 2).cut();
    replica(bed, 1).hold(false);
    expect(await write).toBe('NO_SPACE');
    expect(bed.set.healthy()).toEqual(['a', 'b']);
    const { missed } = bed.attach(2);
    expect(missedBlocks(missed)).toEqual([5]);
  });

  it('scenario 38: one that took what all refused, left and is back, leaves again', async () => {
    const bed = new Bed(3);
    replica(bed, 2).cut();
    await bed.write(0, fill(BLOCK_SIZE, 1));
    bed.attach(2);
    await turns(3);
    for (const n of [0, 1]) replica(bed, n).refuse(IO_OP.WRITE, 'NO_SPACE');
    replica(bed, 1).hold(true);
    const write = outcome(bed.write(5 * BLOCK_SIZE, fill(BLOCK_SIZE, 9)));
    await turns(5);
    replica(bed, 2).cut();
    const again = bed.attach(2);
    await turns(3);
    replica(bed, 1).hold(false);
    expect(await write).toBe('NO_SPACE');
    expect(again.link.broken?.code).toBe('ABORTED');
    expect(missedBlocks(bed.attach(2).missed)).toEqual([5]);
  });

  it('a change that every in-sync member refused excludes nobody and blocks nobody', async () => {
    const bed = new Bed(2);
    for (const r of bed.replicas) r.refuse(IO_OP.WRITE, 'NO_SPACE');
    expect(await outcome(bed.write(0, fill(BLOCK_SIZE, 1)))).toBe('NO_SPACE');
    for (const r of bed.replicas) r.refuse(IO_OP.WRITE, undefined);
    await bed.write(BLOCK_SIZE, fill(BLOCK_SIZE, 1));
    expect(bed.changes).toEqual([]);
    const id = replica(bed, 0).seen.at(-1)?.id;
    expect(bed.fanout.ackedThrough).toBe(id);
  });
});

describe('a flush while members come and go', () => {
  it('D1: one that became in-sync while the flush ran does not make it fail', async () => {
    const bed = new Bed(3);
    replica(bed, 1).cut();
    await bed.write(0, fill(BLOCK_SIZE, 1));
    replica(bed, 2).hold(true);
    const flush = outcome(bed.volume.flush());
    await turns(5);
    bed.attach(1);
    await turns(3);
    await bed.keeper.promote('b');
    replica(bed, 2).cut();
    expect(await flush).toBe('ok');
    expect(bed.set.healthy()).toEqual(['a', 'b']);
    expect(replica(bed, 1).seen.at(-1)?.op).toBe(IO_OP.FLUSH);
  });
});

describe('when the tenure ends', () => {
  it('who waits for an exclusion waits for the next tenure (scenario 23)', async () => {
    const bed = new Bed(2);
    bed.whenLost = 'wait';
    bed.storing = new Promise(() => undefined);
    replica(bed, 1).cut();
    const write = outcome(bed.write(0, fill(BLOCK_SIZE, 3)));
    await turns(5);
    // As when a member fails that the others cannot do without: nobody is left to decide.
    bed.endTenure(new StorageError('NO_REPLICA', 'the source is lost'));
    await turns(5);
    expect(bed.fanout.parked).toBe(1);
    bed.storing = Promise.resolve();
    bed.reopen();
    expect(await write).toBe('ok');
    bed.expectEqualCopies();
  });
});

describe('an operation that waited too long for an exclusion (N5)', () => {
  it.each([
    { name: 'taken by the others', refuse: false },
    { name: 'refused by the others', refuse: true },
  ])('$name: is decided once the exclusion is stored, and holds up nothing', async ({ refuse }) => {
    const bed = new Bed(2, { settleDeadlineMs: 1 });
    let store = (): void => undefined;
    bed.storing = new Promise((resolve) => {
      store = resolve;
    });
    replica(bed, 1).hold(true);
    if (refuse) replica(bed, 0).refuse(IO_OP.WRITE, 'NO_SPACE');
    const write = outcome(bed.write(0, fill(BLOCK_SIZE, 3)));
    await turns(5);
    replica(bed, 1).cut();
    expect(await write).toBe('DEADLINE');
    const open = replica(bed, 0).seen.at(-1)?.id ?? 0;
    expect(bed.fanout.ackedThrough).toBeLessThan(open);
    replica(bed, 0).refuse(IO_OP.WRITE, undefined);
    store();
    await bed.keeper.changed();
    await turns(5);
    expect(bed.fanout.ackedThrough).toBe(open);
  });
});

describe('P5: a tenure that begins with members that may differ', () => {
  /** @param bytes  3 MiB are more than the window: one piece has not been sent yet */
  const lost = async (bytes = 3 * MIB) => {
    const gate = new ManualGate();
    const bed = new Bed(2, { gate });
    bed.whenLost = 'wait';
    await turns(3);
    for (const r of bed.replicas) r.hold(true);
    const write = outcome(bed.write(0, fill(bytes, 3)));
    await turns(5);
    for (const r of bed.replicas) r.cut();
    for (const r of bed.replicas) r.hold(false);
    await turns(5);
    gate.close();
    bed.reopen();
    for (const r of bed.replicas) r.seen.length = 0;
    await turns(5);
    return { bed, gate, write };
  };

  it('sends what waited for it only once its range is equal', async () => {
    const { bed, gate, write } = await lost();
    expect(bed.replicas.map((r) => r.seen)).toEqual([[], []]);
    const waiting = gate.asked.map(([offset]) => offset).sort((a, b) => a - b);
    expect(waiting.slice(0, 2)).toEqual([0, MIB]);
    gate.open();
    expect(await write).toBe('ok');
    bed.expectEqualCopies();
  });

  it('keeps it over one more tenure, and asks again there', async () => {
    const { bed, gate, write } = await lost();
    bed.endTenure(new StorageError('NO_REPLICA', 'lost again'));
    gate.open();
    await turns(3);
    expect(bed.fanout.parked).toBeGreaterThan(0);
    gate.close();
    bed.reopen();
    await turns(3);
    expect(bed.replicas.every((r) => r.seen.length === 0)).toBe(true);
    expect(gate.asked.length).toBeGreaterThan(0);
    gate.open();
    expect(await write).toBe('ok');
  });

  it('fails what waits when nothing is waited for any more', async () => {
    const { bed, gate, write } = await lost();
    bed.endTenure(new StorageError('NO_REPLICA', 'lost again'));
    const refusal = new StorageError('NO_REPLICA', 'waited long enough');
    gate.open(refusal);
    bed.fanout.refuse(refusal);
    expect(await write).toBe('NO_REPLICA');
    expect(bed.lock.size).toBe(0);
  });

  it('a flush waits for no range', async () => {
    const { bed, gate, write } = await lost(MIB);
    expect(await outcome(bed.volume.flush())).toBe('ok');
    gate.open();
    expect(await write).toBe('ok');
  });
});
