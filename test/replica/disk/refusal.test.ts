/** Disks and metadata that do not belong together, are damaged, short, old or somebody else's are
 *  refused (R4, R7, R8; scenarios 14, 52-56). */
import { afterEach, describe, expect, it } from 'vitest';
import type { ErrorCode } from '../../../common/errors.js';
import { BLOCK_SIZE, KIB, MIB } from '../../../common/units.js';
import { crc32c } from '../../../native/index.js';
import { openDisk } from '../../../replica/disk/disk.js';
import { MemoryDisk } from '../../support/memory-device.js';
import { checksumsOf, MEMBERSHIP, StoreBed, stamped, VOLUME } from '../store/store-bed.js';

let bed: StoreBed;

afterEach(() => bed.close());

async function used(): Promise<StoreBed> {
  bed = new StoreBed();
  await bed.open();
  await bed.write(0, stamped(1, 300));
  await bed.write(20 * 256, stamped(2, 3));
  await bed.store.flush();
  await bed.close();
  return bed;
}

function flip(bytes: Buffer, at: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[at] = (copy[at] ?? 0) ^ 1;
  return copy;
}

async function refused(code: ErrorCode): Promise<void> {
  await expect(bed.openDisk()).rejects.toMatchObject({ code });
  // and again: a refusal changes nothing
  await expect(bed.openDisk()).rejects.toMatchObject({ code });
}

describe('superblocks', () => {
  for (const offset of [0, 512 * KIB]) {
    for (const [name, at] of [
      ['magic', 1],
      ['version', 8],
      ['size', 17],
      ['identity', 70],
      ['checksum', 4094],
    ] as const) {
      it(`one torn copy is repaired from the other (${name} at ${offset})`, async () => {
        await used();
        bed.medium.rot(offset + at);
        await bed.open();
        expect((await bed.read(0, 256)).equals(stamped(1, 300).subarray(0, MIB))).toBe(true);
        await bed.close();
        const [first, second] = [0, 512 * KIB].map((place) => bed.medium.peek(place, BLOCK_SIZE));
        expect(first?.equals(second ?? Buffer.alloc(0))).toBe(true);
      });
    }
  }

  it('both damaged: CORRUPT_METADATA', async () => {
    await used();
    for (const offset of [0, 512 * KIB]) bed.medium.rot(offset + 100);
    await refused('CORRUPT_METADATA');
  });

  it('both wiped: DISK_MISMATCH, never formatted again (54)', async () => {
    await used();
    for (const offset of [0, 512 * KIB]) bed.medium.poke(offset, Buffer.alloc(BLOCK_SIZE));
    await refused('DISK_MISMATCH');
  });

  it('both wiped and no metadata left: DISK_NOT_EMPTY', async () => {
    await used();
    for (const offset of [0, 512 * KIB]) bed.medium.poke(offset, Buffer.alloc(BLOCK_SIZE));
    bed.home.noteByDisk.clear();
    bed.medium.poke(MIB - BLOCK_SIZE, stamped(4, 1));
    await refused('DISK_NOT_EMPTY');
  });
});

describe('foreign content', () => {
  for (const [name, at] of [
    ['first block', 0],
    ['first MiB', 700 * KIB],
    ['middle', 16 * MIB],
    ['last block', 32 * MIB - BLOCK_SIZE],
  ] as const) {
    it(`something in the ${name}: DISK_NOT_EMPTY, and it is left alone`, async () => {
      bed = new StoreBed();
      bed.medium.poke(at, stamped(3, 1));
      await refused('DISK_NOT_EMPTY');
      expect(bed.medium.peek(at, BLOCK_SIZE).equals(stamped(3, 1))).toBe(true);
      expect(bed.kvs.disks.size).toBe(0);
    });
  }

  it('a disk of another daemon or cluster: DISK_FOREIGN (R8)', async () => {
    await used();
    for (const identity of [
      { clusterId: 'cluster', daemonId: 'other' },
      { clusterId: 'other', daemonId: 'daemon' },
    ]) {
      await expect(openDisk({ ...bed.diskOptions(), identity })).rejects.toMatchObject({
        code: 'DISK_FOREIGN',
      });
    }
    await bed.open();
  });

  it('a newer format: VERSION_UNSUPPORTED', async () => {
    await used();
    const bytes = bed.medium.peek(0, BLOCK_SIZE);
    bytes.writeUInt32LE(2, 8);
    bytes.writeUInt32LE(checksumOf(bytes), BLOCK_SIZE - 4);
    for (const offset of [0, 512 * KIB]) bed.medium.poke(offset, bytes);
    await refused('VERSION_UNSUPPORTED');
  });
});

