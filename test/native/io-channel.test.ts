/** Queue limits, order and fairness of the channel between JavaScript and the ring. */
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { MIB } from '../../common/units.js';
import { createBufferPool, type DirectBlockDevice, openBlockDevice } from '../../native/index.js';
import { WAITING_MAX } from '../../native/io-channel.js';

const SLOTS = 1024;
const pool = createBufferPool({ limitBytes: MIB });
const view = pool.acquire(4096).bytes;

describe.each(['io_uring', 'threads'] as const)('IoChannel, %s', (backend) => {
  let dir: string;
  let device: DirectBlockDevice;
  beforeAll(async () => {
    dir = await mkdtemp(path.join(tmpdir(), 'aurochs-channel-'));
    const file = path.join(dir, 'disk');
    await writeFile(file, '');
    await truncate(file, 8 * MIB);
    device = await openBlockDevice(file, { backend });
  });
  afterAll(async () => {
    await device.close();
    await rm(dir, { recursive: true });
  });

  test('scenario 77: past slots and queue it is OVERLOADED, the rest is done', async () => {
    const extra = 100;
    const reads = Array.from({ length: SLOTS + WAITING_MAX + extra }, () => device.read(0, view));
    const results = await Promise.allSettled(reads);
    const failed = results.filter((result) => result.status === 'rejected');
    expect(failed.length).toBe(extra);
    for (const { reason } of failed) expect(reason).toMatchObject({ code: 'OVERLOADED' });
    await device.read(0, view);
  });

  test('10,000 operations in waves: timers and other work run in between', async () => {
    let ticks = 0;
    let busy = true;
    const tick = (): void => {
      ticks += 1;
      if (busy) setImmediate(tick);
    };
    setImmediate(tick);
    let done = 0;
    const reader = async (): Promise<void> => {
      while (done < 10_000) {
        done += 1;
        await device.read((done % 2000) * 4096, view);
      }
    };
    await Promise.all(Array.from({ length: 64 }, reader));
    busy = false;
    expect(done).toBeGreaterThanOrEqual(10_000);
    expect(ticks).toBeGreaterThan(100);
  });

  test('a flush after its writes covers them whatever waits in between (D1)', async () => {
    const order: string[] = [];
    const writes = Array.from({ length: 50 }, (_, i) =>
      device.write(i * 4096, view).then(() => order.push('write')),
    );
    await Promise.all(writes);
    await device.flush().then(() => order.push('flush'));
    expect(order.indexOf('flush')).toBe(50);
  });
});
