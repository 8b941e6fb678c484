/** Scenarios 2, 6, 9: kill -9 of parts and of everything; nothing acknowledged is lost, flushed or
 *  not (F1, R1). */
import { afterEach, describe, expect, it } from 'vitest';
import { Cluster } from '../support/cluster.js';
import { missing } from '../support/host.js';
import { StampedWriter } from '../support/stamped-writer.js';

const lacks = missing('nbdinfo');

describe.skipIf(lacks !== undefined)(`kill -9 ${lacks ?? ''}`, () => {
  let cluster: Cluster | undefined;
  afterEach(async () => {
    await cluster?.destroy();
    cluster = undefined;
  });

  it('of everything at once: every acknowledged write is there, copies are equal', async () => {
    cluster = await Cluster.start({ size: '256MiB' });
    for (let round = 0; round < 3; round += 1) {
      const writer = await StampedWriter.connect(cluster.socket, 'vol', { seed: round, depth: 32 });
      await writer.writeUntil(3000);
      const crashed = cluster.stop('SIGKILL');
      await writer.runToEnd();
      await crashed;
      await cluster.startDaemons();
      await cluster.startEngine();
      const checker = await StampedWriter.connect(cluster.socket, 'vol', {
        seed: round,
        depth: 32,
      });
      const problems = await checker.check(writer);
      expect(problems).toEqual([]);
      expect(await checker.check(writer)).toEqual([]);
      await checker.close();
    }
    await cluster.stop();
    await cluster.expectEqual();
  }, 120_000);

  it('of the engine alone, writes in flight: old or new, equal on all copies', async () => {
    cluster = await Cluster.start({ size: '256MiB' });
    for (let round = 0; round < 5; round += 1) {
      const writer = await StampedWriter.connect(cluster.socket, 'vol', {
        seed: 50 + round,
        depth: 64,
      });
      await writer.writeUntil(1000);
      await cluster.stopEngine('SIGKILL');
      await writer.runToEnd();
      await cluster.startEngine();
      const checker = await StampedWriter.connect(cluster.socket, 'vol', { seed: 0, depth: 32 });
      expect(await checker.check(writer)).toEqual([]);
      await checker.close();
    }
    await cluster.stop();
    await cluster.expectEqual();
  }, 120_000);

  it('of one replica daemon under load: no error; it is excluded and comes back', async () => {
    cluster = await Cluster.start({ size: '256MiB' });
    const writer = await StampedWriter.connect(cluster.socket, 'vol', { seed: 9, depth: 32 });
    await writer.writeUntil(1000);
    await cluster.stopDaemon(1, 'SIGKILL');
    await writer.writeUntil(2000);
    const status = await cluster.status();
    expect(status.state).toBe('degraded');
    expect(status.replicas.map((r) => r.state).sort()).toEqual(['failed', 'in-sync', 'in-sync']);
    // R6: it catches up under load, block by block what this engine knows that it missed.
    const load = writer.writeUntil(3000);
    await cluster.startDaemon(1);
    await Promise.all([load, cluster.whenHealthy()]);
    expect(writer.errors).toEqual([]);
    // R3, R4: after a restart of everything a copy that missed writes is not trusted, but caught up
    // by dirty regions and tags.
    await cluster.stopDaemon(1, 'SIGKILL');
    await writer.writeUntil(3500);
    await writer.close();
    expect(writer.errors).toEqual([]);
    await cluster.stop('SIGKILL');
    await cluster.startDaemons();
    await cluster.startEngine();
    const checker = await StampedWriter.connect(cluster.socket, 'vol', { seed: 0, depth: 32 });
    expect(await checker.check(writer)).toEqual([]);
    await checker.close();
    await cluster.whenHealthy();
    await cluster.stop();
    await cluster.expectEqual();
  }, 120_000);

  it('of every daemon under load: I/O waits and goes on, without an error', async () => {
    cluster = await Cluster.start({ size: '256MiB' });
    const writer = await StampedWriter.connect(cluster.socket, 'vol', { seed: 21, depth: 32 });
    await writer.writeUntil(500);
    const load = writer.writeUntil(1500);
    await Promise.all([0, 1, 2].map((index) => cluster?.stopDaemon(index, 'SIGKILL')));
    expect((await cluster.status()).state).toBe('faulted');
    await cluster.startDaemons();
    await load;
    expect(writer.errors).toEqual([]);
    await cluster.whenHealthy();
    await writer.close();
    const checker = await StampedWriter.connect(cluster.socket, 'vol', { seed: 0, depth: 32 });
    expect(await checker.check(writer)).toEqual([]);
    await checker.close();
    await cluster.stop();
    await cluster.expectEqual();
  }, 120_000);

  it('R4: a stale copy alone is refused, with the reason', async () => {
    cluster = await Cluster.start({ size: '64MiB', replicas: 2 });
    const writer = await StampedWriter.connect(cluster.socket, 'vol', { seed: 1, depth: 8 });
    await cluster.stopDaemon(1, 'SIGKILL');
    await writer.writeUntil(100);
    await writer.close();
    await cluster.stop();
    await cluster.startDaemon(1);
    await expect(cluster.startEngine()).rejects.toThrow(/MEMBERSHIP_UNPROVEN/);
  }, 60_000);
});
