/** D1, D2: FLUSH and FUA reach every replica's device, counted by the kernel on loop devices; F1 on
 *  the same disks. */
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Cluster } from '../support/cluster.js';
import { missing } from '../support/host.js';
import { LoopDevice } from '../support/loop-device.js';
import { NBD, SimpleNbd } from '../support/simple-nbd.js';

const lacks = missing('root', 'loop', 'losetup');
const FUA = 1;

describe.skipIf(lacks !== undefined)(`flush on loop devices ${lacks ?? ''}`, () => {
  const loops: LoopDevice[] = [];
  let cluster: Cluster;
  let client: SimpleNbd;

  beforeAll(async () => {
    cluster = await Cluster.make({ size: '256MiB', disk: (index) => loops[index]?.path ?? '' });
    for (let index = 0; index < 3; index += 1) {
      loops.push(await LoopDevice.create(path.join(cluster.dir, `loop${index}`), 2 ** 30));
    }
    await cluster.startDaemons();
    await cluster.startEngine();
    client = await SimpleNbd.connect(cluster.socket, 'vol');
  });

  afterAll(async () => {
    await cluster.stop().catch(() => undefined);
    for (const loop of loops) await loop.detach();
    await cluster.destroy();
  });

  const flushes = (): Promise<number[]> => Promise.all(loops.map((loop) => loop.flushes()));
  const block = Buffer.alloc(4096, 7);

  /** What `work` adds to the flushes of each disk. */
  async function counted(work: () => Promise<unknown>): Promise<number[]> {
    const before = await flushes();
    await work();
    const after = await flushes();
    return after.map((count, index) => count - (before[index] ?? 0));
  }

  it('the first write marks the region durably (P1); later writes do not flush', async () => {
    await client.request(NBD.WRITE, 0, 4096, block);
    const quiet = await counted(async () => {
      for (let n = 0; n < 50; n += 1) await client.request(NBD.WRITE, n * 4096, 4096, block);
    });
    expect(quiet).toEqual([0, 0, 0]);
  });

  it('each FLUSH is a device flush on every replica (D1)', async () => {
    const counts = await counted(async () => {
      for (let n = 0; n < 10; n += 1) {
        await client.request(NBD.WRITE, n * 4096, 4096, block);
        await client.request(NBD.FLUSH, 0, 0);
      }
    });
    for (const count of counts) expect(count).toBeGreaterThanOrEqual(10);
  });

  it.each([
    { name: 'write', type: NBD.WRITE, payload: block },
    { name: 'trim', type: NBD.TRIM, payload: undefined },
    { name: 'write zeroes', type: NBD.ZEROES, payload: undefined },
  ])('each FUA $name is a device flush on every replica (D2)', async ({ type, payload }) => {
    const counts = await counted(async () => {
      for (let n = 0; n < 5; n += 1) {
        await client.request(type, n * 4096, 4096, payload, FUA);
      }
    });
    for (const count of counts) expect(count).toBeGreaterThanOrEqual(5);
  });

  it('copies on the loop devices are equal after a stop', async () => {
    await client.close();
    await cluster.stop();
    await cluster.expectEqual();
  });
});
