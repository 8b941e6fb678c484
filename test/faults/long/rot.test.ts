/** Bits that change on the disk by themselves: found on read and by the scrub, mended from a good
 *  copy, never returned (R7). */
import { describe, expect, it } from 'vitest';
import { MIB } from '../../../common/units.js';
import { NbdLoadClient, Refused } from '../../support/load-client.js';
import { findBlocks, flipBit } from '../beds/damage.js';
import { expectSound, FaultBed, until } from '../beds/fault-bed.js';

const LIMIT_MS = 300_000;
const SIZES = { size: '32MiB', diskSize: '64MiB' };
/** data of the volume lies here: superblocks before, nothing behind */
const DATA = { from: MIB, to: 33 * MIB };

describe('rot', () => {
  const bed = FaultBed.use();

  it.each([{ when: 'while it is stopped' }, { when: 'while it runs' }])(
    'scenario 49: a thousand bits of one copy, $when: read right, mended, counted',
    async ({ when }) => {
      const cluster = await bed.startCluster(SIZES);
      const load = bed.load(cluster);
      await load.start();
      await load.more(400);
      await load.stop();
      const flip = async (): Promise<void> => {
        for (let n = 0; n < 1000; n += 1) await flipBit(cluster.disk(1), bed.random, DATA);
      };
      if (when === 'while it runs') await flip();
      else {
        await cluster.stop();
        await flip();
        await cluster.startDaemons();
        await cluster.startEngine();
        load.served();
      }
      await load.sweep(3);
      expect(load.refusals).toEqual([]);
      expectSound(load);
      const { badBlocks, repairedBlocks, lostBlocks } = await cluster.scrub();
      const events = await cluster.events();
      const repaired = events
        .filter(({ kind }) => kind === 'repaired')
        .reduce((sum, { count }) => sum + count, 0);
      expect(repaired + repairedBlocks).toBeGreaterThan(100);
      expect(lostBlocks).toBe(0);
      expect(badBlocks).toBeGreaterThanOrEqual(0);
      await cluster.whenHealthy();
      await load.sweep(2);
      expectSound(load);
      const again = await cluster.scrub();
      expect(again.badBlocks + again.divergentBlocks).toBe(0);
      await cluster.stop();
      await cluster.expectEqual();
    },
    LIMIT_MS,
  );

  it(
    'scenario 50: the same block on all copies: EIO for that block alone, the volume stays',
    async () => {
      const cluster = await bed.startCluster(SIZES);
      const load = bed.load(cluster, { bytes: 16 * MIB });
      await load.start();
      await load.more(200);
      await load.stop();
      // Beyond what the load uses, so that it can be told from everything else.
      const at = 24 * MIB;
      const block = bed.random.bytes(4096);
      const client = await NbdLoadClient.connect(cluster.socket);
      await client.write(at - 4096, Buffer.concat([block, block, block]), { fua: true });
      await client.write(at - 4096, Buffer.alloc(4096, 1), { fua: true });
      await client.write(at + 4096, Buffer.alloc(4096, 2), { fua: true });
      await client.close();
      await cluster.stop();
      for (const index of [0, 1, 2]) {
        const places = await findBlocks(cluster.disk(index), block);
        expect(places.length, 'the block is found').toBe(1);
        const from = places[0] ?? 0;
        await flipBit(cluster.disk(index), bed.random, { from, to: from + 4096 });
      }
      await cluster.startDaemons();
      await cluster.startEngine();
      load.served();
      const reader = await NbdLoadClient.connect(cluster.socket);
      await expect(reader.read(at, 4096)).rejects.toThrow(Refused);
      await expect(reader.read(at, 4096)).rejects.toThrow(/errno 5/);
      expect((await reader.read(at - 4096, 4096)).equals(Buffer.alloc(4096, 1))).toBe(true);
      expect((await reader.read(at + 4096, 4096)).equals(Buffer.alloc(4096, 2))).toBe(true);
      expect((await cluster.status()).state).toBe('healthy');
      await load.sweep();
      // Written anew it is well.
      await reader.write(at, block, { fua: true });
      expect((await reader.read(at, 4096)).equals(block)).toBe(true);
      await reader.close();
      expectSound(load);
      await until('the bad block was told', 5000, async () => {
        return (await cluster.events()).some(({ kind }) => kind === 'bad-block');
      });
      await cluster.stop();
      await cluster.expectEqual();
    },
    LIMIT_MS,
  );
});
