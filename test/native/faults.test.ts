/** Errors and short transfers of the kernel, made by a FUSE file that fails on command. Both
 *  backends. */
import { constants } from 'node:os';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { BlockDevice } from '../../common/block-device.js';
import { MIB } from '../../common/units.js';
import { createBufferPool, type DirectBlockDevice, openBlockDevice } from '../../native/index.js';
import { missing } from '../support/host.js';
import { FaultyFile } from './faulty-file.js';

const { EIO, ENOSPC, EINTR } = constants.errno;
const reason = missing('root', 'fuse');
const pool = createBufferPool({ limitBytes: 16 * MIB });
const view = pool.acquire(64 * 1024).bytes;
const io = (errno: string, code = 'IO_ERROR'): unknown =>
  expect.objectContaining({ code, details: expect.objectContaining({ errno }) });

describe.skipIf(reason !== undefined).each(['io_uring', 'threads'] as const)(
  `faults of the disk, %s ${reason ?? ''}`,
  (backend) => {
    let file: FaultyFile;
    let opened: BlockDevice | undefined;
    let device: BlockDevice;

    beforeEach(async () => {
      file = await FaultyFile.create(4 * MIB);
      opened = undefined;
      device = await openBlockDevice(file.path, { backend });
      opened = device;
    });

    afterEach(async () => {
      try {
        await opened?.close();
      } finally {
        expect(await file.destroy()).toBe('CLOSED');
      }
    });

    test('scenarios 40, 41: EIO of a read or write reaches the caller, others go on', async () => {
      file.fail('write', EIO);
      await expect(device.write(8192, view.subarray(0, 4096))).rejects.toEqual(io('EIO'));
      file.fail('read', EIO);
      await expect(device.read(8192, view.subarray(0, 4096))).rejects.toEqual(io('EIO'));
      await device.write(8192, view.subarray(0, 4096).fill(5));
      await device.read(8192, view.subarray(0, 4096).fill(0));
      expect(view[4095]).toBe(5);
    });

    test('scenario 37: ENOSPC is NO_SPACE', async () => {
      file.fail('write', ENOSPC);
      const refused = expect(device.write(0, view)).rejects;
      await refused.toEqual(io('ENOSPC', 'NO_SPACE'));
    });

    test('D3, scenario 42: a failed flush is sent once, no later one is believed', async () => {
      await device.write(0, view);
      file.fail('fsync', EIO);
      await expect(device.flush()).rejects.toEqual(io('EIO'));
      await expect(device.flush()).rejects.toEqual(io('EIO'));
      expect(file.seen('fsyncs')).toBe(1);
    });

    test('D3: flushes in flight together with a failed one do not clear it', async () => {
      file.fail('fsync', EIO);
      const results = await Promise.allSettled([device.flush(), device.flush(), device.flush()]);
      expect(results.some((result) => result.status === 'rejected')).toBe(true);
      await expect(device.flush()).rejects.toEqual(io('EIO'));
    });

    test('D1: each flush reaches the file as one fsync', async () => {
      for (let i = 1; i <= 3; i++) {
        await device.flush();
        expect(file.seen('fsyncs')).toBe(i);
      }
    });

    test('an interrupted transfer is sent again', async () => {
      file.fail('write', EINTR, 3);
      await device.write(0, view.subarray(0, 4096).fill(8));
      await device.read(0, view.subarray(0, 4096).fill(0));
      expect(view[0]).toBe(8);
    });
  },
);

// After a short transfer the kernel's io_uring itself goes on, on FUSE at the wrong offset
// (ADR-0001).
describe.skipIf(reason !== undefined)(`short transfers ${reason ?? ''}`, () => {
  test('on FUSE the backend is threads unless io_uring is asked for', async () => {
    await onFaultyFile(async (_file, device) => {
      expect(device.backend).toBe('threads');
    });
  });

  test('short transfers are resubmitted until all is done', async () => {
    await onFaultyFile(async (file, device) => {
      file.shorten(12_288);
      for (let i = 0; i < view.length; i++) view[i] = (i * 7 + (i >> 12)) & 0xff;
      const want = Buffer.from(view);
      await device.write(4096, view);
      await device.read(4096, view.fill(0));
      expect(view.equals(want)).toBe(true);
      expect(file.seen('writes')).toBe(6);
      expect(file.seen('reads')).toBe(6);
    });
  });

  test('an error in the middle of a short transfer fails the whole operation', async () => {
    await onFaultyFile(async (file, device) => {
      file.shorten(8192);
      file.fail('write', EIO, 1, 3);
      await expect(device.write(0, view)).rejects.toEqual(io('EIO'));
      expect(file.seen('writes')).toBe(4);
    });
  });
});

async function onFaultyFile(
  body: (file: FaultyFile, device: DirectBlockDevice) => Promise<void>,
): Promise<void> {
  const file = await FaultyFile.create(4 * MIB);
  try {
    const device = await openBlockDevice(file.path);
    try {
      await body(file, device);
    } finally {
      await device.close();
    }
  } finally {
    expect(await file.destroy()).toBe('CLOSED');
  }
}