describe('missing halves', () => {
  it('metadata of the disk is gone: DISK_MISMATCH', async () => {
    await used();
    bed.home.noteByDisk.clear();
    await refused('DISK_MISMATCH');
  });

  it('the database is gone, its directory is there: DISK_MISMATCH', async () => {
    await used();
    bed.kvs.disks.clear();
    await refused('DISK_MISMATCH');
  });

  it('metadata of another disk: DISK_MISMATCH', async () => {
    await used();
    const mine = bed.kvs.only;
    const other = new StoreBed({ seed: 99 });
    await other.open();
    await other.close();
    mine.restore(other.kvs.only.snapshot());
    await refused('DISK_MISMATCH');
  });

  it('another blank disk at the same path: DISK_MISMATCH (54)', async () => {
    await used();
    bed.medium.poke(0, Buffer.alloc(bed.medium.sizeBytes));
    await refused('DISK_MISMATCH');
  });

  it('the file is missing where a disk was: DISK_MISMATCH, not made (54)', async () => {
    await used();
    bed.home.diskIs = 'missing';
    await expect(openDisk({ ...bed.diskOptions(), sizeBytes: 32 * MIB })).rejects.toMatchObject({
      code: 'DISK_MISMATCH',
    });
    expect(bed.home.diskIs).toBe('missing');
  });

  it('a missing file without a size: NOT_FOUND; too small: refused', async () => {
    bed = new StoreBed();
    bed.home.diskIs = 'missing';
    await refused('NOT_FOUND');
    await expect(openDisk({ ...bed.diskOptions(), sizeBytes: MIB })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
    bed = new StoreBed({ diskBytes: 4 * MIB });
    await refused('NO_SPACE');
  });
});

describe('size', () => {
  it('a truncated disk: DISK_TRUNCATED (53)', async () => {
    await used();
    await refusedWith(copyOf(bed.medium, 31 * MIB), 'DISK_TRUNCATED');
  });

  it('a grown disk is welcome and has more room', async () => {
    await used();
    const medium = copyOf(bed.medium, 48 * MIB);
    const open = { ...bed.diskOptions(), openDevice: async () => medium.open() };
    const disk = await openDisk(open);
    expect(disk.sizeBytes).toBe(48 * MIB);
    const handle = await disk.openReplica(VOLUME);
    for (let n = 3; n < 44; n += 1) {
      const content = stamped(n, 1);
      await handle.store.write(n * MIB, bed.buffer(content), checksumsOf(content));
    }
    await disk.close();
  });
});

describe('rolled back (55)', () => {
  it('the disk, to before the last open or close: DISK_ROLLED_BACK', async () => {
    await used();
    const image = bed.medium.peek(0, 32 * MIB);
    await bed.open();
    await bed.close();
    bed.medium.poke(0, image);
    await refused('DISK_ROLLED_BACK');
  });

  it('the metadata, to before the last open or close: DISK_ROLLED_BACK', async () => {
    await used();
    const state = bed.kvs.only.snapshot();
    await bed.open();
    await bed.close();
    bed.kvs.only.restore(state);
    await refused('DISK_ROLLED_BACK');
  });

  it('the disk, to an image of the running session, after it was closed', async () => {
    await used();
    await bed.open();
    const image = bed.medium.peek(0, 32 * MIB);
    await bed.write(0, stamped(7, 1));
    await bed.close();
    bed.medium.poke(0, image);
    await refused('DISK_ROLLED_BACK');
  });

  it('only one superblock: the newer one counts', async () => {
    await used();
    const old = bed.medium.peek(0, BLOCK_SIZE);
    await bed.open();
    await bed.close();
    bed.medium.poke(0, old);
    await bed.open();
  });
});

describe('nonce change', () => {
  it('an open that dies at any device operation or batch can be opened again', async () => {
    for (let step = 0; step < 12; step += 1) {
      await used();
      const disarm = bed.medium.inject({ op: 'any', errno: 'EIO', skip: step });
      let failed = false;
      await bed.open().catch(() => {
        failed = true;
      });
      disarm();
      await bed.powerCut(step % 2 === 0 ? 'torn' : 'kept');
      await bed.open();
      expect((await bed.read(0, 1)).equals(stamped(1, 1))).toBe(true);
      await bed.close();
      if (!failed) return;
    }
    throw new Error('the open never came through');
  });

  it('a power cut at any metadata batch of an open can be opened again', async () => {
    for (let step = 0; step < 8; step += 1) {
      await used();
      let left = step;
      bed.kvs.only.beforeBatch = () => {
        left -= 1;
        if (left < 0) throw new Error('the power is going');
        return undefined;
      };
      await bed.open().catch(() => undefined);
      bed.kvs.only.beforeBatch = undefined;
      await bed.powerCut('torn');
      await bed.open();
      await bed.close();
    }
  });
});

describe('formatting', () => {
  it('that dies at any device operation is done anew or completed', async () => {
    for (let step = 0; ; step += 1) {
      bed = new StoreBed({ diskBytes: 9 * MIB });
      bed.medium.inject({ op: 'any', errno: 'EIO', skip: 50 + step, count: 1000 });
      let failed = false;
      await bed.openDisk().catch(() => {
        failed = true;
      });
      await bed.powerCut('torn');
      const again = new StoreBed({ diskBytes: 9 * MIB, seed: 1000 + step });
      again.medium.poke(0, bed.medium.peek(0, 9 * MIB));
      for (const [id, note] of bed.home.noteByDisk) again.home.noteByDisk.set(id, note);
      for (const [path, kv] of bed.kvs.disks) again.kvs.disks.set(path, kv);
      await again.open();
      await again.write(0, stamped(1, 1));
      await again.close();
      if (!failed) return;
    }
  });
});

describe('metadata records', () => {
  it('52: each one flipped, deleted or put back to an older value is refused', async () => {
    await used();
    const before = bed.kvs.only.snapshot();
    await bed.open();
    await bed.write(0, stamped(8, 300));
    await bed.write(40 * 256, stamped(9, 1));
    await bed.store.trim(20 * MIB, MIB);
    await bed.close();
    const good = bed.kvs.only.snapshot();
    const image = bed.medium.peek(0, 32 * MIB);
    const kinds = new Set<string>();
    for (const [key, value] of good) {
      const damaged: Array<Buffer | undefined> = [undefined, flip(value, value.length - 1)];
      damaged.push(flip(value, 0), flip(value, value.length >> 1), value.subarray(0, 3));
      const old = before.get(key);
      if (old !== undefined && !old.equals(value)) damaged.push(old);
      for (const bytes of damaged) {
        kinds.add(key.slice(0, 1));
        const state = new Map(good);
        if (bytes === undefined) state.delete(key);
        else state.set(key, bytes);
        bed.medium.poke(0, image);
        bed.kvs.only.restore(state);
        await expect(
          bed.open(),
          `key ${Buffer.from(key, 'latin1').toString('hex')}`,
        ).rejects.toMatchObject({
          code: expect.stringMatching(/^(CORRUPT_METADATA|DISK_ROLLED_BACK)$/),
        });
        await bed.close();
      }
    }
    expect([...kinds].sort()).toEqual(['D', 'E', 'G', 'R', 'S']);
    // A record that was deleted comes back from nowhere.
    for (const [key, value] of before) {
      if (good.has(key)) continue;
      bed.medium.poke(0, image);
      bed.kvs.only.restore(new Map(good).set(key, value));
      await expect(bed.open()).rejects.toMatchObject({ code: 'CORRUPT_METADATA' });
      await bed.close();
    }
    bed.medium.poke(0, image);
    bed.kvs.only.restore(good);
    await bed.open();
  });

  it('damage of one replica leaves the others alone; it can be deleted', async () => {
    bed = new StoreBed();
    const disk = await bed.openDisk();
    for (const volume of ['va', 'vb']) {
      await disk.createReplica({
        volume,
        sizeBytes: 8 * MIB,
        replicaId: `r-${volume}`,
        membership: MEMBERSHIP,
      });
      const handle = await disk.openReplica(volume);
      const content = stamped(5, 4);
      await handle.store.write(0, bed.buffer(content), checksumsOf(content));
    }
    await bed.close();
    const state = bed.kvs.only.snapshot();
    const [key, value] = [...state].find(([name]) => name.startsWith('E')) ?? ['', Buffer.alloc(0)];
    bed.kvs.only.restore(state.set(key, flip(value, 30)));
    const again = await bed.openDisk();
    await expect(again.openReplica('va')).rejects.toMatchObject({ code: 'CORRUPT_METADATA' });
    expect(again.replicas().map(({ failedReason }) => failedReason === undefined)).toEqual([
      false,
      true,
    ]);
    const handle = await again.openReplica('vb');
    const read = await handle.store.read(0, 4 * BLOCK_SIZE);
    expect(read.data?.bytes.equals(stamped(5, 4))).toBe(true);
    read.data?.release();
    await again.deleteReplica('va');
    expect(again.replicas().map(({ volume }) => volume)).toEqual(['vb']);
    await bed.close();
    expect((await bed.openDisk()).usedBytes).toBe(MIB);
  });
});

async function refusedWith(medium: MemoryDisk, code: ErrorCode): Promise<void> {
  const openDevice = async () => medium.open();
  await expect(openDisk({ ...bed.diskOptions(), openDevice })).rejects.toMatchObject({ code });
}

function copyOf(medium: MemoryDisk, sizeBytes: number): MemoryDisk {
  const copy = new MemoryDisk({ sizeBytes });
  copy.poke(0, medium.peek(0, Math.min(sizeBytes, medium.sizeBytes)));
  return copy;
}

function checksumOf(superblock: Buffer): number {
  return crc32c(superblock.subarray(0, BLOCK_SIZE - 4));
}
