import { describe, expect, it } from 'vitest';
import { type ErrorCode, StorageError } from '../../common/errors.js';
import { outcome, turns } from '../support/engine-bed.js';
import { EngineWorld, expectNothingLeft, read, write } from '../support/engine-world.js';

const STEPS = ['identify', 'openReplica', 'connectIo', 'setMembership'] as const;

/** A volume that exists, on daemons that nobody has open. */
async function existing(): Promise<EngineWorld> {
  const world = new EngineWorld();
  const engine = await world.startEngine();
  await world.during(write(engine, 0, 1));
  await world.during(engine.stop());
  const next = world.other();
  for (const d of next.daemons.values()) d.silentMs = 60_000;
  return next;
}

describe('a start that fails leaves nothing behind', () => {
  it.each(STEPS)('one member fails in the step %s', async (step) => {
    const world = await existing();
    world.network.before = async (call) => {
      if (call !== `n2:${step}`) return;
      await turns(10);
      throw new StorageError('UNAVAILABLE', 'cut');
    };
    const start = outcome(world.startEngine());
    expect(await start).toBe(step === 'identify' ? 'MEMBERSHIP_UNPROVEN' : 'UNAVAILABLE');
    await expectNothingLeft(world);
    world.network.before = () => undefined;
    const engine = await world.startEngine();
    expect(await world.during(read(engine, 0))).toBe(1);
    await world.during(engine.stop());
    await expectNothingLeft(world);
  });

  it('one member breaks off after it was connected, before the volume serves', async () => {
    const world = await existing();
    world.network.before = async (call) => {
      if (call === 'n1:setMembership') world.daemon('n2').replica.cut();
    };
    expect(await outcome(world.startEngine())).toBe('UNAVAILABLE');
    await expectNothingLeft(world);
  });

  it('one member never answers the hello', async () => {
    const world = await existing();
    world.daemon('n3').replica.hold(true);
    expect(await outcome(world.startEngine())).toBe('DEADLINE');
    await expectNothingLeft(world);
  });
});

describe('an engine that opens its volume again', () => {
  const lostAll = async (): Promise<{
    world: EngineWorld;
    engine: Awaited<ReturnType<EngineWorld['startEngine']>>;
  }> => {
    const world = await existing();
    const engine = await world.startEngine();
    for (const d of world.daemons.values()) d.kill();
    await world.until(() => engine.waiting);
    for (const d of world.daemons.values()) d.start();
    return { world, engine };
  };

  it.each(STEPS)('tries again when a member fails in the step %s (scenario 8)', async (step) => {
    const { world, engine } = await lostAll();
    let failures = 0;
    world.network.before = async (call) => {
      if (call !== `n2:${step}` || failures === 3) return;
      failures += 1;
      throw new StorageError('UNAVAILABLE', 'cut');
    };
    await world.until(() => !engine.waiting);
    expect(failures).toBe(3);
    expect(world.ended).toEqual([]);
    expect(await world.during(read(engine, 0))).toBe(1);
    expect(world.network.openStreams).toBe(3);
    expect(world.network.openControls).toBe(3);
    await world.during(engine.stop());
    await expectNothingLeft(world);
  });

  it.each(['connectIo', 'setMembership'] as const)(
    'P7: a daemon that restarts once more before the step %s is no other engine',
    async (step) => {
      const { world, engine } = await lostAll();
      let restarts = 0;
      world.network.before = async (call) => {
        if (call !== `n2:${step}` || restarts === 2) return;
        restarts += 1;
        world.daemon('n2').kill();
        world.daemon('n2').start();
      };
      await world.until(() => !engine.waiting);
      expect(world.ended).toEqual([]);
      expect(await world.during(read(engine, 0))).toBe(1);
      await world.during(engine.stop());
      await expectNothingLeft(world);
    },
  );

  it('R5: gives the volume up when another engine has opened it meanwhile', async () => {
    const { world, engine } = await lostAll();
    const other = world.other();
    const second = await other.startEngine();
    const waiting = outcome(write(engine, 1, 9));
    await world.until(() => world.ended.length > 0);
    expect(world.ended.map((e) => e.code)).toEqual(['STALE_EPOCH']);
    expect(await waiting).toBe('STALE_EPOCH');
    expect(await other.during(read(second, 0))).toBe(1);
    await world.during(engine.stop());
    await expectNothingLeft(world);
    await other.during(second.stop());
    await expectNothingLeft(other);
  });

  it.each(STEPS)('stopped in the step %s: ends, serves no more, leaves nothing', async (step) => {
    const { world, engine } = await lostAll();
    const waiting = outcome(write(engine, 1, 9));
    let stopped: Promise<void> | undefined;
    world.network.before = async (call) => {
      if (call !== `n2:${step}`) return;
      stopped ??= engine.stop();
      await turns(20);
    };
    await world.until(() => stopped !== undefined);
    await world.during(stopped ?? Promise.resolve());
    expect(['ok', 'CLOSED']).toContain(await world.during(waiting));
    await world.run(10_000);
    await expectNothingLeft(world);
    const calls = world.network.calls.length;
    await world.run(10_000);
    expect(world.network.calls).toHaveLength(calls);
    expect(await outcome(read(engine, 0))).toBe('CLOSED');
  });
});

