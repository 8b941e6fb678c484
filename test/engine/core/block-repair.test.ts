import { pino } from 'pino';
import { expect, it } from 'vitest';
import { SystemClock } from '../../../common/clock.js';
import { Gate } from '../../../common/gate.js';
import { BLOCK_SIZE } from '../../../common/units.js';
import { BlockRepair } from '../../../engine/core/block-repair.js';
import { RangeLock } from '../../../engine/core/range-lock.js';
import { ReadPath } from '../../../engine/core/read-path.js';
import { ReplicaLink } from '../../../engine/core/replica-link.js';
import { crc32cBlocks, crc32cVerify } from '../../../native/index.js';
import { FakeReplica } from '../../support/fake-replica.js';

const clock = new SystemClock();

function connect(replica: FakeReplica, index: number): ReplicaLink {
  let id = 0;
  const link = new ReplicaLink({
    index,
    replicaId: replica.replicaId,
    address: '',
    local: true,
    clock,
    endOfTurn: setImmediate,
    nextId: () => {
      id += 1;
      return id;
    },
    ackedThrough: () => 0,
    checksumBlocks: crc32cBlocks,
    opDeadlineMs: 60_000,
    keepaliveMs: 60_000,
    onBroken: () => undefined,
  });
  const stream = replica.connect({
    onMessage: (message) => link.onMessage(message),
    onDrain: () => undefined,
    onClose: (error) => link.onClose(error),
  });
  const hello = { protocolVersion: 1, volume: 'v', replicaId: 'r', epoch: 1, engineId: 'e' };
  link.attach(stream, hello).catch(() => undefined);
  return link;
}

it('scenario 49: a bad block is rewritten from another copy, after earlier writes', async () => {
  const bad = new FakeReplica('bad', 4 * BLOCK_SIZE, crc32cBlocks);
  const good = new FakeReplica('good', 4 * BLOCK_SIZE, crc32cBlocks);
  bad.bytes.fill(9);
  good.bytes.fill(5);
  const links = [connect(bad, 0), connect(good, 1)] as const;
  const lock = new RangeLock();
  const gate = new Gate('background');
  const touched: number[] = [];
  let repaired = 0;
  const repair = new BlockRepair({
    lock,
    reads: new ReadPath({
      links: () => links,
      clock,
      verifyBlocks: crc32cVerify,
      onBadCopy: () => undefined,
    }),
    gate,
    log: pino({ level: 'silent' }),
    onTouched: (offsetBytes) => touched.push(offsetBytes),
    onRepaired: () => {
      repaired += 1;
    },
  });
  const write = lock.lock(BLOCK_SIZE, BLOCK_SIZE, true);
  repair.add(links[0], BLOCK_SIZE + 100);
  repair.add(links[0], BLOCK_SIZE);
  for (let turn = 0; turn < 10; turn += 1) await new Promise(setImmediate);
  expect(bad.seen).toEqual([]);
  good.bytes.fill(6, BLOCK_SIZE, 2 * BLOCK_SIZE);
  lock.unlock(write);
  await gate.close();
  expect(repaired).toBe(1);
  expect(touched).toEqual([BLOCK_SIZE]);
  const want = Buffer.alloc(4 * BLOCK_SIZE, 9).fill(6, BLOCK_SIZE, 2 * BLOCK_SIZE);
  expect(bad.bytes.equals(want)).toBe(true);
  expect(good.bytes[0]).toBe(5);
  expect(lock.size).toBe(0);
});
