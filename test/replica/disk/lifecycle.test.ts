/** Replicas on a disk: their records, how they were left, deletion, failure of the disk. */
import { afterEach, describe, expect, it } from 'vitest';
import { BLOCK_SIZE, MIB, REGION_SIZE } from '../../../common/units.js';
import { compareReplicas } from '../../../replica/compare.js';
import type { ReplicaHandle } from '../../../replica/disk/disk.js';
import { checksumsOf, MEMBERSHIP, StoreBed, stamped, VOLUME } from '../store/store-bed.js';

let bed: StoreBed;

afterEach(async () => {
  await bed.close();
  expect(bed.pool.usedBytes).toBe(0);
});

describe('records', () => {
  it('P4, R3, R7: epoch and membership are durable when they resolve', async () => {
    bed = new StoreBed();
    await bed.open();
    const member = { replicaId: 'r1', address: 'a:1', state: 'in-sync' as const };
    await bed.handle.setEpoch(7, 'engine-7');
    const record = { epoch: 7, generation: 3, engineId: 'engine-7', era: 2, members: [member] };
    await bed.handle.setMembership(record);
    await bed.powerCut('dropped');
    await bed.open();
    expect(bed.handle.epoch).toBe(7);
    expect(bed.handle.engineId).toBe('engine-7');
    expect(bed.handle.membership).toEqual(record);
    expect(bed.handle.record.previousEngineId).toBe('');
    await bed.handle.setEpoch(7, 'engine-7');
    expect(bed.handle.record.previousEngineId).toBe('');
    await bed.handle.setEpoch(9, 'engine-9');
    await bed.powerCut('dropped');
    await bed.open();
    expect(bed.handle.record).toMatchObject({ epoch: 9, previousEngineId: 'engine-7' });
    await expect(bed.handle.setEpoch(6, 'old')).rejects.toMatchObject({ code: 'STALE_EPOCH' });
    expect(bed.handle.epoch).toBe(9);
  });

  it('creating again is no change, as another replica or size it is CONFLICT', async () => {
    bed = new StoreBed();
    await bed.open();
    const same = {
      volume: VOLUME,
      sizeBytes: bed.volumeBytes,
      replicaId: 'r1',
      membership: MEMBERSHIP,
    };
    await bed.disk.createReplica(same);
    for (const other of [
      { ...same, replicaId: 'r2' },
      { ...same, sizeBytes: MIB },
    ]) {
      await expect(bed.disk.createReplica(other)).rejects.toMatchObject({ code: 'CONFLICT' });
    }
    await expect(bed.disk.createReplica({ ...same, volume: '../x' })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
    await expect(bed.disk.openReplica(VOLUME)).rejects.toMatchObject({ code: 'CONFLICT' });
    await expect(bed.disk.openReplica('nobody')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(bed.disk.deleteReplica(VOLUME)).rejects.toMatchObject({ code: 'CONFLICT' });
    await bed.disk.deleteReplica('nobody');
  });
});

describe('deletion', () => {
  async function twoVolumes(): Promise<void> {
    bed = new StoreBed();
    const disk = await bed.openDisk();
    for (const volume of ['va', 'vb']) {
      await disk.createReplica({
        volume,
        sizeBytes: 16 * MIB,
        replicaId: `${volume}-r`,
        membership: MEMBERSHIP,
      });
      const handle = await disk.openReplica(volume);
      for (let n = 0; n < 8; n += 1) await writeTo(handle, n * 256, stamped(n + 1, 256));
      await handle.close();
    }
  }

  it('frees its extents, whose bytes are gone before they are used again', async () => {
    await twoVolumes();
    expect(bed.disk.usedBytes).toBe(16 * MIB);
    await bed.disk.deleteReplica('va');
    expect(bed.disk.usedBytes).toBe(8 * MIB);
    await bed.disk.createReplica({
      volume: 'va',
      sizeBytes: 16 * MIB,
      replicaId: 'again',
      membership: MEMBERSHIP,
    });
    const handle = await bed.disk.openReplica('va');
    expect((await handle.store.read(0, MIB)).data).toBeUndefined();
    await bed.close();
    await bed.openDisk();
    expect(bed.disk.usedBytes).toBe(8 * MIB);
    expect(
      bed.disk
        .replicas()
        .map(({ replicaId }) => replicaId)
        .sort(),
    ).toEqual(['again', 'vb-r']);
  });

  it('a crash at any batch of it is finished at the next open', async () => {
    for (let step = 0; step < 6; step += 1) {
      await twoVolumes();
      let left = step;
      bed.kvs.only.beforeBatch = () => {
        left -= 1;
        if (left < 0) throw new Error('killed here');
        return undefined;
      };
      const done = await bed.disk.deleteReplica('va').then(
        () => true,
        () => false,
      );
      bed.kvs.only.beforeBatch = undefined;
      if (step % 2 === 0) await bed.kill();
      else await bed.powerCut('dropped');
      const disk = await bed.openDisk();
      const volumes = disk.replicas().map(({ volume }) => volume);
      expect(volumes).toEqual(step === 0 ? ['va', 'vb'] : ['vb']);
      expect(disk.usedBytes).toBe(step === 0 ? 16 * MIB : 8 * MIB);
      await bed.close();
      if (done) return;
    }
    throw new Error('the deletion never came through');
  });
});

describe('failures', () => {
  it('P8: an EIO on a write fails the replica until it is reopened', async () => {
    bed = new StoreBed();
    await bed.open();
    await bed.write(0, stamped(1, 4));
    await bed.write(256, stamped(2, 4));
    bed.medium.inject({ op: 'write', errno: 'EIO' });
    await expect(bed.write(0, stamped(3, 1))).rejects.toMatchObject({ code: 'IO_ERROR' });
    for (const call of [
      () => bed.write(256, stamped(4, 1)),
      () => bed.read(0, 1),
      () => bed.store.flush(),
      () => bed.store.trim(0, MIB),
      () => bed.store.clean(0, { epoch: 1, counter: 1 }),
    ]) {
      await expect(call()).rejects.toMatchObject({ code: 'REPLICA_FAILED' });
    }
    expect(bed.disk.state).toBe('ready');
    await bed.handle.reopen();
    expect(bed.handle.restartedDirty).toBe(true);
    expect((await bed.read(256, 4)).equals(stamped(2, 4))).toBe(true);
    await bed.write(0, stamped(5, 4));
    expect((await bed.read(0, 4)).equals(stamped(5, 4))).toBe(true);
  });

  it('P7, P8: a reopened replica is another incarnation and believes no checksum', async () => {
    bed = new StoreBed({ volumeBytes: 3 * REGION_SIZE });
    await bed.open();
    await bed.write(0, stamped(1, 4));
    await bed.store.clean(0, { epoch: 1, counter: 1 });
    await bed.write((2 * REGION_SIZE) / BLOCK_SIZE, stamped(2, 4));
    const { incarnation } = bed.handle;
    expect(bed.handle.record.lastIncarnation).toBe(incarnation);
    bed.medium.inject({ op: 'write', errno: 'EIO' });
    const failing = bed.write((2 * REGION_SIZE) / BLOCK_SIZE, stamped(3, 4));
    await expect(failing).rejects.toMatchObject({ code: 'IO_ERROR' });
    await bed.handle.reopen();
    expect(bed.handle.incarnation).toBe(`${incarnation}+1`);
    expect(bed.handle.record.lastIncarnation).toBe(`${incarnation}+1`);
    expect(bed.disk.replicas()[0]).toMatchObject({
      ...{ incarnation: `${incarnation}+1`, restartedDirty: true, lossy: false },
    });
    // The failed write left some of its sectors: what is there now is what counts (P5).
    await bed.read((2 * REGION_SIZE) / BLOCK_SIZE, 4);
    expect(bed.disk.counters.reprovenExtents).toBe(1);
    expect((await bed.read(0, 4)).equals(stamped(1, 4))).toBe(true);
    expect(bed.disk.counters.reprovenExtents).toBe(1);
    await bed.kill();
    await bed.open();
    expect(bed.handle.incarnation).toBe('incarnation-2');
  });

  it('an EIO on a read is only that read', async () => {
    bed = new StoreBed();
    await bed.open();
    await bed.write(0, stamped(1, 4));
    bed.medium.inject({ op: 'read', errno: 'EIO' });
    await expect(bed.read(0, 1)).rejects.toMatchObject({ code: 'IO_ERROR' });
    expect((await bed.read(0, 4)).equals(stamped(1, 4))).toBe(true);
  });

  it('D3: a failed flush fails the disk and all its replicas, and is not asked again', async () => {
    bed = new StoreBed();
    await bed.open();
    await bed.disk.createReplica({
      volume: 'vb',
      sizeBytes: MIB,
      replicaId: 'b',
      membership: MEMBERSHIP,
    });
    const other = await bed.disk.openReplica('vb');
    await bed.write(0, stamped(1, 4));
    bed.medium.inject({ op: 'flush', errno: 'EIO' });
    const [first, second] = await Promise.allSettled([bed.store.flush(), bed.store.flush()]);
    expect([first?.status, second?.status]).toEqual(['rejected', 'rejected']);
    expect(bed.disk.state).toBe('failed');
    expect(other.store.failedReason).toBeDefined();
    const { deviceFlushes } = bed.disk.counters;
    await expect(bed.store.flush()).rejects.toMatchObject({ code: 'REPLICA_FAILED' });
    await expect(bed.handle.reopen()).rejects.toMatchObject({ code: 'REPLICA_FAILED' });
    expect(bed.disk.counters.deviceFlushes).toBe(deviceFlushes);
    await bed.close();
    await bed.open();
    expect(bed.handle.restartedDirty).toBe(true);
  });

  it('D3, R2: what is shown after a failed flush stays, whatever happens then', async () => {
    let kept = 0;
    for (let seed = 1; seed <= 8; seed += 1) {
      bed = new StoreBed({ seed });
      await bed.open();
      await bed.write(0, stamped(1, 4));
      await bed.store.flush();
      await bed.write(1, stamped(2, 2));
      await bed.write(300, stamped(3, 1));
      bed.medium.inject({ op: 'flush', errno: 'EIO' });
      await expect(bed.store.flush()).rejects.toMatchObject({ code: 'IO_ERROR' });
      await bed.close();
      await bed.open();
      const shown = [await bed.read(0, 4), await bed.read(300, 1)];
      await bed.store.flush();
      await bed.powerCut('dropped');
      await bed.open();
      for (const [n, before] of shown.entries()) {
        const after = await bed.read(n === 0 ? 0 : 300, n === 0 ? 4 : 1);
        expect([seed, n, after.equals(before)]).toEqual([seed, n, true]);
      }
      if (shown[0]?.equals(stamped(1, 4)) === false) kept += 1;
    }
    expect(kept).toBeGreaterThan(0);
  });

  it('a failed metadata batch fails the disk (39)', async () => {
    bed = new StoreBed();
    await bed.open();
    await bed.write(0, stamped(1, 4));
    bed.kvs.only.beforeBatch = () => {
      throw new Error('no space for metadata');
    };
    await expect(bed.write(8, stamped(2, 1))).rejects.toThrow('no space for metadata');
    bed.kvs.only.beforeBatch = undefined;
    expect(bed.disk.state).toBe('failed');
    await expect(bed.read(0, 1)).rejects.toMatchObject({ code: 'REPLICA_FAILED' });
    await bed.close();
    await bed.open();
    expect((await bed.read(0, 4)).equals(stamped(1, 4))).toBe(true);
  });

  it('40: device operation N fails, for each N: nothing acknowledged is lost', async () => {
    for (let failing = 0; ; failing += 1) {
      bed = new StoreBed({ diskBytes: 12 * MIB });
      await bed.open();
      const disarm = bed.medium.inject({ op: 'any', errno: 'EIO', skip: failing });
      const before = bed.medium.operations;
      const acknowledged = new Map<number, number>();
      for (const [n, block] of [0, 1, 300, 301, 1].entries()) {
        await bed.write(block, stamped(n + 1, 1)).then(
          () => acknowledged.set(block, n + 1),
          () => acknowledged.delete(block),
        );
      }
      await bed.store.flush().catch(() => undefined);
      await bed.store.trim(300 * BLOCK_SIZE, BLOCK_SIZE).then(
        () => acknowledged.set(300, 0),
        () => acknowledged.delete(300),
      );
      disarm();
      const ran = bed.medium.operations - before;
      await bed.kill();
      await bed.open();
      for (const [block, stamp] of acknowledged) {
        expect((await bed.read(block, 1)).equals(stamped(stamp, 1)), `N=${failing}`).toBe(true);
      }
      await bed.close();
      if (failing > ran) return;
    }
  });

  it('37, 38: NO_SPACE changes nothing, and writes go on when space is freed', async () => {
    bed = new StoreBed({ diskBytes: 11 * MIB, reserveBytes: 2 * MIB });
    await bed.open();
    for (let n = 0; n < 8; n += 1) await bed.write(n * 256, stamped(n + 1, 2));
    await expect(bed.write(9 * 256, stamped(50, 1))).rejects.toMatchObject({ code: 'NO_SPACE' });
    await expect(bed.write(8 * 256 - 1, stamped(50, 2))).rejects.toMatchObject({
      code: 'NO_SPACE',
    });
    expect((await bed.read(8 * 256 - 1, 2)).equals(stamped(0, 2))).toBe(true);
    expect(bed.store.failedReason).toBeUndefined();
    expect(bed.store.allocatedBytes).toBe(8 * MIB);
    await bed.write(0, stamped(60, 2));
    await bed.write(7 * 256 + 5, stamped(61, 2));
    await bed.store.flush();
    await bed.store.trim(3 * MIB, MIB);
    await bed.write(9 * 256, stamped(51, 1));
    expect((await bed.read(9 * 256, 1)).equals(stamped(51, 1))).toBe(true);
  });

  it('NO_SPACE of the device below a first write: nothing changed', async () => {
    bed = new StoreBed();
    await bed.open();
    await bed.write(0, stamped(1, 2));
    bed.medium.inject({ op: 'write', errno: 'ENOSPC' });
    await expect(bed.write(4, stamped(2, 2))).rejects.toMatchObject({ code: 'NO_SPACE' });
    expect(bed.store.failedReason).toBeUndefined();
    expect((await bed.read(0, 8)).equals(Buffer.concat([stamped(1, 2), stamped(0, 6)]))).toBe(true);
    await bed.write(4, stamped(3, 2));
    expect((await bed.read(4, 2)).equals(stamped(3, 2))).toBe(true);
  });
});

describe('offline comparison', () => {
  async function beds(): Promise<StoreBed[]> {
    const all = [1, 2, 3].map((seed) => new StoreBed({ seed, volumeBytes: 12 * MIB }));
    for (const one of all) {
      await one.open();
      await one.write(3, stamped(1, 300));
    }
    bed = all[0] as StoreBed;
    return all;
  }

  async function compare(all: StoreBed[]) {
    for (const one of all) await one.close();
    return await compareReplicas({
      volume: VOLUME,
      disks: all.map((one, n) => ({
        path: `/dev/${n}`,
        metaDir: '/meta',
        identity: { clusterId: 'cluster', daemonId: 'daemon' },
        home: one.home,
      })),
      pool: bed.pool,
      log: bed.diskOptions().log,
      openDevice: async (path) => (all[Number(path.at(-1))] as StoreBed).medium.open(path),
      openKv: (directory, options) => {
        const owner = all.find((one) => one.kvs.disks.has(directory)) as StoreBed;
        return owner.kvs.openKv(directory, options);
      },
    });
  }

  it('equal copies are identical, also where one has zeroes and another has nothing', async () => {
    const all = await beds();
    await all[1]?.store.writeZeroes(8 * MIB, MIB, { noHole: true });
    const report = await compare(all);
    expect(report).toMatchObject({ identical: true, differentBlocks: 0, comparedBytes: 12 * MIB });
    expect(report.copies.map(({ replicaId }) => replicaId)).toEqual(['r1', 'r1', 'r1']);
    for (const one of all) await one.open();
    for (const one of all) await one.close();
  });

  it('finds what differs and what is rotten', async () => {
    const all = await beds();
    await all[2]?.write(40, stamped(9, 2));
    await all[1]?.close();
    const medium = (all[1] as StoreBed).medium;
    const at = medium.peek(MIB, 31 * MIB).indexOf(stamped(1, 300).subarray(0, 64)) + MIB;
    medium.rot(at + 10 * BLOCK_SIZE + 9);
    const report = await compare(all);
    expect(report.identical).toBe(false);
    expect(report.differentBlocks).toBe(3);
    expect(report.differences.map(({ offsetBytes }) => offsetBytes / BLOCK_SIZE)).toEqual([
      13, 40, 41,
    ]);
    expect(report.differences[1]?.groups).toEqual([['/dev/0', '/dev/1'], ['/dev/2']]);
    expect(report.badBlocks).toEqual([{ path: '/dev/1', offsetBytes: 13 * BLOCK_SIZE }]);
    expect(report.copies[1]?.badBlocks).toBe(1);
  });

  it('a running daemon is refused, and is not disturbed', async () => {
    const all = await beds();
    const running = all[0] as StoreBed;
    await expect(
      compareReplicas({
        volume: VOLUME,
        disks: [
          {
            path: '/dev/0',
            metaDir: '/meta',
            identity: running.diskOptions().identity,
            home: running.home,
          },
        ],
        pool: running.pool,
        log: running.diskOptions().log,
        openDevice: async (path) => running.medium.open(path),
        openKv: running.kvs.openKv,
      }),
    ).rejects.toMatchObject({ code: 'DISK_LOCKED' });
    await running.write(0, stamped(3, 1));
    for (const one of all) await one.close();
  });
});

async function writeTo(handle: ReplicaHandle, block: number, content: Buffer): Promise<void> {
  await handle.store.write(block * BLOCK_SIZE, bed.buffer(content), checksumsOf(content));
}