describe('stop', () => {
  it('while all members are lost: at once, what waits fails', async () => {
    const world = await existing();
    const engine = await world.startEngine();
    for (const d of world.daemons.values()) d.kill();
    const waiting = outcome(write(engine, 1, 9));
    await world.run(1_000);
    const before = world.clock.nowMs();
    await world.during(engine.stop());
    expect(await waiting).toBe('CLOSED');
    expect(world.clock.nowMs() - before).toBeLessThan(1_000);
    await expectNothingLeft(world);
  });

  it('and then all members are lost: not later than with them', async () => {
    const world = await existing();
    const engine = await world.startEngine();
    for (const d of world.daemons.values()) d.replica.stall(true);
    const waiting = outcome(write(engine, 1, 9));
    await turns(5);
    const stopped = engine.stop();
    for (const d of world.daemons.values()) d.kill();
    const before = world.clock.nowMs();
    await world.during(stopped);
    expect(await waiting).toBe('CLOSED');
    expect(world.clock.nowMs() - before).toBeLessThan(1_000);
    await expectNothingLeft(world);
  });

  it('with a member that is catching up: it does not wait for it', async () => {
    const world = await existing();
    const engine = await world.startEngine();
    world.daemon('n3').kill();
    await world.during(write(engine, 1, 9));
    world.daemon('n3').start();
    world.network.before = async (call) => {
      if (call === 'n3:connectIo') world.daemon('n3').replica.onRequest = () => undefined;
    };
    await world.until(() => world.network.calls.filter((c) => c === 'n3:connectIo').length > 1);
    await world.during(engine.stop());
    await expectNothingLeft(world);
  });
});

describe('power is lost on every member (P10, F3)', () => {
  const dark = (world: EngineWorld): void => {
    for (const d of world.daemons.values()) d.losePower();
    for (const d of world.daemons.values()) d.start();
  };

  it('a new engine starts, and says so in the era of the record', async () => {
    const world = await existing();
    const engine = await world.startEngine();
    await world.during(write(engine, 1, 9));
    await world.during(engine.volume.flush());
    await world.during(write(engine, 2, 9));
    world.vanish();
    dark(world);
    const next = world.other();
    const second = await next.startEngine();
    expect(second.era).toBe(1);
    expect(next.daemon('n1').membership.era).toBe(1);
    expect(await next.during(read(second, 1))).toBe(9);
    expect(await next.during(read(second, 2))).toBe(0);
    await next.during(second.stop());
    await expectNothingLeft(next);
  });

  it('an engine that has acknowledged the lost writes ends: a flush would be a lie', async () => {
    const world = await existing();
    const engine = await world.startEngine();
    await world.during(write(engine, 1, 9));
    dark(world);
    const waiting = outcome(engine.volume.flush());
    await world.until(() => world.ended.length > 0);
    expect(world.ended.map((e): ErrorCode => e.code)).toEqual(['IO_INDETERMINATE']);
    expect(await waiting).toBe('IO_INDETERMINATE');
    await world.during(engine.stop());
    await expectNothingLeft(world);
  });

  it('one that kept its power is the source; nothing acknowledged is lost (F2)', async () => {
    const world = await existing();
    const engine = await world.startEngine();
    await world.during(write(engine, 1, 9));
    for (const address of ['n1', 'n3']) world.daemon(address).losePower();
    world.daemon('n2').kill();
    for (const d of world.daemons.values()) d.start();
    await world.until(() => engine.waiting);
    await world.until(() => !engine.waiting);
    expect(world.ended).toEqual([]);
    expect(await world.during(read(engine, 1))).toBe(9);
    await world.until(() => world.network.calls.includes('n1:noteComplete'));
    expect(world.daemon('n1').replica.bytes.equals(world.daemon('n2').replica.bytes)).toBe(true);
    await world.during(engine.stop());
    await expectNothingLeft(world);
  });
});
