import { describe, expect, it } from 'vitest';
import { StorageError } from '../../common/errors.js';
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
