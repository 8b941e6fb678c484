import { pino } from 'pino';
import { describe, expect, it } from 'vitest';
import { Gate } from '../../../common/gate.js';
import { BLOCK_SIZE } from '../../../common/units.js';
import { BlockRepair } from '../../../engine/core/block-repair.js';
import { IO_OP } from '../../../proto/io-codec.js';
import { ALL_EQUAL, EngineBed, SIZE, turns } from '../../support/engine-bed.js';

it('scenario 49: a bad block is rewritten from another copy, after earlier writes', async () => {
  const bed = new EngineBed(2);
  const [bad, good] = bed.replicas;
  const [link] = bed.links;
  if (bad === undefined || good === undefined || link === undefined) throw new Error('two copies');
  await turns(3);
  bad.bytes.fill(9);
  good.bytes.fill(5);
  const { lock, reads } = bed;
  const gate = new Gate('background');
  const touched: number[] = [];
  let repaired = 0;
  const repair = new BlockRepair({
    ...{ lock, reads, gate, equal: ALL_EQUAL },
    log: pino({ level: 'silent' }),
    onTouched: (offsetBytes) => touched.push(offsetBytes),
    onRepaired: () => {
      repaired += 1;
    },
  });
  const write = lock.lock(BLOCK_SIZE, BLOCK_SIZE, true);
  repair.add(link, BLOCK_SIZE + 100);
  repair.add(link, BLOCK_SIZE);
  await turns(10);
  expect(bad.seen).toEqual([]);
  good.bytes.fill(6, BLOCK_SIZE, 2 * BLOCK_SIZE);
  lock.unlock(write);
  await gate.close();
  expect(repaired).toBe(1);
  expect(touched).toEqual([BLOCK_SIZE]);
  const want = Buffer.alloc(SIZE, 9).fill(6, BLOCK_SIZE, 2 * BLOCK_SIZE);
  expect(bad.bytes.equals(want)).toBe(true);
  expect(good.bytes[0]).toBe(5);
  expect(lock.size).toBe(0);
});

describe('repairs in the background', () => {
  function makeRepair(bed: EngineBed, onRepaired: (offsetBytes: number) => void = () => undefined) {
    const { lock, reads } = bed;
    const gate = new Gate('background');
    const repair = new BlockRepair({
      ...{ lock, reads, gate, equal: ALL_EQUAL, log: pino({ level: 'silent' }) },
      onTouched: () => undefined,
      onRepaired: (_link, offsetBytes) => onRepaired(offsetBytes),
    });
    return { gate, repair };
  }

  it('one that is found in the moment in which the last has ended is mended as well', async () => {
    const bed = new EngineBed(2);
    await bed.write(0, Buffer.alloc(4 * BLOCK_SIZE, 5));
    const [bad] = bed.replicas;
    const [link] = bed.links;
    if (bad === undefined || link === undefined) throw new Error('two copies');
    bad.bytes.fill(9);
    const { gate, repair } = makeRepair(bed, (offsetBytes) => {
      // A little later: after the queue was found empty, before that is known to everybody.
      if (offsetBytes === 0) {
        void Promise.resolve()
          .then(() => undefined)
          .then(() => repair.add(link, BLOCK_SIZE));
      }
    });
    repair.add(link, 0);
    await turns(10);
    expect(repair.waiting).toBe(0);
    await gate.close();
    expect([bad.bytes[0], bad.bytes[BLOCK_SIZE], bad.bytes[2 * BLOCK_SIZE]]).toEqual([5, 5, 9]);
  });

  it('is bounded: what does not fit is found again by the next read', async () => {
    const bed = new EngineBed(2);
    await turns(3);
    const [link] = bed.links;
    if (link === undefined) throw new Error('two copies');
    const { gate, repair } = makeRepair(bed);
    bed.replicas[1]?.hold(true);
    for (let block = 0; block < 300; block += 1) repair.add(link, block * BLOCK_SIZE);
    expect(repair.waiting).toBe(256);
    bed.replicas[1]?.hold(false);
    await gate.close();
    expect(repair.waiting).toBe(0);
    repair.add(link, 0);
    await turns(3);
    expect(bed.lock.size).toBe(0);
  });

  it('a copy that cannot take its repair stays as it is, and holds up no other one', async () => {
    const bed = new EngineBed(2);
    await bed.write(0, Buffer.alloc(BLOCK_SIZE, 5));
    const [bad] = bed.replicas;
    const [link] = bed.links;
    if (bad === undefined || link === undefined) throw new Error('two copies');
    const { gate, repair } = makeRepair(bed);
    bad.refuse(IO_OP.WRITE, 'IO_ERROR');
    repair.add(link, 0);
    await turns(5);
    expect(repair.waiting).toBe(0);
    await expect(repair.mend(link, 0, [])).rejects.toMatchObject({ code: 'IO_ERROR' });
    bad.refuse(IO_OP.WRITE, undefined);
    await repair.mend(link, 0, []);
    await gate.close();
    expect(bed.lock.size).toBe(0);
  });
});
