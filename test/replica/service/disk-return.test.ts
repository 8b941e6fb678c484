/** Disks that failed, or were away at the start, serve again by themselves (D3, P7, P8;
 *  scenarios 42, 44, 54). */
import { afterEach, describe, expect, it } from 'vitest';
import { StorageError } from '../../../common/errors.js';
import { MIB } from '../../../common/units.js';
import { IO_OP } from '../../../proto/io-codec.js';
import { RetryDelay } from '../../../replica/service/retry-delay.js';
import { MemoryDisk } from '../../support/memory-device.js';
import { stamped } from '../store/store-bed.js';
import { DiskBed } from './disk-bed.js';

let bed: DiskBed;

afterEach(async () => {
  await bed.stop();
  expect(bed.pool.usedBytes).toBe(0);
});

/** v1 has a dirty region, v2 (on the same disk) a clean one; then a flush of v1 fails. */
async function failedFlush(): Promise<void> {
  bed = new DiskBed();
  await bed.start();
  await bed.open('v1');
  const v1 = await bed.stream('v1');
  await bed.open('v2');
  const v2 = await bed.stream('v2');
  expect(await bed.write(v2, 1, 0)).toBe('OK');
  expect(await bed.command(v2, 2, IO_OP.FLUSH)).toBe('OK');
  v2.batch((b) => b.add({ op: IO_OP.CLEAN, flags: 0, id: 3, arg: 1, ...RANGE }));
  await v2.until(3);
  expect(await bed.write(v1, 1, 0)).toBe('OK');
  bed.medium().inject({ op: 'flush', errno: 'EIO' });
  expect(await bed.command(v1, 2, IO_OP.FLUSH)).toBe('IO_ERROR');
}

const RANGE = { offsetBytes: 0, lengthBytes: 0 };

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return 'OK';
  } catch (error) {
    return error instanceof StorageError ? error.code : String(error);
  }
}

describe('D3: a failed flush', () => {
  it('scenario 42: fails every replica of the disk, until the disk is opened again', async () => {
    await failedFlush();
    const [info] = bed.disks.info();
    expect(info).toMatchObject({ state: 'failed' });
    expect(bed.disks.unhealthyReason()).toMatch(/failed/);
    const v2 = await bed.stream('v2');
    expect(await bed.write(v2, 9, 0)).toBe('REPLICA_FAILED');
    expect(await codeOf(bed.open('v1'))).toBe('REPLICA_FAILED');
    await bed.pass(4_999);
    expect(await codeOf(bed.open('v1'))).toBe('REPLICA_FAILED');
    await bed.pass(1);
    expect(bed.disks.info()).toMatchObject([{ state: 'ready', reason: '' }]);
    expect(bed.disks.unhealthyReason()).toBeUndefined();
    expect(await codeOf(bed.open('v1'))).toBe('OK');
  });

  it('P10: replicas with dirty regions come back lossy, clean ones do not', async () => {
    await failedFlush();
    await bed.pass(5_000);
    expect(await bed.infoOf('v1')).toMatchObject({ lossy: true, restartedDirty: true });
    expect(await bed.open('v1')).toMatchObject({
      ...{ lossy: true, restartedDirty: true, dirtyRegions: [0] },
    });
    expect(await bed.open('v2')).toMatchObject({
      ...{ lossy: false, restartedDirty: false, dirtyRegions: [] },
    });
  });

  it('P10: also if the daemon is killed before it could say so, and only then', async () => {
    await failedFlush();
    const [note] = await bed.home.notes();
    expect(note).toMatchObject({ lostWrites: true });
    await bed.kill();
    await bed.start();
    expect((await bed.home.notes())[0]?.lostWrites).toBeUndefined();
    expect(await bed.open('v1')).toMatchObject({ lossy: true, dirtyRegions: [0] });
    // It is noted with the replica now.
    await bed.kill();
    await bed.start();
    expect(await bed.open('v1')).toMatchObject({ lossy: true });
    expect(await bed.open('v2')).toMatchObject({ lossy: false });
  });

  it('P10: also if the note cannot be written, as long as the daemon lives', async () => {
    bed = new DiskBed();
    await bed.start();
    await bed.open('v1');
    const stream = await bed.stream('v1');
    await bed.write(stream, 1, 0);
    bed.home.putFails = true;
    bed.medium().inject({ op: 'flush', errno: 'EIO' });
    expect(await bed.command(stream, 2, IO_OP.FLUSH)).toBe('IO_ERROR');
    bed.home.putFails = false;
    await bed.pass(5_000);
    expect(await bed.open('v1')).toMatchObject({ lossy: true });
  });

  it('a start that is cut off before the note goes does it again', async () => {
    await failedFlush();
    await bed.kill();
    bed.home.putFails = true;
    await expect(bed.start()).rejects.toMatchObject({ code: 'NO_SPACE' });
    await bed.kill();
    bed.home.putFails = false;
    await bed.start();
    expect(await bed.open('v1')).toMatchObject({ lossy: true });
    expect((await bed.home.notes())[0]?.lostWrites).toBeUndefined();
  });

  it('scenario 39: a failed metadata batch loses nothing, unless it was to be synced', async () => {
    for (const synced of [false, true]) {
      bed = new DiskBed();
      await bed.start();
      await bed.open('v1');
      const stream = await bed.stream('v1');
      await bed.write(stream, 1, 0);
      bed.kvs.only.beforeBatch = (sync) => {
        if (sync === synced) throw new StorageError('IO_ERROR', 'the log cannot be written');
        return undefined;
      };
      const code = synced
        ? await bed.command(stream, 2, IO_OP.FLUSH)
        : await bed.write(stream, 2, 99);
      expect(code).toBe('IO_ERROR');
      bed.kvs.only.beforeBatch = undefined;
      await bed.pass(5_000);
      expect(await bed.open('v1')).toMatchObject({ lossy: synced, restartedDirty: true });
      const again = await bed.stream('v1');
      expect(await bed.command(again, 3, IO_OP.READ, 0)).toBe('OK');
      await bed.stop();
    }
  });
});

