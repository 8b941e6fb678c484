import { describe, expect, it } from 'vitest';
import { BLOCK_SIZE } from '../../../common/units.js';
import { IO_OP } from '../../../proto/io-codec.js';
import { ManualClock } from '../../common/manual-clock.js';
import { EngineBed as Bed, fill, outcome, turns } from '../../support/engine-bed.js';
import { ManualGate } from '../../support/manual-gate.js';

const cleans = (bed: Bed): number[][] =>
  bed.replicas.map((r) => r.seen.filter((s) => s.op === IO_OP.CLEAN).map((s) => s.arg));

describe('region cleaner (P2)', () => {
  it('never gives a tag twice within an epoch, not even one that failed', async () => {
    const bed = new Bed(2);
    await bed.write(0, fill(BLOCK_SIZE, 1));
    await bed.cleaner.clean(0);
    await bed.write(0, fill(BLOCK_SIZE, 2));
    for (const r of bed.replicas) r.refuse(IO_OP.CLEAN, 'CONFLICT');
    expect(await outcome(bed.cleaner.clean(0))).toBe('CONFLICT');
    for (const r of bed.replicas) r.refuse(IO_OP.CLEAN, undefined);
    await bed.cleaner.clean(0);
    expect(cleans(bed)).toEqual([
      [1, 2, 3],
      [1, 2, 3],
    ]);
    expect(bed.tracker.count).toBe(0);
    expect(bed.lock.size).toBe(0);
  });

  it('cleans in-sync members only: who catches up may not hold all of the region', async () => {
    const bed = new Bed(3);
    bed.replicas[2]?.cut();
    await bed.write(0, fill(BLOCK_SIZE, 1));
    bed.attach(2);
    await turns(3);
    expect(await bed.cleaner.clean(0)).toBe(1);
    expect(cleans(bed)).toEqual([[1], [1], []]);
  });

  it('waits for writes under way, and leaves a region that was written meanwhile', async () => {
    const clock = new ManualClock();
    const bed = new Bed(2, { clock });
    await bed.write(0, fill(BLOCK_SIZE, 1));
    clock.advance(100);
    bed.replicas[1]?.hold(true);
    const write = bed.write(0, fill(BLOCK_SIZE, 2));
    const cleaned = bed.cleaner.clean(50);
    await turns(3);
    expect(cleans(bed)).toEqual([[], []]);
    bed.replicas[1]?.hold(false);
    await write;
    expect(await cleaned).toBe(0);
    expect(cleans(bed)).toEqual([[], []]);
  });

  it('P8: who cannot store its metadata leaves; the region stays for the next round', async () => {
    const bed = new Bed(3);
    await bed.write(0, fill(BLOCK_SIZE, 1));
    bed.replicas[1]?.refuse(IO_OP.CLEAN, 'IO_ERROR');
    expect(await outcome(bed.cleaner.clean(0))).toBe('IO_ERROR');
    await bed.keeper.changed();
    expect(bed.set.healthy()).toEqual(['a', 'c']);
    expect(bed.tracker.count).toBe(1);
    expect(await bed.cleaner.clean(0)).toBe(1);
    expect(cleans(bed)).toEqual([[1, 2], [1], [1, 2]]);
  });

  it('cleans nothing in which the members may differ', async () => {
    const gate = new ManualGate();
    const bed = new Bed(2, { gate });
    await bed.write(0, fill(BLOCK_SIZE, 1));
    gate.close();
    expect(await bed.cleaner.clean(0)).toBe(0);
    expect(cleans(bed)).toEqual([[], []]);
  });

  it('R1: not either when that came about while its flush waited for the next tenure', async () => {
    const gate = new ManualGate();
    const bed = new Bed(2, { gate });
    bed.whenLost = 'wait';
    await bed.write(0, fill(BLOCK_SIZE, 1));
    for (const r of bed.replicas) r.hold(true);
    const cleaned = bed.cleaner.clean(0);
    await turns(3);
    for (const r of bed.replicas) r.cut();
    for (const r of bed.replicas) r.hold(false);
    gate.close();
    bed.reopen();
    expect(await cleaned).toBe(0);
    expect(bed.replicas.map((r) => r.seen.at(-1)?.op)).toEqual([IO_OP.FLUSH, IO_OP.FLUSH]);
    expect(bed.tracker.count).toBe(1);
    expect(bed.lock.size).toBe(0);
  });

  it('cleans in the background what is idle, and stops for good', async () => {
    const clock = new ManualClock();
    const bed = new Bed(1, { clock });
    await bed.write(0, fill(BLOCK_SIZE, 1));
    bed.cleaner.start();
    bed.cleaner.start();
    expect(clock.pending).toBe(1);
    clock.advance(1_000);
    await turns(8);
    expect(cleans(bed)).toEqual([[1]]);
    expect(clock.pending).toBe(1);
    await bed.cleaner.stop();
    expect(clock.pending).toBe(0);
  });
});
