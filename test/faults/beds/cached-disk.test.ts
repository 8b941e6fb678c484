/** The disk of the fault beds keeps its promises, or what is tested on it proves nothing. */
import { describe, expect, it } from 'vitest';
import { KIB, MIB } from '../../../common/units.js';
import { SeededRandom } from '../../engine/nbd/seeded-random.js';
import { CachedDisk } from './cached-disk.js';
import { DiskFaults } from './disk-faults.js';
import { SparseBytes } from './sparse-bytes.js';

const filled = (value: number, length = 4096): Buffer => Buffer.alloc(length, value);

describe('sparse bytes', () => {
  it('match a flat buffer under random writes, zeroes and copies', () => {
    const random = new SeededRandom(SeededRandom.runSeed());
    const flat = Buffer.alloc(MIB);
    let sparse = new SparseBytes(MIB);
    const copies: Array<{ sparse: SparseBytes; flat: Buffer }> = [];
    for (let step = 0; step < 500; step += 1) {
      const at = random.below(MIB - 1);
      const length = 1 + random.below(Math.min(200 * KIB, MIB - at));
      if (random.chance(20)) {
        copies.push({ sparse: sparse.fork(), flat: Buffer.from(flat) });
        if (random.chance(50)) sparse = sparse.fork();
      } else if (random.chance(30)) {
        sparse.zero(at, length);
        flat.fill(0, at, at + length);
      } else {
        const value = random.below(256);
        sparse.write(at, filled(value, length));
        flat.fill(value, at, at + length);
      }
      if (step % 50 === 0) expect(sparse.read(0, MIB).equals(flat)).toBe(true);
    }
    for (const copy of copies) {
      expect(copy.sparse.read(0, MIB).equals(copy.flat), `seed ${random.seed}`).toBe(true);
    }
  });

  it('takes no memory for what was never written or was zeroed', () => {
    const sparse = new SparseBytes(2 ** 40);
    sparse.zero(0, 2 ** 30);
    sparse.write(2 ** 39, filled(1, 64 * KIB));
    expect(sparse.residentBytes).toBe(64 * KIB);
    sparse.zero(2 ** 39, 64 * KIB);
    expect(sparse.residentBytes).toBe(0);
  });
});

describe('a disk with a cache', () => {
  const cut = (fate: 'kept' | 'dropped' | 'subset' | 'torn', seed = 1): CachedDisk => {
    const disk = new CachedDisk(MIB);
    disk.write(0, filled(1));
    disk.endFlush(disk.beginFlush());
    disk.write(0, filled(2));
    disk.write(4096, filled(3));
    disk.powerCut(fate, new SeededRandom(seed));
    return disk;
  };

  it('keeps what a flush covered, whatever becomes of the rest (D1)', () => {
    const disk = cut('dropped');
    expect(disk.read(0, 8192)).toEqual(Buffer.concat([filled(1), filled(0)]));
  });

  it('tears at 512 bytes, and only what no flush covered', () => {
    const seen = new Set<number>();
    for (let seed = 0; seed < 20; seed += 1) {
      const block = cut('torn', seed).read(0, 4096);
      for (let at = 0; at < 4096; at += 512) {
        const sector = block.subarray(at, at + 512);
        expect(sector.equals(filled(sector[0] ?? 0, 512))).toBe(true);
        seen.add(sector[0] ?? 0);
      }
    }
    expect([...seen].sort()).toEqual([1, 2]);
  });

  it('keeps whole writes or none of them as a subset', () => {
    const seen = new Set<string>();
    for (let seed = 0; seed < 40; seed += 1) {
      const disk = cut('subset', seed);
      const [a = 0, b = 0] = [disk.read(0, 4096)[0], disk.read(4096, 4096)[0]];
      expect(disk.read(0, 8192)).toEqual(Buffer.concat([filled(a), filled(b)]));
      seen.add(`${a}${b}`);
    }
    expect([...seen].sort()).toEqual(['10', '13', '20', '23']);
  });

  it('does not cover a write that came after the flush had begun', () => {
    const disk = new CachedDisk(MIB);
    const mark = disk.beginFlush();
    disk.write(0, filled(7));
    disk.endFlush(mark);
    disk.powerCut('dropped', new SeededRandom(1));
    expect(disk.read(0, 4096)).toEqual(filled(0));
  });

  it('loses some of what a failed flush covered, also if a later flush succeeds (D3)', () => {
    const lost = new Set<number>();
    for (let seed = 0; seed < 20; seed += 1) {
      const random = new SeededRandom(seed);
      const disk = new CachedDisk(MIB);
      disk.write(0, filled(5));
      disk.failFlush(disk.beginFlush(), random);
      expect(disk.read(0, 4096)).toEqual(filled(5));
      disk.endFlush(disk.beginFlush());
      disk.powerCut('kept', random);
      lost.add(disk.read(0, 4096)[0] ?? -1);
    }
    expect([...lost].sort()).toEqual([0, 5]);
  });

  it('that lies about flush keeps nothing (scenario 63)', () => {
    const disk = new CachedDisk(MIB);
    disk.liesAboutFlush = true;
    disk.write(0, filled(5));
    disk.endFlush(disk.beginFlush());
    disk.powerCut('dropped', new SeededRandom(1));
    expect(disk.read(0, 4096)).toEqual(filled(0));
  });

  it('can be put back to an old image', () => {
    const disk = new CachedDisk(MIB);
    disk.write(0, filled(1));
    disk.save('old');
    disk.write(0, filled(2));
    disk.restore('old');
    expect(disk.read(0, 4096)).toEqual(filled(1));
  });
});

describe('faults of a disk', () => {
  const write = { op: 'write', offsetBytes: 8192, lengthBytes: 4096 } as const;
  const error = { kind: 'error', errno: 'EIO' } as const;
  const befallen = (faults: DiskFaults, times: number): string =>
    Array.from({ length: times }, () => (faults.befall(write) === undefined ? '.' : 'x')).join('');

  it.each([
    ['all', {}, 'xxxxx'],
    ['another operation', { ops: ['read'] as const }, '.....'],
    ['after some', { skip: 2 }, '..xxx'],
    ['so many', { count: 2 }, 'xx...'],
    ['once, later', { skip: 3, count: 1 }, '...x.'],
    ['inside the range', { range: { offsetBytes: 12_000, lengthBytes: 512 } }, 'xxxxx'],
    ['before the range', { range: { offsetBytes: 12_288, lengthBytes: 512 } }, '.....'],
    ['behind the range', { range: { offsetBytes: 0, lengthBytes: 8192 } }, '.....'],
  ])('%s', (_name, more, want) => {
    const faults = new DiskFaults(new SeededRandom(1));
    faults.arm({ ops: ['write'], mishap: error, ...more });
    expect(befallen(faults, 5)).toBe(want);
  });

  it('one in so many, by seed, and none once disarmed', () => {
    const faults = new DiskFaults(new SeededRandom(1));
    const id = faults.arm({ ops: ['write'], mishap: error, oneIn: 10 });
    const hits = befallen(faults, 1000).split('x').length - 1;
    expect(hits).toBeGreaterThan(60);
    expect(hits).toBeLessThan(140);
    faults.disarm(id);
    expect(befallen(faults, 100)).not.toContain('x');
  });
});
