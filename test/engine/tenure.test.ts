import { describe, expect, it } from 'vitest';
import { BLOCK_SIZE, MIB, REGION_SIZE } from '../../common/units.js';
import type { Engine } from '../../engine/engine.js';
import { IO_OP } from '../../proto/io-codec.js';
import { outcome, turns } from '../support/engine-bed.js';
import {
  EngineWorld,
  eventsOf,
  expectNothingLeft,
  inSync,
  read,
  write,
} from '../support/engine-world.js';

/** In the second region, which is clean. */
const CLEAN = REGION_SIZE / BLOCK_SIZE;

/** A volume with one dirty region, all daemons restarted; `dark` of them lost power. Its engine
 *  starts, and the comparison of the dirty region does not get on. */
async function comparing(dark: readonly string[]): Promise<{ world: EngineWorld; engine: Engine }> {
  const first = new EngineWorld(['n1', 'n2', 'n3'], REGION_SIZE + 2 * MIB);
  const before = await first.startEngine();
  await first.during(write(before, 0, 1));
  await first.during(before.volume.flush());
  await first.during(write(before, 1, 2));
  first.vanish();
  const world = first.other();
  for (const [name, daemon] of world.daemons) {
    daemon.silentMs = 60_000;
    if (dark.includes(name)) daemon.losePower();
    else daemon.kill();
    daemon.start();
    daemon.replica.refuse(IO_OP.HASH, 'OVERLOADED');
  }
  const engine = await world.startEngine({ tuning: { cleanIdleMs: 3_600_000 } });
  return { world, engine };
}

function goOn(world: EngineWorld): void {
  for (const d of world.daemons.values()) d.replica.refuse(IO_OP.HASH, undefined);
}

describe('while the members may differ (R1, P10)', () => {
  it('nothing of the range is answered, all else is; then what was acknowledged', async () => {
    const { world, engine } = await comparing(['n1', 'n3']);
    let answered = false;
    const reading = read(engine, 1).then((value) => {
      answered = true;
      return value;
    });
    await world.during(write(engine, CLEAN, 7));
    expect(await world.during(read(engine, CLEAN))).toBe(7);
    expect(answered).toBe(false);
    goOn(world);
    expect(await world.during(reading)).toBe(2);
    await world.until(() => eventsOf(engine).includes('recovered'));
    await world.during(engine.stop());
    await expectNothingLeft(world);
  });

  it('P10: the only one that kept its power fails: the volume waits for it', async () => {
    const { world, engine } = await comparing(['n1', 'n3']);
    const writing = write(engine, CLEAN, 7);
    world.daemon('n2').kill();
    await world.until(() => engine.waiting);
    await world.run(5_000);
    expect(engine.waiting).toBe(true);
    goOn(world);
    world.daemon('n2').start();
    await world.during(writing);
    expect(await world.during(read(engine, 1))).toBe(2);
    expect(inSync(world, 'n1')).toHaveLength(3);
    await world.during(engine.stop());
    await expectNothingLeft(world);
  });

  it('one that others can do without fails: excluded, and compared when it is back', async () => {
    const { world, engine } = await comparing(['n1']);
    world.daemon('n3').kill();
    await world.during(write(engine, CLEAN, 7));
    expect(engine.waiting).toBe(false);
    goOn(world);
    world.daemon('n3').start();
    await world.until(() => inSync(world, 'n2').length === 3);
    expect(await world.during(read(engine, 1))).toBe(2);
    const [a, b, c] = [...world.daemons.values()].map((d) => d.replica.bytes);
    expect(a?.equals(b ?? Buffer.alloc(0))).toBe(true);
    expect(c?.equals(b ?? Buffer.alloc(0))).toBe(true);
    await world.during(engine.stop());
    await expectNothingLeft(world);
  });

  it('scenario 20: nobody is set aside: the volume may not do without the source', async () => {
    const { world, engine } = await comparing(['n1', 'n3']);
    const slow = world.daemon('n2').replica;
    for (let n = 0; n < 80; n += 1) {
      slow.hold(true);
      const writing = write(engine, CLEAN, n);
      await world.run(250);
      slow.hold(false);
      await world.during(writing);
    }
    expect(eventsOf(engine)).not.toContain('lost');
    expect(eventsOf(engine)).not.toContain('slow');
    goOn(world);
    await world.until(() => eventsOf(engine).includes('recovered'));
    for (let n = 0; n < 80 && !eventsOf(engine).includes('slow'); n += 1) {
      slow.hold(true);
      const writing = outcome(write(engine, CLEAN, n));
      await world.run(250);
      slow.hold(false);
      await world.during(writing);
    }
    expect(eventsOf(engine)).toContain('slow');
    expect(inSync(world, 'n1')).toEqual(['n1', 'n3']);
    await world.during(engine.stop());
    await expectNothingLeft(world);
  });
});

describe('the look once a second', () => {
  async function running(): Promise<{ world: EngineWorld; engine: Engine }> {
    const world = new EngineWorld();
    return { world, engine: await world.startEngine() };
  }

  it('scenario 15: a member stopped for less than the deadline stalls the volume', async () => {
    const { world, engine } = await running();
    world.daemon('n2').replica.stall(true);
    const writing = write(engine, 0, 1);
    await world.run(5_000);
    world.daemon('n2').replica.stall(false);
    await world.during(writing);
    expect(inSync(world, 'n1')).toHaveLength(3);
    await world.during(engine.stop());
    await expectNothingLeft(world);
  });

  it('scenario 16: for longer: excluded before the acknowledgement; late is nothing', async () => {
    const { world, engine } = await running();
    const stopped = world.daemon('n2').replica;
    stopped.stall(true);
    await world.during(write(engine, 0, 1));
    expect(inSync(world, 'n1')).toEqual(['n1', 'n3']);
    await world.during(write(engine, 0, 2));
    stopped.stall(false);
    await world.until(() => inSync(world, 'n1').length === 3);
    expect(stopped.bytes[0]).toBe(2);
    await world.during(engine.stop());
    await expectNothingLeft(world);
  });

  it('scenario 19: after a stop of our own nobody is blamed: answers may lie unread', async () => {
    const { world, engine } = await running();
    for (const d of world.daemons.values()) d.replica.hold(true);
    const writing = write(engine, 0, 1);
    await turns(5);
    // The whole process did not run: one late tick, then the answers.
    world.clock.advance(500);
    world.clock.skip(30_000);
    world.clock.advance(0);
    await turns(2);
    for (const d of world.daemons.values()) d.replica.hold(false);
    await world.during(writing);
    expect(inSync(world, 'n1')).toHaveLength(3);
    expect(eventsOf(engine)).not.toContain('failed');
    await world.during(engine.stop());
    await expectNothingLeft(world);
  });
});
