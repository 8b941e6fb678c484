/** Metadata and disks that are damaged, cut, swapped, cloned or old: found, mended or refused with
 *  a clear reason; never served, never taken for an empty volume (R4, R7, R8). */
import { truncate } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { MIB } from '../../../common/units.js';
import type { Cluster } from '../../support/cluster.js';
import type { StampedLoad } from '../../support/stamped-load.js';
import { copyTo, filesBelow, flipBit, HARMS, harm } from '../beds/damage.js';
import { expectSound, FaultBed, until } from '../beds/fault-bed.js';

const LIMIT_MS = 600_000;
/** What a daemon may say when it does not start. */
const REFUSAL =
  /CORRUPT_METADATA|DISK_[A-Z_]+|IDENTITY_MISMATCH|VERSION_UNSUPPORTED|NO_SPACE|NOT_FOUND|IO_ERROR/;
const SIZES = { size: '16MiB', diskSize: '64MiB' };

describe('damage to one copy under a living volume', () => {
  const bed = FaultBed.use();

  async function loaded(): Promise<{ cluster: Cluster; load: StampedLoad }> {
    const cluster = await bed.startCluster(SIZES);
    const load = bed.load(cluster, { rate: 300 });
    await load.start();
    await load.more(300);
    await load.stop();
    return { cluster, load };
  }

  /** Both halves of the stopped first daemon, to be put back. */
  class Copy {
    constructor(
      readonly cluster: Cluster,
      readonly name: string,
    ) {}

    async take(): Promise<this> {
      await copyTo(this.cluster.dataDir(0), bed.lab.path(`${this.name}.data`));
      await copyTo(this.cluster.disk(0), bed.lab.path(`${this.name}.disk`));
      return this;
    }

    async putBack(half: 'both' | 'disk' | 'data' = 'both'): Promise<void> {
      const { cluster, name } = this;
      if (half !== 'disk') await copyTo(bed.lab.path(`${name}.data`), cluster.dataDir(0));
      if (half !== 'data') await copyTo(bed.lab.path(`${name}.disk`), cluster.disk(0));
    }
  }

  /** Starts the first daemon on what it finds. Refused: with a reason that is known. Started: it
   *  is caught up, and a scrub finds nothing that differs. @returns what happened */
  async function judge(cluster: Cluster, load: StampedLoad): Promise<string> {
    let outcome: string;
    try {
      await cluster.startDaemon(0);
      // It may still refuse the one replica.
      await until('the copy is back or refused', 60_000, async () => {
        const { state, replicas } = await cluster.status();
        const reason = replicas.find((r) => r.state !== 'in-sync')?.reason ?? '';
        return state === 'healthy' || REFUSAL.test(reason);
      });
      outcome = (await cluster.status()).state;
    } catch (error) {
      outcome = REFUSAL.exec((error as Error).message)?.[0] ?? `? ${(error as Error).message}`;
    }
    await load.sweep(1);
    if (outcome === 'healthy') {
      const { divergentBlocks, lostBlocks } = await cluster.scrub();
      expect({ divergentBlocks, lostBlocks }).toEqual({ divergentBlocks: 0, lostBlocks: 0 });
    }
    await cluster.stopDaemon(0);
    return outcome;
  }

  it(
    'scenario 52: every file of the metadata, in four ways: refused or caught up, never empty',
    async () => {
      const { cluster, load } = await loaded();
      await cluster.stopDaemon(0);
      const copy = await new Copy(cluster, 'good').take();
      const outcomes: Record<string, string> = {};
      for (const name of await filesBelow(cluster.dataDir(0))) {
        for (const how of HARMS) {
          await copy.putBack();
          await harm(path.join(cluster.dataDir(0), name), how, bed.random);
          load.note(`${name}: ${how}`);
          const short = name.replace(/disk-[0-9a-f]+/, 'DISK');
          outcomes[`${short}: ${how}`] = await judge(cluster, load);
          expectSound(load);
        }
      }
      const odd = Object.entries(outcomes).filter(([, outcome]) => outcome.startsWith('?'));
      expect(odd).toEqual([]);
      // Both happen, or the test harms nothing.
      const seen = new Set(Object.values(outcomes));
      expect(seen.has('healthy')).toBe(true);
      expect(seen.has('CORRUPT_METADATA')).toBe(true);
      await copy.putBack();
      expect(await judge(cluster, load)).toBe('healthy');
    },
    LIMIT_MS,
  );

  it(
    'scenario 52: bits of the superblocks: one copy is mended, both are refused',
    async () => {
      const { cluster, load } = await loaded();
      await cluster.stopDaemon(0);
      const copy = await new Copy(cluster, 'good').take();
      const blocks = [
        { from: 0, to: 384 },
        { from: 512 * 1024, to: 512 * 1024 + 384 },
      ];
      for (const block of blocks) {
        await copy.putBack();
        await flipBit(cluster.disk(0), bed.random, block);
        expect(await judge(cluster, load)).toBe('healthy');
      }
      await copy.putBack();
      for (const block of blocks) await flipBit(cluster.disk(0), bed.random, block);
      expect(await judge(cluster, load)).toMatch(/CORRUPT_METADATA|DISK_|VERSION/);
      expectSound(load);
    },
    LIMIT_MS,
  );

  it(
    'scenario 53: a disk that is cut is refused, one that grew is taken',
    async () => {
      const { cluster, load } = await loaded();
      await cluster.stopDaemon(0);
      const copy = await new Copy(cluster, 'good').take();
      for (const bytes of [63 * MIB, 20 * MIB, 0]) {
        await copy.putBack();
        await truncate(cluster.disk(0), bytes);
        expect(await judge(cluster, load)).toMatch(/DISK_TRUNCATED|DISK_MISMATCH|NO_SPACE/);
      }
      await copy.putBack();
      await truncate(cluster.disk(0), 80 * MIB);
      expect(await judge(cluster, load)).toBe('healthy');
      expectSound(load);
    },
    LIMIT_MS,
  );

  it(
    "scenario 54: a blank, a missing, another daemon's disk: refused, and left as it is",
    async () => {
      const { cluster, load } = await loaded();
      await cluster.stopDaemon(0);
      const copy = await new Copy(cluster, 'good').take();
      const wrong: Array<[string, () => Promise<void>]> = [
        [
          'blank',
          async () => {
            await truncate(cluster.disk(0), 0);
            await truncate(cluster.disk(0), 64 * MIB);
          },
        ],
        ['missing', () => harm(cluster.disk(0), 'delete', bed.random)],
        ['another', () => copyTo(cluster.disk(1), cluster.disk(0))],
      ];
      for (const [name, change] of wrong) {
        await copy.putBack();
        await change();
        load.note(name);
        expect(await judge(cluster, load), name).toMatch(/DISK_MISMATCH|DISK_FOREIGN/);
      }
      // Another daemon's metadata with its own disk.
      await copy.putBack();
      await copyTo(cluster.dataDir(1), cluster.dataDir(0));
      expect(await judge(cluster, load)).toMatch(/DISK_|IDENTITY_MISMATCH/);
      expectSound(load);
    },
    LIMIT_MS,
  );

  it(
    'scenario 55: one half from an old copy is refused, both halves are caught up (R4, P12)',
    async () => {
      const { cluster, load } = await loaded();
      await cluster.stopDaemon(0);
      const old = await new Copy(cluster, 'old').take();
      await cluster.startDaemon(0);
      await cluster.whenHealthy();
      await load.start();
      await load.more(300);
      await load.stop();
      await cluster.stopDaemon(0);
      const good = await new Copy(cluster, 'good').take();
      for (const half of ['disk', 'data'] as const) {
        await good.putBack();
        await old.putBack(half);
        expect(await judge(cluster, load), half).toBe('DISK_ROLLED_BACK');
      }
      await old.putBack('both');
      expect(await judge(cluster, load)).toBe('healthy');
      expectSound(load);
    },
    LIMIT_MS,
  );

  it(
    'scenario 55: both halves from an old copy while nothing runs: not served (R4, P12)',
    async () => {
      const { cluster, load } = await loaded();
      await cluster.stop();
      const old = await new Copy(cluster, 'old').take();
      await cluster.startDaemons();
      await cluster.startEngine();
      load.served();
      await load.start();
      await load.more(300);
      await load.stop();
      await cluster.stop();
      await old.putBack('both');
      await cluster.startDaemons();
      const opened = await cluster.startEngine().then(
        () => true,
        (error: Error) => {
          expect(error.message).toMatch(/MEMBERSHIP_UNPROVEN|STALE_REPLICA/);
          return false;
        },
      );
      if (!opened) return;
      load.served();
      await load.sweep(4);
      await cluster.whenHealthy();
      await load.sweep(4);
      expectSound(load);
      await cluster.stop();
      await cluster.expectEqual();
    },
    LIMIT_MS,
  );

  it(
    'scenario 56: a clone of a disk, and of a daemon, beside the original: refused',
    async () => {
      const { cluster, load } = await loaded();
      await cluster.stopDaemon(0);
      await new Copy(cluster, 'clone').take();
      await cluster.startDaemon(0);
      await cluster.whenHealthy();
      // The disk with its twin in one daemon.
      const twins = await bed.makeCluster({
        ...SIZES,
        dataDir: () => bed.lab.path('clone.data'),
        disk: () => bed.lab.path('clone.disk'),
        replicaFlags: ['--disk', `${bed.lab.path('twin.disk')},size=64MiB`],
      });
      await copyTo(bed.lab.path('clone.disk'), bed.lab.path('twin.disk'));
      await twins.startDaemon(0);
      expect(await bed.logged(twins, 'replica1', /"msg":"disk refused"|found twice/)).toBe(true);
      // And the daemon's twin where another daemon was: the engine does not take it for that one.
      await cluster.stopDaemon(1);
      const cuckoo = await bed.makeCluster({
        ...SIZES,
        dataDir: () => bed.lab.path('clone.data'),
        disk: () => bed.lab.path('clone.disk'),
        address: () => cluster.address(1),
      });
      await twins.stop();
      await cuckoo.startDaemon(0);
      await bed.someTime(4000, 5000);
      expect((await cluster.status()).state).toBe('degraded');
      await cuckoo.stop();
      await cluster.startDaemon(1);
      await cluster.whenHealthy();
      await load.sweep();
      expectSound(load);
      await cluster.stop();
      await cluster.expectEqual();
    },
    LIMIT_MS,
  );
});
