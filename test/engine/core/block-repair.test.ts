import { pino } from 'pino';
import { expect, it } from 'vitest';
import { Gate } from '../../../common/gate.js';
import { BLOCK_SIZE } from '../../../common/units.js';
import { BlockRepair } from '../../../engine/core/block-repair.js';
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
