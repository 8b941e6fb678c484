import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BLOCK_SIZE, EXTENT_SIZE, MIB } from '../../../common/units.js';
import { Equalizer } from '../../../engine/recovery/equalizer.js';
import { crc32cVerify } from '../../../native/index.js';
import { IO_FLAG, IO_OP } from '../../../proto/io-codec.js';
import { EngineBed as Bed, fill, outcome, SIZE } from '../../support/engine-bed.js';

describe('volume on three replicas', () => {
  it('sends the writes of one turn in one message, to all in one order (N3)', async () => {
    const bed = new Bed(3);
    await Promise.all([0, 1, 2, 3].map((n) => bed.write(n * BLOCK_SIZE, fill(BLOCK_SIZE, n + 1))));
    const orders = bed.replicas.map((r) => r.seen.map((s) => s.offsetBytes).join());
    expect(new Set(orders).size).toBe(1);
    expect(bed.replicas[0]?.seen).toHaveLength(4);
    bed.expectEqualCopies();
  });

  it('does not acknowledge before the slowest replica has (N1, D1)', async () => {
    const bed = new Bed(3);
    bed.replicas[2]?.hold(true);
    let acked = false;
    const write = bed.write(0, fill(BLOCK_SIZE, 7)).then(() => {
      acked = true;
    });
    const read = bed.read(0, BLOCK_SIZE);
    for (let turn = 0; turn < 20; turn += 1) await new Promise(setImmediate);
    expect(acked).toBe(false);
    bed.replicas[2]?.hold(false);
    await write;
    expect((await read)[0]).toBe(7);
  });

  it('P3: what a replica missed is acknowledged after its exclusion is durable', async () => {
    const bed = new Bed(3);
    let store: () => void = () => undefined;
    bed.storing = new Promise((resolve) => {
      store = resolve;
    });
    bed.replicas[1]?.hold(true);
    let acked = false;
    const write = bed.write(0, fill(BLOCK_SIZE, 9)).then(() => {
      acked = true;
    });
    for (let turn = 0; turn < 10; turn += 1) await new Promise(setImmediate);
    bed.replicas[1]?.cut();
    for (let turn = 0; turn < 10; turn += 1) await new Promise(setImmediate);
    expect(bed.changes).toHaveLength(1);
    expect(bed.changes[0]?.storeOn).toEqual(['a', 'c']);
    expect(acked).toBe(false);
    const later = bed.write(BLOCK_SIZE, fill(BLOCK_SIZE, 8));
    for (let turn = 0; turn < 10; turn += 1) await new Promise(setImmediate);
    expect(acked).toBe(false);
    store();
    await Promise.all([write, later]);
    expect(bed.set.record.generation).toBe(2);
    expect((await bed.read(0, BLOCK_SIZE))[0]).toBe(9);
  });

  it('a replica that cannot store the exclusion of another one is excluded too', async () => {
    const bed = new Bed(3);
    bed.storeFails.set('c', 'timeout');
    bed.replicas[1]?.refuse(IO_OP.WRITE, 'IO_ERROR');
    await bed.write(0, fill(BLOCK_SIZE, 1));
    expect(bed.set.healthy()).toEqual(['a']);
    expect(bed.set.record.generation).toBe(3);
  });

  it.each([
    { op: IO_OP.WRITE, name: 'scenario 40: EIO on write' },
    { op: IO_OP.FLUSH, name: 'scenario 42, D3: EIO on fsync' },
  ])('$name: that replica leaves at once, the client sees no error', async ({ op }) => {
    const bed = new Bed(3);
    bed.replicas[0]?.refuse(op, 'IO_ERROR');
    await bed.write(0, fill(BLOCK_SIZE, 1));
    await bed.volume.flush();
    expect(bed.set.healthy()).toEqual(['b', 'c']);
    bed.replicas[0]?.refuse(op, undefined);
    await bed.write(0, fill(BLOCK_SIZE, 2));
    expect(bed.replicas[0]?.bytes[0]).not.toBe(2);
  });

  it('scenario 37: a full replica leaves; 38: full everywhere is ENOSPC', async () => {
    const bed = new Bed(3);
    for (const replica of bed.replicas) replica.refuse(IO_OP.WRITE, 'NO_SPACE');
    expect(await outcome(bed.write(0, fill(BLOCK_SIZE, 1)))).toBe('NO_SPACE');
    expect(bed.set.healthy()).toEqual(['a', 'b', 'c']);
    bed.replicas[0]?.refuse(IO_OP.WRITE, undefined);
    bed.replicas[1]?.refuse(IO_OP.WRITE, undefined);
    await bed.write(0, fill(BLOCK_SIZE, 1));
    expect(bed.set.healthy()).toEqual(['a', 'b']);
  });

  it('a refusal by all that changed nothing is told to the caller, and nobody leaves', async () => {
    const bed = new Bed(3);
    await bed.write(0, fill(BLOCK_SIZE, 1));
    for (const replica of bed.replicas) replica.refuse(IO_OP.CLEAN, 'CONFLICT');
    expect(await outcome(bed.cleaner.clean(0))).toBe('CONFLICT');
    bed.replicas[1]?.cut();
    for (const replica of bed.replicas) replica.refuse(IO_OP.WRITE, 'OVERLOADED');
    expect(await outcome(bed.write(0, fill(BLOCK_SIZE, 2)))).toBe('OVERLOADED');
    expect(bed.set.healthy()).toEqual(['a', 'c']);
  });

  it('an unanswered operation breaks the link at its deadline, the last one later', async () => {
    const bed = new Bed(1, { opDeadlineMs: 1e-6 });
    bed.replicas[0]?.hold(true);
    const write = outcome(bed.write(0, fill(BLOCK_SIZE, 1)));
    for (let turn = 0; turn < 5; turn += 1) await new Promise(setImmediate);
    const [link] = bed.links;
    link?.tick(Number.POSITIVE_INFINITY);
    expect(link?.broken).toBeUndefined();
    link?.tick(1);
    expect(link?.broken?.code).toBe('DEADLINE');
    expect(await write).toBe('NO_REPLICA');
  });

  it('with no replica left every operation fails, the record keeps the last member', async () => {
    const bed = new Bed(2);
    bed.replicas[0]?.cut();
    await bed.write(0, fill(BLOCK_SIZE, 1));
    bed.replicas[1]?.cut();
    expect(await outcome(bed.write(0, fill(BLOCK_SIZE, 2)))).toBe('NO_REPLICA');
    expect(await outcome(bed.read(0, BLOCK_SIZE))).toBe('NO_REPLICA');
    expect(await outcome(bed.volume.flush())).toBe('NO_REPLICA');
    expect(bed.set.record.members.find((m) => m.replicaId === 'b')?.state).toBe('in-sync');
  });

  it('scenarios 41, 49: a bad copy is passed over; 50: bad everywhere is an error', async () => {
    const bed = new Bed(3);
    await bed.write(0, fill(2 * BLOCK_SIZE, 5));
    bed.replicas[0]?.rotten.add(100);
    bed.replicas[1]?.refuse(IO_OP.READ, 'IO_ERROR');
    for (let n = 0; n < 8; n += 1)
      expect((await bed.read(0, BLOCK_SIZE)).every((b) => b === 5)).toBe(true);
    bed.replicas[2]?.rotten.add(100);
    expect(await outcome(bed.read(0, BLOCK_SIZE))).toBe('CORRUPT_BLOCK');
    expect(bed.bad.length).toBeGreaterThan(0);
    expect((await bed.read(BLOCK_SIZE, BLOCK_SIZE)).every((b) => b === 5)).toBe(true);
  });

  it('what the way damages is asked for again: of the others first, once of the same', async () => {
    const bed = new Bed(2);
    await bed.write(0, fill(BLOCK_SIZE, 5));
    const [a, b] = bed.replicas;
    for (const replica of [a, b]) if (replica !== undefined) replica.damagedReads = 1;
    expect((await bed.read(0, BLOCK_SIZE)).every((byte) => byte === 5)).toBe(true);
    expect([a?.damagedReads, b?.damagedReads]).toEqual([0, 0]);
    b?.cut();
    if (a !== undefined) a.damagedReads = 1;
    expect((await bed.read(0, BLOCK_SIZE)).every((byte) => byte === 5)).toBe(true);
    if (a !== undefined) a.damagedReads = 2;
    expect(await outcome(bed.read(0, BLOCK_SIZE))).toBe('CORRUPT_MESSAGE');
    expect(a?.damagedReads).toBe(0);
  });

  it('D2: FUA travels to every replica', async () => {
    const bed = new Bed(3);
    await bed.write(0, fill(BLOCK_SIZE, 1), true);
    await bed.volume.trim(0, BLOCK_SIZE, { fua: true });
    for (const replica of bed.replicas) {
      expect(replica.seen.map((s) => s.flags & IO_FLAG.FUA)).toEqual([IO_FLAG.FUA, IO_FLAG.FUA]);
    }
  });

  it('flushes that come while one runs share the next one, none is skipped', async () => {
    const bed = new Bed(1);
    const first = bed.volume.flush();
    await new Promise(setImmediate);
    await bed.write(0, fill(BLOCK_SIZE, 1));
    await Promise.all([first, bed.volume.flush(), bed.volume.flush(), bed.volume.flush()]);
    const ops = bed.replicas[0]?.seen.map((s) => s.op);
    expect(ops?.filter((op) => op === IO_OP.FLUSH)).toHaveLength(2);
    expect(ops?.lastIndexOf(IO_OP.FLUSH)).toBeGreaterThan(ops?.indexOf(IO_OP.WRITE) ?? 99);
  });

  it('tells replicas how far all have acknowledged, never past an open write', async () => {
    const bed = new Bed(2);
    await bed.write(0, fill(BLOCK_SIZE, 1));
    bed.replicas[1]?.hold(true);
    const open = bed.write(BLOCK_SIZE, fill(BLOCK_SIZE, 1));
    for (let turn = 0; turn < 10; turn += 1) await new Promise(setImmediate);
    const openId = bed.replicas[0]?.seen.at(-1)?.id ?? 0;
    await bed.read(3 * BLOCK_SIZE, BLOCK_SIZE).catch(() => undefined);
    expect(bed.fanout.ackedThrough).toBeGreaterThan(0);
    expect(bed.fanout.ackedThrough).toBeLessThan(openId);
    bed.replicas[1]?.hold(false);
    await open;
    expect(bed.fanout.ackedThrough).toBe(openId);
  });

  it('P2: cleans idle regions: flush first, then one tag for all', async () => {
    const bed = new Bed(3);
    await bed.write(0, fill(BLOCK_SIZE, 1));
    expect(bed.tracker.count).toBe(1);
    expect(await bed.cleaner.clean(0)).toBe(1);
    expect(bed.tracker.count).toBe(0);
    for (const replica of bed.replicas) {
      expect(replica.seen.map((s) => s.op)).toEqual([IO_OP.WRITE, IO_OP.FLUSH, IO_OP.CLEAN]);
    }
  });

  it('a write of more than the window goes through in parts (back-pressure)', async () => {
    const bed = new Bed(2);
    const data = fill(3 * MIB + 512, 3);
    await bed.write(512, data);
    expect((await bed.read(512, data.length)).equals(data)).toBe(true);
    bed.expectEqualCopies();
  });

  it('makes copies equal from one source (R1)', async () => {
    const bed = new Bed(3);
    bed.replicas[0]?.bytes.fill(1, 0, 3 * BLOCK_SIZE);
    bed.replicas[1]?.bytes.fill(2, BLOCK_SIZE, 2 * BLOCK_SIZE);
    bed.replicas[2]?.bytes.fill(3, EXTENT_SIZE, EXTENT_SIZE + BLOCK_SIZE);
    let copiedBytes = 0;
    const equalizer = new Equalizer({
      table: bed.table,
      members: ['a', 'b', 'c'].map((replicaId) => ({
        replicaId,
        lossy: false,
        restartedDirty: replicaId !== 'a',
      })),
      volumeBytes: () => SIZE,
      verifyBlocks: crc32cVerify,
      onCopied: (bytes) => {
        copiedBytes += bytes;
      },
    });
    await equalizer.equalize([0, 1]);
    bed.expectEqualCopies();
    expect(bed.replicas[1]?.bytes[0]).toBe(1);
    expect(copiedBytes).toBe((3 + 3 + 1) * BLOCK_SIZE);
    expect(bed.replicas.every((r) => r.seen.at(-1)?.op === IO_OP.FLUSH)).toBe(true);
  });
});

