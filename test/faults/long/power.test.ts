/** Power cuts of one, some and all hosts, again and again, at awkward moments (F2, F3, R1, R2). */
import { describe, expect, it } from 'vitest';
import { MIB } from '../../../common/units.js';
import { NbdLoadClient } from '../../support/load-client.js';
import { SECTORS, type StampedLoad } from '../../support/stamped-load.js';
import { expectSound, FaultBed, untilRecovered } from '../beds/fault-bed.js';
import { PowerCluster, powerHostLacks } from '../beds/power-host.js';

const lacks = powerHostLacks();
const LIMIT_MS = 300_000;

describe.skipIf(lacks !== undefined)(`power cuts ${lacks ?? ''}`, () => {
  const bed = FaultBed.use();

  const start = (replicas = 3): Promise<PowerCluster> =>
    PowerCluster.start(bed.lab, { seed: bed.seed, replicas });

  /** Everything is as it must be: what is read, read again, and byte by byte. */
  async function judge(load: StampedLoad): Promise<void> {
    load.served();
    await load.sweep();
    expectSound(load);
  }

  async function compareStopped(power: PowerCluster): Promise<void> {
    await power.cluster.stop();
    await power.cluster.expectEqual();
  }

  /** What is torn is torn at 512 bytes, the smallest block that is advertised (N2). */
  it.each([
    { fates: ['dropped'] as const, cuts: [0] },
    { fates: ['kept', 'dropped', 'subset'] as const, cuts: [0] },
    { fates: ['torn', 'subset'] as const, cuts: SECTORS },
  ])(
    'scenario 58: of all copies, un-flushed writes $fates: durable is durable (F3, R1)',
    async ({ fates, cuts }) => {
      const power = await start();
      const load = bed.load(power.cluster, { cuts });
      for (let round = 0; round < 5; round += 1) {
        await load.start();
        await load.more(200);
        await bed.someTime(0, 500);
        await power.cutAll(load);
        await power.restore(() => bed.random.pick(fates));
        await power.cluster.startEngine();
        await judge(load);
      }
      expect(load.acknowledged).toBeGreaterThan(999);
      await compareStopped(power);
    },
    LIMIT_MS,
  );

  it(
    'scenario 59: again during recovery, five deep: what was read stays (R2)',
    async () => {
      const power = await start();
      const { cluster } = power;
      const load = bed.load(cluster);
      await load.start();
      await load.more(400);
      await power.cutAll(load);
      for (let depth = 0; depth < 5; depth += 1) {
        await power.restore(() => bed.random.pick(['kept', 'dropped', 'subset']));
        const opened = cluster.startEngine();
        const early = bed.random.chance(60);
        // Either inside of the recovery, or after a read of what it decided.
        if (early) await Promise.race([opened, bed.someTime(0, 700)]);
        else {
          await opened;
          load.served();
          await load.sweep(1);
        }
        load.note(`cut ${early ? 'inside of' : 'after'} recovery ${depth}`);
        load.lostPower();
        const gone = opened.catch(() => undefined);
        await power.cut();
        await cluster.stopEngine('SIGKILL');
        await gone;
      }
      await power.restore(() => 'subset');
      await cluster.startEngine();
      await judge(load);
      await compareStopped(power);
    },
    LIMIT_MS,
  );

  it.each([
    { scenario: 57, fate: 'dropped' as const },
    { scenario: 46, fate: 'torn' as const },
  ])(
    'scenario $scenario: of one copy ($fate) with the engine: it is no source, and lacks nothing ' +
      'when the others die next (F2, P10)',
    async ({ fate }) => {
      const power = await start();
      const { cluster } = power;
      // No flush: all that it acknowledged is only in its cache.
      const load = bed.load(cluster, { mix: { flush: 0, fuaPercent: 0 } });
      await load.start();
      await load.more(500);
      await Promise.all([
        power.cut([0]),
        cluster.stopEngine('SIGKILL'),
        ...[1, 2].map((index) => cluster.stopDaemon(index, 'SIGKILL')),
      ]);
      await load.ended();
      load.crashed();
      await power.hosts[0]?.on(fate);
      // It does lack something, or the rest proves nothing.
      await expect(cluster.expectEqual()).rejects.toThrow(/"identical": false/);
      await cluster.startDaemons();
      await cluster.startEngine();
      load.served();
      expect((await cluster.status()).state).toBe('healthy');
      await untilRecovered(cluster);
      await Promise.all([cluster.stopDaemon(1, 'SIGKILL'), cluster.stopDaemon(2, 'SIGKILL')]);
      load.crashed();
      await load.sweep();
      expectSound(load);
    },
    LIMIT_MS,
  );

  it(
    'scenario 57: of one copy under a living engine: it catches up, and the others die next (F2)',
    async () => {
      const power = await start();
      const { cluster } = power;
      const load = bed.load(cluster, { mix: { flush: 0, fuaPercent: 0 } });
      await load.start();
      await load.more(300);
      await power.cut([0]);
      load.crashed();
      await power.restore(() => bed.random.pick(['dropped', 'torn']), [0]);
      await load.more(100);
      await cluster.whenHealthy();
      await load.stop();
      expect(load.refusals).toEqual([]);
      await Promise.all([cluster.stopDaemon(1, 'SIGKILL'), cluster.stopDaemon(2, 'SIGKILL')]);
      load.crashed();
      await load.sweep();
      expectSound(load);
    },
    LIMIT_MS,
  );

  it(
    'scenario 60: right after a volume was created: it exists (R7)',
    async () => {
      const power = await start();
      const { cluster } = power;
      const before = await cluster.status();
      await Promise.all([power.cut(), cluster.stopEngine('SIGKILL')]);
      await power.restore(() => 'dropped');
      await cluster.startEngine();
      const after = await cluster.status();
      const ids = (status: typeof before): string[] =>
        status.replicas.map((r) => r.replicaId).sort();
      expect(ids(after)).toEqual(ids(before));
      expect(after.epoch).toBeGreaterThan(before.epoch);
    },
    LIMIT_MS,
  );

  it(
    'scenario 61: after trims, zeroes and FUA writes: what was flushed is gone, or there (D2)',
    async () => {
      const power = await start();
      const mix = { write: 30, trim: 20, zero: 15, flush: 8, fuaPercent: 60 };
      const load = bed.load(power.cluster, { mix, bytes: 16 * MIB });
      for (let round = 0; round < 4; round += 1) {
        await load.start();
        await load.more(250);
        await power.cutAll(load);
        await power.restore(() => bed.random.pick(['dropped', 'subset']));
        await power.cluster.startEngine();
        await judge(load);
      }
      await compareStopped(power);
    },
    LIMIT_MS,
  );

  it(
    'scenario 62: staggered: the copy that went first does not serve alone (R4)',
    async () => {
      const power = await start(2);
      const { cluster } = power;
      const load = bed.load(cluster);
      await load.start();
      await load.more(200);
      await power.cut([0]);
      await load.more(300);
      expect(load.refusals).toEqual([]);
      await power.cutAll(load, [1]);
      await power.restore(() => 'kept', [0]);
      await expect(cluster.startEngine()).rejects.toThrow(/MEMBERSHIP_UNPROVEN/);
      await power.restore(() => 'kept', [1]);
      await cluster.startEngine();
      await judge(load);
    },
    LIMIT_MS,
  );

  it(
    'scenario 63: a disk that lies about flush is found out by comparing',
    async () => {
      const power = await start();
      const { cluster } = power;
      await power.hosts[0]?.disk.ask('lieAboutFlush', true);
      const client = await NbdLoadClient.connect(cluster.socket);
      await client.write(0, Buffer.alloc(MIB, 7), { fua: true });
      await client.close();
      await cluster.stop();
      // Stopped in order, so nobody compares anything by itself.
      await power.cut([0]);
      await power.hosts[0]?.on('dropped');
      await expect(cluster.expectEqual()).rejects.toThrow();
    },
    LIMIT_MS,
  );
});
