import { describe, expect, it } from 'vitest';
import { StorageError } from '../../../common/errors.js';
import { BLOCK_SIZE, MIB } from '../../../common/units.js';
import { IO_OP } from '../../../proto/io-codec.js';
import { ManualClock } from '../../common/manual-clock.js';
import { EngineBed as Bed, fill, outcome, turns } from '../../support/engine-bed.js';
import { ManualGate } from '../../support/manual-gate.js';

const LEASE_MS = 5_000;
const lostError = new StorageError('NO_REPLICA', 'all are gone');
const reads = (bed: Bed): number[] =>
  bed.replicas.map((r) => r.seen.filter((s) => s.op === IO_OP.READ).length);
const pings = (bed: Bed): number[] =>
  bed.replicas.map((r) => r.seen.filter((s) => s.op === IO_OP.PING).length);

/** A bed with a clock in the test's hands, and a block of sevens at 0. */
async function makeBed(count: number, gate?: ManualGate) {
  const clock = new ManualClock();
  const bed = new Bed(count, { clock, leaseMs: LEASE_MS, ...(gate === undefined ? {} : { gate }) });
  bed.whenLost = 'wait';
  await bed.write(0, fill(BLOCK_SIZE, 7));
  await turns(3);
  return { bed, clock };
}

const hold = (bed: Bed, held: boolean): void => {
  for (const r of bed.replicas) r.hold(held);
};

/** Every answer was given back, none twice; nothing is locked. */
function expectNothingHeld(bed: Bed): void {
  expect(bed.replicas.map((r) => r.retained)).toEqual(bed.replicas.map(() => 0));
  expect(bed.lock.size).toBe(0);
  expect(bed.volume.inFlight).toBe(0);
}

describe('a read that is slow', () => {
  it('is asked of a second member; the first good answer counts, the late is dropped', async () => {
    const { bed, clock } = await makeBed(2);
    for (let n = 0; n < 20; n += 1) await bed.read(0, BLOCK_SIZE);
    const [before = 0] = reads(bed);
    expect(reads(bed)[1]).toBe(0);
    bed.replicas[0]?.hold(true);
    const read = bed.read(0, BLOCK_SIZE);
    await turns(3);
    clock.advance(99);
    await turns(3);
    expect(reads(bed)).toEqual([before + 1, 0]);
    clock.advance(1);
    expect((await read)[0]).toBe(7);
    expect(reads(bed)).toEqual([before + 1, 1]);
    expect(bed.reads.hedges).toBe(1);
    bed.replicas[0]?.hold(false);
    await turns(3);
    expectNothingHeld(bed);
  });

  it('is hedged once in twenty reads at most: a slow set does not become slower', async () => {
    const { bed, clock } = await makeBed(2);
    for (let n = 0; n < 60; n += 1) await bed.read(0, BLOCK_SIZE);
    hold(bed, true);
    const slow = Array.from({ length: 40 }, () => bed.read(0, BLOCK_SIZE));
    for (let n = 0; n < 20; n += 1) {
      await turns(2);
      clock.advance(100);
    }
    expect(bed.reads.hedges).toBeGreaterThan(0);
    expect(bed.reads.hedges).toBeLessThanOrEqual(3);
    hold(bed, false);
    await Promise.all(slow);
    await turns(3);
    expectNothingHeld(bed);
  });

  it('fails over when the second cannot serve, and still takes the first answer', async () => {
    const { bed, clock } = await makeBed(2);
    for (let n = 0; n < 20; n += 1) await bed.read(0, BLOCK_SIZE);
    bed.replicas[0]?.hold(true);
    bed.replicas[1]?.refuse(IO_OP.READ, 'IO_ERROR');
    const read = bed.read(0, BLOCK_SIZE);
    await turns(3);
    clock.advance(100);
    await turns(3);
    expect(bed.bad).toEqual(['b:IO_ERROR']);
    bed.replicas[0]?.hold(false);
    expect((await read)[0]).toBe(7);
    expectNothingHeld(bed);
  });

  it('leaves no timer behind once nothing is on its way', async () => {
    const { bed, clock } = await makeBed(2);
    await bed.read(0, BLOCK_SIZE);
    for (let n = 0; n < 3; n += 1) clock.advance(1_000);
    expect(clock.pending).toBe(0);
  });
});

