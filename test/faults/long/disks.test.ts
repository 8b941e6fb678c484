/** Disks that fail, stall, lie, fill up or go away under one copy (D3, F2, P8). */
import { describe, expect, it } from 'vitest';
import { MIB } from '../../../common/units.js';
import { NbdLoadClient } from '../../support/load-client.js';
import { startDiskCluster } from '../beds/disk-cluster.js';
import type { DiskFault } from '../beds/disk-faults.js';
import { expectSound, FaultBed, until } from '../beds/fault-bed.js';
import { type FaultDisk, faultDiskLacks } from '../beds/fault-disk.js';

const lacks = faultDiskLacks();
const LIMIT_MS = 240_000;

describe.skipIf(lacks !== undefined)(`bad disks ${lacks ?? ''}`, () => {
  const bed = FaultBed.use();

  const EIO = { kind: 'error', errno: 'EIO' } as const;

  /** Under load: breaks one disk, expects no error at the client and that the copy is excluded,
   *  heals it, expects the copy back, and everything in order. */
  async function survives(
    spoil: (disk: FaultDisk) => Promise<() => Promise<void>>,
    options: { readonly excluded: boolean },
  ): Promise<void> {
    const { cluster, disks } = await startDiskCluster(bed);
    const load = bed.load(cluster);
    await load.start();
    await load.more(200);
    load.note('the disk fails');
    const heal = await spoil(disks[1] as FaultDisk);
    if (options.excluded) {
      await until('the copy is excluded', 60_000, async () => {
        return (await cluster.status()).state === 'degraded';
      });
    }
    await load.more(300);
    // A disk that failed is opened again by a daemon that starts anew.
    if (options.excluded) await cluster.stopDaemon(1, 'SIGKILL');
    await heal();
    load.note('the disk is well');
    if (options.excluded) await cluster.startDaemon(1);
    await load.more(100);
    await cluster.whenHealthy(120_000);
    await load.stop();
    expect(load.refusals).toEqual([]);
    await load.sweep();
    expectSound(load);
    await cluster.stop();
    await cluster.expectEqual();
  }

  const armed =
    (fault: DiskFault) =>
    (disk: FaultDisk): Promise<() => Promise<void>> =>
      disk.arm(fault);

  it.each<{ scenario: number; name: string; fault: DiskFault; excluded: boolean }>([
    { scenario: 40, name: 'EIO on writes', fault: { ops: ['write'], mishap: EIO }, excluded: true },
    {
      scenario: 40,
      name: 'EIO on one write',
      fault: { ops: ['write'], mishap: EIO, count: 1 },
      excluded: true,
    },
    {
      scenario: 42,
      name: 'EIO on one flush, then success',
      fault: { ops: ['flush'], mishap: EIO, count: 1 },
      excluded: true,
    },
    {
      scenario: 41,
      name: 'EIO on every read',
      fault: { ops: ['read'], mishap: EIO },
      excluded: false,
    },
    {
      scenario: 41,
      name: 'EIO on one read in ten',
      fault: { ops: ['read'], mishap: EIO, oneIn: 10 },
      excluded: false,
    },
    {
      scenario: 37,
      name: 'ENOSPC from the device',
      fault: { ops: ['write'], mishap: { kind: 'error', errno: 'ENOSPC' } },
      excluded: true,
    },
    {
      scenario: 20,
      name: '50 ms more for each write',
      fault: { ops: ['write'], mishap: { kind: 'delay', ms: 50 } },
      excluded: false,
    },
    {
      scenario: 20,
      name: '10 s for one write in a hundred',
      fault: { ops: ['write'], mishap: { kind: 'delay', ms: 10_000 }, oneIn: 100 },
      excluded: true,
    },
    {
      scenario: 21,
      name: 'flushes take 30 s',
      fault: { ops: ['flush'], mishap: { kind: 'delay', ms: 30_000 } },
      excluded: true,
    },
  ])(
    'scenario $scenario: $name, one copy: no error for the client',
    async ({ fault, excluded }) => {
      await survives(armed(fault), { excluded });
    },
    LIMIT_MS,
  );

  it(
    'scenario 20: 500 ms more for each write: set aside by its rule, not by turns',
    async () => {
      const { cluster, disks } = await startDiskCluster(bed);
      const load = bed.load(cluster, { depth: 4, rate: 500 });
      await load.start();
      await load.more(300);
      const heal = await disks[1]?.arm({ ops: ['write'], mishap: { kind: 'delay', ms: 500 } });
      await until('the slow copy is set aside', 60_000, async () => {
        return (await cluster.events()).some(({ kind }) => kind === 'slow');
      });
      load.slowestMs = 0;
      await bed.someTime(15_000, 15_001);
      expect(load.slowestMs).toBeLessThan(2000);
      expect((await cluster.events()).filter(({ kind }) => kind === 'slow').length).toBe(1);
      await heal?.();
      await load.stop();
      expect(load.refusals).toEqual([]);
      await load.sweep();
      expectSound(load);
    },
    LIMIT_MS,
  );

  it(
    'scenario 44: a disk vanishes: the others serve; put in again, it catches up',
    async () => {
      await survives(
        async (disk) => {
          await disk.vanish();
          return () => disk.replug();
        },
        { excluded: true },
      );
    },
    LIMIT_MS,
  );

  it.each([
    { scenario: 47, mishap: { kind: 'misplaced', byBytes: 3 * MIB } as const },
    { scenario: 48, mishap: { kind: 'lost' } as const },
  ])(
    'scenario $scenario: a write is $mishap.kind by a disk: no wrong byte is read, it is mended',
    async ({ mishap }) => {
      const { cluster, disks } = await startDiskCluster(bed);
      const load = bed.load(cluster, { bytes: 32 * MIB });
      await load.start();
      await load.more(300);
      await disks[1]?.arm({ ops: ['write'], mishap, count: 5 });
      await load.more(300);
      await load.stop();
      await load.sweep(3);
      expect(load.refusals).toEqual([]);
      expectSound(load);
      await cluster.scrub();
      await load.sweep();
      expectSound(load);
      await cluster.stop();
      await cluster.expectEqual();
    },
    LIMIT_MS,
  );

  it(
    'scenario 38: all disks full: ENOSPC, earlier data stays, and it goes on after trims',
    async () => {
      const { cluster } = await startDiskCluster(bed, {
        size: '128MiB',
        diskBytes: () => 96 * MIB,
      });
      const client = await NbdLoadClient.connect(cluster.socket);
      const block = (at: number): Buffer => Buffer.alloc(MIB, 1 + (at % 250));
      let full = 0;
      for (; full < 128; full += 1) {
        const written = await client.write(full * MIB, block(full), { fua: false }).then(
          () => true,
          (error: Error) => {
            // NBD_ENOSPC
            expect(error.message).toBe('errno 28');
            return false;
          },
        );
        if (!written) break;
      }
      expect(full).toBeGreaterThan(60);
      expect(full).toBeLessThan(128);
      expect((await cluster.status()).state).toBe('healthy');
      await client.flush();
      for (let at = 0; at < full; at += 1) {
        expect((await client.read(at * MIB, MIB)).equals(block(at))).toBe(true);
      }
      await client.trim(0, 10 * MIB);
      await client.flush();
      await client.write(full * MIB, block(full), { fua: true });
      await client.close();
      await cluster.stop();
      await cluster.expectEqual();
    },
    LIMIT_MS,
  );

  it(
    'scenario 37: one disk of three is full: excluded, no error for the client',
    async () => {
      const { cluster } = await startDiskCluster(bed, {
        size: '128MiB',
        diskBytes: (index) => (index === 1 ? 64 : 256) * MIB,
      });
      const client = await NbdLoadClient.connect(cluster.socket);
      for (let at = 0; at < 100; at += 1) {
        await client.write(at * MIB, Buffer.alloc(MIB, 1 + at), { fua: at % 10 === 0 });
      }
      const { state, replicas } = await cluster.status();
      expect(state).toBe('degraded');
      expect(replicas.some(({ reason }) => /space/i.test(reason))).toBe(true);
      for (let at = 0; at < 100; at += 1) {
        expect((await client.read(at * MIB, MIB)).equals(Buffer.alloc(MIB, 1 + at))).toBe(true);
      }
      await client.close();
    },
    LIMIT_MS,
  );
});