describe('P7: a disk that was opened again', () => {
  it('is another incarnation for each of its replicas, in every answer', async () => {
    await failedFlush();
    const before = await bed.infoOf('v1');
    expect(before?.incarnation).toBe('i1');
    await bed.pass(5_000);
    const reply = await bed.open('v1');
    expect(reply.incarnation).toBe('i1.1');
    expect((await bed.infoOf('v1'))?.incarnation).toBe('i1.1');
    expect((await bed.infoOf('v2'))?.incarnation).toBe('i1.1');
    const stream = await bed.stream('v1');
    expect(stream.hello?.incarnation).toBe('i1.1');
    bed.medium().inject({ op: 'flush', errno: 'EIO' });
    await bed.command(stream, 3, IO_OP.FLUSH);
    await bed.pass(10_000);
    expect((await bed.open('v1')).incarnation).toBe('i1.2');
  });

  it('ends old streams, and takes new ones only after OpenReplica', async () => {
    await failedFlush();
    const stream = await bed.stream('v1');
    expect(stream.hello).toBeDefined();
    await bed.pass(5_000);
    expect(stream.closed?.error?.code).toBe('REPLICA_FAILED');
    const early = await bed.stream('v1');
    expect(early.closed?.error?.code).toBe('STALE_EPOCH');
    const call = { volume: 'v1', replicaId: 'r-v1', epoch: 1, region: 0 };
    expect(await codeOf(bed.service.control.listExtents(call))).toBe('STALE_EPOCH');
    await bed.open('v1');
    const next = await bed.stream('v1');
    expect(await bed.write(next, 5, 3)).toBe('OK');
    expect(await bed.command(next, 6, IO_OP.FLUSH)).toBe('OK');
  });

  it('R5: remembers the highest epoch, and how long older engines were silent', async () => {
    await failedFlush();
    await bed.pass(5_000);
    const control = bed.service.control;
    const subject = { volume: 'v1', replicaId: 'r-v1', engineId: 'e2' };
    expect(await codeOf(control.openReplica({ ...subject, epoch: 1 }))).toBe('STALE_EPOCH');
    const reply = await control.openReplica({ ...subject, epoch: 2 });
    expect(reply).toMatchObject({ silentMs: 5_000, previousEngineId: 'e1' });
  });

  it('finishes a deletion that the failure cut off; the name is free again', async () => {
    bed = new DiskBed();
    await bed.start();
    await bed.open('v1');
    const { control } = bed.service;
    let batches = 0;
    bed.kvs.only.beforeBatch = () => {
      batches += 1;
      if (batches === 3) throw new StorageError('IO_ERROR', 'the log cannot be written');
      return undefined;
    };
    const request = { volume: 'v1', replicaId: 'r-v1', epoch: 2 };
    expect(await codeOf(control.deleteReplica(request))).toBe('IO_ERROR');
    bed.kvs.only.beforeBatch = undefined;
    await bed.pass(5_000);
    expect(await bed.infoOf('v1')).toBeUndefined();
    expect(await codeOf(control.openReplica({ ...request, engineId: 'e1' }))).toBe('NOT_FOUND');
    expect(await codeOf(bed.open('v1', 3))).toBe('OK');
  });

  it('scenario 44: the replicas of another disk are not touched', async () => {
    bed = new DiskBed(['/dev/a', '/dev/b']);
    await bed.start();
    await bed.open('v1');
    const v1 = await bed.stream('v1');
    // The first disk has less room now, so the second volume goes to the second one.
    await bed.write(v1, 1, 0);
    await bed.open('v2');
    const v2 = await bed.stream('v2');
    bed.medium('/dev/a').inject({ op: 'flush', errno: 'EIO' });
    expect(await bed.command(v1, 2, IO_OP.FLUSH)).toBe('IO_ERROR');
    expect(await bed.write(v2, 1, 0)).toBe('OK');
    await bed.pass(5_000);
    expect(await bed.write(v2, 2, 0)).toBe('OK');
    expect((await bed.infoOf('v2'))?.incarnation).toBe('i1');
    expect((await bed.infoOf('v1'))?.incarnation).toBe('i1.1');
  });
});

