/** Scenarios 2, 6, 9: kill -9 of parts and of everything; nothing acknowledged is lost, flushed or
 *  not (F1, R1). Needs no root and no tools; test/faults has more. */
import { afterEach, describe, expect, it } from 'vitest';
import { MIB } from '../../common/units.js';
import { SeededRandom } from '../engine/nbd/seeded-random.js';
import { Cluster } from '../support/cluster.js';
import { NbdLoadClient } from '../support/load-client.js';
import { StampedLoad } from '../support/stamped-load.js';

const SEED = SeededRandom.runSeed();

describe(`kill -9 (AUROCHS_SEED=${SEED})`, () => {
  let cluster: Cluster | undefined;
  afterEach(async () => {
    await cluster?.destroy();
    cluster = undefined;
  });

  const loadOn = (under: Cluster, bytes = 64 * MIB): StampedLoad =>
    new StampedLoad({
      seed: SEED,
      bytes,
      connect: () => NbdLoadClient.connect(under.socket),
    });

  it('scenario 9: of everything at once: every acknowledged write is there (F1, R1)', async () => {
    cluster = await Cluster.start({ size: '64MiB' });
    const load = loadOn(cluster);
    for (let round = 0; round < 2; round += 1) {
      await load.start();
      await load.more(400);
      await cluster.stop('SIGKILL');
      await load.ended();
      load.crashed();
      await cluster.startDaemons();
      await cluster.startEngine();
      load.served();
      await load.sweep();
      expect(load.problems()).toEqual([]);
    }
    await cluster.stop();
    await cluster.expectEqual();
  }, 120_000);

  it('scenario 2: of the engine alone, writes in flight: old or new, equal on all', async () => {
    cluster = await Cluster.start({ size: '64MiB' });
    const load = loadOn(cluster);
    for (let round = 0; round < 3; round += 1) {
      await load.start();
      await load.more(300);
      await cluster.stopEngine('SIGKILL');
      await load.ended();
      load.crashed();
      await cluster.startEngine();
      load.served();
      await load.sweep();
      expect(load.problems()).toEqual([]);
    }
    await cluster.stop();
    await cluster.expectEqual();
  }, 120_000);

  it('scenario 6: of one daemon under load: no error, it comes back (R3, R6)', async () => {
    cluster = await Cluster.start({ size: '64MiB' });
    const load = loadOn(cluster);
    await load.start();
    await load.more(300);
    await cluster.stopDaemon(1, 'SIGKILL');
    load.crashed();
    await load.more(300);
    const status = await cluster.status();
    expect(status.state).toBe('degraded');
    expect(status.replicas.map((r) => r.state).sort()).toEqual(['failed', 'in-sync', 'in-sync']);
    // R6: it catches up under load, block by block what this engine knows that it missed.
    await cluster.startDaemon(1);
    await cluster.whenHealthy();
    // R3, R4: after a restart of everything a copy that missed writes is not trusted, but caught up
    // by dirty regions and tags.
    await cluster.stopDaemon(1, 'SIGKILL');
    load.crashed();
    await load.more(200);
    await load.stop();
    expect(load.refusals).toEqual([]);
    await cluster.stop('SIGKILL');
    load.crashed();
    await cluster.startDaemons();
    await cluster.startEngine();
    load.served();
    await load.sweep();
    expect(load.problems()).toEqual([]);
    await cluster.whenHealthy();
    await cluster.stop();
    await cluster.expectEqual();
  }, 120_000);

  it('of every daemon under load: I/O waits and goes on, without an error (F1)', async () => {
    cluster = await Cluster.start({ size: '64MiB' });
    const load = loadOn(cluster);
    await load.start();
    await load.more(200);
    await Promise.all([0, 1, 2].map((index) => cluster?.stopDaemon(index, 'SIGKILL')));
    load.crashed();
    expect((await cluster.status()).state).toBe('faulted');
    await cluster.startDaemons();
    await load.more(200);
    await cluster.whenHealthy();
    await load.stop();
    expect(load.refusals).toEqual([]);
    await load.sweep();
    expect(load.problems()).toEqual([]);
    await cluster.stop();
    await cluster.expectEqual();
  }, 120_000);

  it('R4: a stale copy alone is refused, with the reason', async () => {
    cluster = await Cluster.start({ size: '64MiB', replicas: 2 });
    const load = loadOn(cluster);
    await load.start();
    await load.more(50);
    await cluster.stopDaemon(1, 'SIGKILL');
    await load.more(50);
    await load.stop();
    await cluster.stop();
    await cluster.startDaemon(1);
    await expect(cluster.startEngine()).rejects.toThrow(/MEMBERSHIP_UNPROVEN/);
  }, 60_000);
});