describe('volume against a byte array (N1-N4)', () => {
  const offset = fc.integer({ min: 0, max: SIZE - 1 });
  const length = fc.oneof(
    fc.integer({ min: 1, max: 20_000 }),
    fc.constant(BLOCK_SIZE * 5),
    fc.constant(MIB + 1),
  );
  const step = fc.record({
    kind: fc.constantFrom('write', 'trim', 'zero', 'read', 'status'),
    offset: fc.oneof(
      offset,
      offset.map((o) => o - (o % BLOCK_SIZE)),
    ),
    length,
    value: fc.integer({ min: 1, max: 255 }),
  });

  it('any operations, any alignment: same bytes as the array, all copies equal', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 25 }), async (steps) => {
        const bed = new Bed(3);
        const model = Buffer.alloc(SIZE);
        for (const s of steps) {
          const size = Math.min(s.length, SIZE - s.offset);
          const end = s.offset + size;
          if (s.kind === 'write') {
            await bed.write(s.offset, fill(size, s.value));
            model.fill(s.value, s.offset, end);
          } else if (s.kind === 'trim' || s.kind === 'zero') {
            if (s.kind === 'trim') await bed.volume.trim(s.offset, size, { fua: false });
            else await bed.volume.writeZeroes(s.offset, size, { fua: false, noHole: true });
            model.fill(0, s.offset, end);
          } else if (s.kind === 'read') {
            expect((await bed.read(s.offset, size)).equals(model.subarray(s.offset, end))).toBe(
              true,
            );
          } else {
            const runs = await bed.volume.blockStatus(s.offset, size, 1000);
            expect(runs.reduce((sum, run) => sum + run.lengthBytes, 0)).toBe(size);
            let at = s.offset;
            for (const run of runs) {
              if (run.hole)
                expect(model.subarray(at, at + run.lengthBytes).every((b) => b === 0)).toBe(true);
              at += run.lengthBytes;
            }
          }
        }
        expect((await bed.read(0, SIZE)).equals(model)).toBe(true);
        bed.expectEqualCopies();
      }),
      { numRuns: 25 },
    );
  });
});