describe('scenario 44: a disk that is away', () => {
  it('is tried ever more slowly, shown as failed, and serves when it is back', async () => {
    await failedFlush();
    bed.away.add('/dev/a');
    const tries = (): number => bed.openings.length;
    let before = tries();
    for (const waitMs of [5_000, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000]) {
      await bed.pass(waitMs - 1);
      expect(tries()).toBe(before);
      await bed.pass(1);
      expect(tries()).toBe(before + 1);
      before = tries();
      const [info] = bed.disks.info();
      expect(info).toMatchObject({ state: 'failed', reason: 'NOT_FOUND: /dev/a is away' });
      expect((await bed.infoOf('v1'))?.failed).toBe(true);
    }
    bed.away.clear();
    await bed.pass(300_000);
    expect(bed.disks.info()).toMatchObject([{ state: 'ready' }]);
    expect((await bed.infoOf('v1'))?.failed).toBe(false);
    expect(await bed.open('v1')).toMatchObject({ lossy: true, incarnation: 'i1.1' });
  });

  it('at the start: the others serve; when it comes its replicas are there', async () => {
    bed = new DiskBed(['/dev/a', '/dev/b']);
    await bed.start();
    await bed.open('v1');
    await bed.stop();
    bed.away.add('/dev/a');
    await bed.start();
    expect(bed.disks.info()).toMatchObject([
      { path: '/dev/a', state: 'refused', reason: 'NOT_FOUND: /dev/a is away' },
      { path: '/dev/b', state: 'ready' },
    ]);
    expect(await bed.infoOf('v1')).toBeUndefined();
    bed.away.clear();
    await bed.pass(5_000);
    expect(await bed.infoOf('v1')).toMatchObject({ failed: false, incarnation: 'i2' });
    expect(await codeOf(bed.open('v1'))).toBe('OK');
  });

  it('all of them: the daemon does not start', async () => {
    bed = new DiskBed();
    bed.away.add('/dev/a');
    await expect(bed.start()).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  it('scenario 54: what comes instead is refused and never formatted', async () => {
    bed = new DiskBed(['/dev/a', '/dev/b']);
    await bed.start();
    await bed.open('v1');
    await bed.stop();
    bed.away.add('/dev/a');
    await bed.start();
    const [used] = [bed.medium('/dev/a')];
    const blank = new MemoryDisk({ sizeBytes: 32 * MIB });
    bed.media.set('/dev/a', blank);
    bed.home.noteByDisk.forEach((note, id) => {
      // As if it had never been formatted under this path: only the retry forbids it.
      if (note.path === '/dev/a') bed.home.noteByDisk.set(id, { ...note, path: '/dev/old' });
    });
    bed.away.clear();
    await bed.pass(5_000);
    expect(bed.disks.info()[0]).toMatchObject({ state: 'refused' });
    expect(bed.disks.info()[0]?.reason).toMatch(/^DISK_MISMATCH: .*is not formatted/);
    expect(blank.peek(0, MIB).equals(Buffer.alloc(MIB))).toBe(true);
    bed.media.set('/dev/a', used as MemoryDisk);
    await bed.pass(10_000);
    expect(bed.disks.info()[0]).toMatchObject({ state: 'ready' });
  });

  it('scenario 54: another disk of the same daemon in its place is refused', async () => {
    bed = new DiskBed(['/dev/a', '/dev/b']);
    await bed.start();
    await bed.open('v1');
    const stream = await bed.stream('v1');
    await bed.write(stream, 1, 0);
    const [a, b] = [bed.medium('/dev/a'), bed.medium('/dev/b')];
    for (const medium of [a, b]) medium.inject({ op: 'flush', errno: 'EIO' });
    expect(await bed.command(stream, 2, IO_OP.FLUSH)).toBe('IO_ERROR');
    await bed.open('v2');
    const other = await bed.stream('v2');
    expect(await bed.command(other, 1, IO_OP.FLUSH)).toBe('IO_ERROR');
    bed.media.set('/dev/a', b);
    bed.media.set('/dev/b', a);
    await bed.pass(5_000);
    const reasons = bed.disks.info().map(({ reason }) => reason);
    for (const reason of reasons) expect(reason).toMatch(/^DISK_MISMATCH: .*is disk .*, not disk/);
    bed.media.set('/dev/a', a);
    bed.media.set('/dev/b', b);
    await bed.pass(10_000);
    expect(bed.disks.info().map(({ state }) => state)).toEqual(['ready', 'ready']);
    expect(await bed.open('v1')).toMatchObject({ lossy: true });
  });

  it('is not tried any more once the daemon stops', async () => {
    await failedFlush();
    const tries = bed.openings.length;
    await bed.stop();
    await bed.pass(600_000);
    expect(bed.openings).toHaveLength(tries);
  });

  it('data that was written before is there when it is back', async () => {
    await failedFlush();
    await bed.pass(5_000);
    await bed.open('v2', 2);
    const stream = await bed.stream('v2', 2);
    expect(await bed.command(stream, 1, IO_OP.READ, 0)).toBe('OK');
    expect(stream.replyTo(1)?.payload.equals(stamped(1, 1))).toBe(true);
  });
});

describe('the wait before a disk is tried again', () => {
  it('doubles from 5 s to 5 min, and starts again after 5 min of service', () => {
    const delay = new RetryDelay();
    expect([0, 0, 0].map((served) => delay.next(served))).toEqual([5_000, 10_000, 20_000]);
    expect(delay.next(299_999)).toBe(40_000);
    expect(Array.from({ length: 5 }, () => delay.next(0))).toEqual([
      ...[80_000, 160_000, 300_000, 300_000, 300_000],
    ]);
    expect(delay.next(300_000)).toBe(5_000);
    expect(delay.next(0)).toBe(10_000);
  });
});