describe('P13: the read lease', () => {
  it('an answer after the lease waits until all members have confirmed anew', async () => {
    const { bed, clock } = await makeBed(3);
    hold(bed, true);
    let answered = false;
    const read = bed.read(0, BLOCK_SIZE).then((bytes) => {
      answered = true;
      return bytes;
    });
    await turns(3);
    // Scenario 17: this process was stopped; the answer lay in its socket all the time.
    clock.advance(LEASE_MS);
    bed.replicas[2]?.hold(true);
    for (const n of [0, 1]) bed.replicas[n]?.hold(false);
    await turns(5);
    expect(answered).toBe(false);
    expect(bed.reads.waiting).toBe(1);
    expect(pings(bed)).toEqual([1, 1, 1]);
    bed.replicas[2]?.hold(false);
    expect((await read)[0]).toBe(7);
    expectNothingHeld(bed);
  });

  it('a fenced engine answers no read any more', async () => {
    const { bed, clock } = await makeBed(2);
    hold(bed, true);
    const read = outcome(bed.read(0, BLOCK_SIZE));
    await turns(3);
    clock.advance(LEASE_MS);
    bed.replicas[0]?.hold(false);
    await turns(3);
    expect(bed.reads.waiting).toBe(1);
    const fenced = new StorageError('STALE_EPOCH', 'another engine has the volume');
    bed.endTenure(fenced);
    bed.reads.refuse(fenced);
    expect(await read).toBe('STALE_EPOCH');
    expectNothingHeld(bed);
  });

  it('no read is answered before an exclusion is durable, then without the excluded', async () => {
    const { bed, clock } = await makeBed(3);
    let store = (): void => undefined;
    bed.storing = new Promise((resolve) => {
      store = resolve;
    });
    bed.replicas[2]?.cut();
    let answered = false;
    const read = bed.read(0, BLOCK_SIZE).then(() => {
      answered = true;
    });
    await turns(5);
    expect(answered).toBe(false);
    clock.advance(1_000);
    store();
    await read;
    expectNothingHeld(bed);
  });
});

describe('reads between tenures', () => {
  it('wait, and are asked again in the next one (scenario 23)', async () => {
    const { bed } = await makeBed(2);
    hold(bed, true);
    const read = bed.read(0, BLOCK_SIZE);
    await turns(3);
    for (const r of bed.replicas) r.cut();
    await turns(3);
    const later = bed.read(0, BLOCK_SIZE);
    expect(bed.reads.waiting).toBe(2);
    hold(bed, false);
    bed.reopen();
    expect((await read)[0]).toBe(7);
    expect((await later)[0]).toBe(7);
    expectNothingHeld(bed);
  });

  it('fail when nothing is waited for any more, once each, and are served later', async () => {
    const { bed } = await makeBed(2);
    for (const r of bed.replicas) r.cut();
    const work = [outcome(bed.read(0, BLOCK_SIZE)), outcome(bed.read(0, 2 * MIB))];
    await turns(3);
    bed.reads.refuse(lostError);
    expect(await Promise.all(work)).toEqual(['NO_REPLICA', 'NO_REPLICA']);
    expect(await outcome(bed.read(0, BLOCK_SIZE))).toBe('NO_REPLICA');
    bed.reopen();
    expect((await bed.read(0, BLOCK_SIZE))[0]).toBe(7);
    expectNothingHeld(bed);
  });

  it('one that was answered, hedged and not yet leased waits once, and fails once', async () => {
    const { bed, clock } = await makeBed(3);
    for (let n = 0; n < 20; n += 1) await bed.read(0, BLOCK_SIZE);
    hold(bed, true);
    const read = outcome(bed.read(0, BLOCK_SIZE));
    await turns(3);
    clock.advance(LEASE_MS);
    await turns(3);
    expect(bed.reads.hedges).toBe(1);
    bed.replicas[0]?.hold(false);
    await turns(3);
    expect(bed.reads.waiting).toBe(1);
    bed.endTenure(lostError);
    expect(bed.reads.waiting).toBe(1);
    bed.reads.refuse(lostError);
    expect(await read).toBe('NO_REPLICA');
    expectNothingHeld(bed);
  });

  it('one that must not come from a member does not come from it in the next tenure', async () => {
    const { bed } = await makeBed(2);
    const [avoid] = bed.links;
    for (const r of bed.replicas) r.cut();
    const read = bed.reads.readFromOthers(avoid === undefined ? [] : [avoid], 0, BLOCK_SIZE);
    await turns(3);
    bed.replicas[0]?.bytes.fill(9, 0, BLOCK_SIZE);
    bed.reopen();
    const result = await read;
    expect(result.chunks[0]?.[0]).toBe(7);
    result.release();
    expectNothingHeld(bed);
  });

  it('P5: one that waited is asked only once its range is equal', async () => {
    const gate = new ManualGate();
    const { bed } = await makeBed(2, gate);
    for (const r of bed.replicas) r.cut();
    const read = bed.read(0, 2 * MIB);
    await turns(3);
    gate.close();
    bed.reopen();
    for (const r of bed.replicas) r.seen.length = 0;
    await turns(5);
    expect(reads(bed)).toEqual([0, 0]);
    expect(gate.asked).toEqual([
      [0, MIB],
      [MIB, MIB],
    ]);
    gate.open();
    expect((await read)[0]).toBe(7);
    expectNothingHeld(bed);
  });

  it('P5: one that waits for its range fails when nothing is waited for any more', async () => {
    const gate = new ManualGate();
    const { bed } = await makeBed(2, gate);
    for (const r of bed.replicas) r.cut();
    const read = outcome(bed.read(0, BLOCK_SIZE));
    gate.close();
    bed.reopen();
    await turns(3);
    gate.open(lostError);
    expect(await read).toBe('NO_REPLICA');
    expectNothingHeld(bed);
  });
});
