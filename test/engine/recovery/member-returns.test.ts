import { describe, expect, it } from 'vitest';
import { BLOCK_SIZE } from '../../../common/units.js';
import type { Engine } from '../../../engine/engine.js';
import { REPLICAS_MAX } from '../../../engine/engine-config.js';
import { IO_OP } from '../../../proto/io-codec.js';
import { outcome, turns } from '../../support/engine-bed.js';
import {
  EngineWorld,
  eventsOf,
  expectNothingLeft,
  inSync,
  read,
  write,
} from '../../support/engine-world.js';

/** Three members, some of the volume written, cleaned and written again. */
async function running(): Promise<{ world: EngineWorld; engine: Engine }> {
  const world = new EngineWorld();
  const engine = await world.startEngine({ tuning: { cleanIdleMs: 100, cleanIntervalMs: 100 } });
  for (const block of [0, 1, 2, 3]) await world.during(write(engine, block, block + 1));
  await world.during(engine.volume.flush());
  await world.run(1_000);
  return { world, engine };
}

const backIn = (world: EngineWorld, engine: Engine, count = 3): Promise<void> =>
  world.until(() => inSync(world, 'n1').length === count && !engine.waiting);

/** All in-sync copies hold the same, and what was acknowledged is there. */
async function expectWhole(world: EngineWorld, engine: Engine, blocks: Record<number, number>) {
  for (const [block, value] of Object.entries(blocks)) {
    expect(await world.during(read(engine, Number(block)))).toBe(value);
  }
  const copies = inSync(world, 'n1').map((address) => world.daemon(address).replica.bytes);
  for (const copy of copies) expect(copy.equals(copies[0] ?? Buffer.alloc(0))).toBe(true);
}

async function end(world: EngineWorld, engine: Engine): Promise<void> {
  await world.during(engine.stop());
  await expectNothingLeft(world);
}

const replacedBlocks = (world: EngineWorld, address: string): number[] =>
  world
    .daemon(address)
    .replica.seen.filter((s) => s.op === IO_OP.REPLACE)
    .flatMap((s) =>
      Array.from({ length: s.lengthBytes / BLOCK_SIZE }, (_, n) => s.offsetBytes / BLOCK_SIZE + n),
    );

describe('a member comes back by itself (R6, P6)', () => {
  it('scenario 6: killed under writes: no error, excluded, in-sync with a delta', async () => {
    const { world, engine } = await running();
    world.daemon('n3').replica.seen.length = 0;
    world.daemon('n3').kill();
    await world.during(write(engine, 1, 20));
    expect(inSync(world, 'n1')).toEqual(['n1', 'n2']);
    world.daemon('n3').start();
    await backIn(world, engine);
    expect(replacedBlocks(world, 'n3')).toEqual([1]);
    await expectWhole(world, engine, { 0: 1, 1: 20, 2: 3 });
    expect(eventsOf(engine).filter((kind) => kind !== 'opened')).toEqual([
      ...['failed', 'excluded', 'rebuilding', 'in-sync'],
    ]);
    await end(world, engine);
  });

  it('out since before the engine started: by dirty regions and tags', async () => {
    const { world, engine } = await running();
    world.daemon('n3').kill();
    await world.during(write(engine, 1, 20));
    await world.during(engine.stop());
    world.daemon('n3').start();
    const next = world.other();
    for (const d of next.daemons.values()) d.silentMs = 60_000;
    const second = await next.startEngine();
    await backIn(next, second);
    await expectWhole(next, second, { 0: 1, 1: 20 });
    await end(next, second);
  });

  it('moved to another address: found by what it is, not where (R8)', async () => {
    const { world, engine } = await running();
    world.addDaemon('n4:1');
    const moved = world.daemon('n3');
    moved.kill();
    await world.during(write(engine, 1, 20));
    world.daemons.set('n2x', world.daemon('n2'));
    world.daemons.set('n3', world.daemon('n4:1'));
    moved.start();
    await world.run(5_000);
    expect(inSync(world, 'n1')).toEqual(['n1', 'n2']);
    world.daemons.set('n3', moved);
    await backIn(world, engine);
    await end(world, engine);
  });

  it('scenario 35: another replica at its address is never attached', async () => {
    const { world, engine } = await running();
    world.daemon('n3').kill();
    await world.during(write(engine, 1, 20));
    const stranger = world.addDaemon('n3');
    await world.during(
      stranger.calls.createReplica({
        ...{ volume: 'v', replicaId: 'r-other', sizeBytes: world.sizeBytes },
        membership: world.daemon('n1').membership,
      }),
    );
    await world.run(60_000);
    expect(inSync(world, 'n1')).toEqual(['n1', 'n2']);
    expect(world.network.calls.filter((c) => c === 'n3:openReplica')).toHaveLength(1);
    const status = await world.during(engine.status([]));
    expect(status.replicas.find((r) => r.address === 'n3')?.reason).toContain('NOT_FOUND');
    await end(world, engine);
  });
});

describe('what a returned member may lack besides what it missed', () => {
  it('F2, scenario 57: it lost power: acknowledged, not flushed writes come back', async () => {
    const { world, engine } = await running();
    await world.during(write(engine, 2, 30));
    world.daemon('n3').losePower();
    world.daemon('n3').start();
    expect(world.daemon('n3').replica.bytes[2 * BLOCK_SIZE]).toBe(3);
    await world.until(() => engine.events.events().some((e) => e.kind === 'in-sync'));
    await expectWhole(world, engine, { 2: 30 });
    // The others die: it alone has everything.
    for (const address of ['n1', 'n2']) world.daemon(address).kill();
    await world.during(write(engine, 3, 40));
    expect(await world.during(read(engine, 2))).toBe(30);
    await end(world, engine);
  });

  it('D3: its flush failed while it was out of reach: dirty regions are compared', async () => {
    const { world, engine } = await running();
    await world.during(write(engine, 2, 30));
    world.network.cut('n3');
    await world.during(write(engine, 1, 20));
    // The device has dropped what it could not write, and nobody heard of it.
    const { copy } = world.daemon('n3').replica;
    copy.losePower(() => false);
    world.daemon('n3').fail();
    expect(copy.bytes[2 * BLOCK_SIZE]).toBe(3);
    world.network.heal('n3');
    await backIn(world, engine);
    await expectWhole(world, engine, { 1: 20, 2: 30 });
    await end(world, engine);
  });

  it('scenario 55: its disk was restored from an older image: nothing is believed', async () => {
    const world = new EngineWorld();
    const first = await world.startEngine();
    await world.during(write(first, 1, 2));
    await world.during(first.stop());
    const restore = world.daemon('n3').save();
    const next = world.other();
    for (const d of next.daemons.values()) d.silentMs = 60_000;
    const engine = await next.startEngine();
    await next.during(write(engine, 1, 20));
    next.network.cut('n3');
    await next.during(write(engine, 2, 30));
    restore();
    next.network.heal('n3');
    await backIn(next, engine);
    await expectWhole(next, engine, { 1: 20, 2: 30 });
    await end(next, engine);
  });

  it('scenario 55: restored from an older image of this tenure: nothing is believed', async () => {
    const { world, engine } = await running();
    const restore = world.daemon('n3').save();
    world.network.cut('n3');
    await world.during(write(engine, 1, 20));
    world.network.heal('n3');
    await backIn(world, engine);
    await world.during(write(engine, 2, 30));
    world.network.cut('n3');
    await world.during(write(engine, 3, 40));
    // It has neither what it caught up, nor what it was sent afterwards.
    restore();
    world.network.heal('n3');
    await backIn(world, engine);
    await expectWhole(world, engine, { 0: 1, 1: 20, 2: 30, 3: 40 });
    await end(world, engine);
  });

  it('R1: what was made equal without it is compared: it was no write', async () => {
    const world = new EngineWorld();
    const first = await world.startEngine();
    await world.during(write(first, 1, 7));
    // A write that is in flight has arrived at one member only, and its daemon dies with the
    // engine.
    for (const address of ['n1', 'n2']) world.daemon(address).replica.stall(true);
    void outcome(write(first, 9, 8));
    await turns(5);
    world.vanish();
    world.daemon('n3').kill();
    world.daemon('n3').start();
    for (const address of ['n1', 'n2']) world.daemon(address).replica.stall(false);
    const next = world.other();
    for (const d of next.daemons.values()) d.silentMs = 60_000;
    // One of the others is slow to be compared; meanwhile the one that differs leaves and is back.
    next.network.before = async (call) => {
      if (call === 'n2:setMembership') next.daemon('n2').replica.stall(true);
    };
    const engine = await next.startEngine();
    next.network.before = () => undefined;
    next.network.cut('n3');
    await next.run(100);
    next.daemon('n2').replica.stall(false);
    await next.until(() => engine.events.events().some((e) => e.text.includes('are equal')));
    next.network.heal('n3');
    await backIn(next, engine);
    await expectWhole(next, engine, { 1: 7, 9: 0 });
    await end(next, engine);
  });
});

describe('the end of the engine', () => {
  it.each(['identify', 'openReplica', 'connectIo', 'listRegions'] as const)(
    'in the step %s of a return: nothing is left open',
    async (step) => {
      const { world, engine } = await running();
      world.daemon('n3').kill();
      await world.during(write(engine, 1, 20));
      world.daemon('n3').start();
      let stopped: Promise<void> | undefined;
      world.network.before = async (call) => {
        if (call !== `n3:${step}`) return;
        stopped ??= engine.stop();
        await turns(30);
      };
      await world.until(() => stopped !== undefined);
      await world.during(stopped ?? Promise.resolve());
      await expectNothingLeft(world);
    },
  );
});

describe('a member that does not stay (scenarios 8, 27)', () => {
  /** Kills and starts the daemon again whenever it has been attached; how often, in `ms`. */
  async function crashLoop(world: EngineWorld, ms: number): Promise<number> {
    let attached = 0;
    const { daemon } = { daemon: world.daemon('n3') };
    world.network.before = async (call) => {
      if (call !== 'n1:listRegions' && call !== 'n3:listRegions') return;
      attached += 1;
      daemon.kill();
      daemon.start();
    };
    daemon.kill();
    daemon.start();
    await world.run(ms);
    world.network.before = () => undefined;
    return attached;
  }

  it('is tried less and less often, and nothing grows meanwhile', async () => {
    const { world, engine } = await running();
    const early = await crashLoop(world, 30_000);
    const streams = world.network.openStreams;
    const controls = world.network.openControls;
    const late = await crashLoop(world, 300_000);
    expect(early).toBeLessThan(8);
    expect(late).toBeGreaterThan(8);
    expect(late).toBeLessThan(14);
    expect(world.network.openStreams).toBeLessThanOrEqual(streams);
    expect(world.network.openControls).toBeLessThanOrEqual(controls);
    expect(engine.events.events().length).toBeLessThan(80);
    await backIn(world, engine);
    await end(world, engine);
  });

  it('once it was well for long it is taken back at once', async () => {
    const { world, engine } = await running();
    await crashLoop(world, 60_000);
    await backIn(world, engine);
    await world.run(70_000);
    world.daemon('n3').kill();
    await world.during(write(engine, 1, 20));
    const before = world.clock.nowMs();
    world.daemon('n3').start();
    await backIn(world, engine);
    expect(world.clock.nowMs() - before).toBeLessThan(2_000);
    await end(world, engine);
  });
});

describe('members come and go for good', () => {
  it('a new one is made where it was wanted, filled, and in-sync', async () => {
    const { world, engine } = await running();
    world.addDaemon('n4:1');
    await world.during(engine.members.join('n4:1'));
    await backIn(world, engine, 4);
    await expectWhole(world, engine, { 0: 1, 3: 4 });
    await end(world, engine);
  });

  it('a volume that lost all members finds the new one again', async () => {
    const { world, engine } = await running();
    world.addDaemon('n4:1');
    await world.during(engine.members.join('n4:1'));
    await backIn(world, engine, 4);
    for (const d of world.daemons.values()) d.kill();
    await world.until(() => engine.waiting);
    for (const d of world.daemons.values()) d.start();
    await backIn(world, engine, 4);
    await expectWhole(world, engine, { 0: 1, 3: 4 });
    await end(world, engine);
  });

  it('there may be so many of them and no more: each has a bit of its own', async () => {
    const addresses = Array.from({ length: REPLICAS_MAX }, (_, n) => `m${n}`);
    const world = new EngineWorld(addresses, 64 * BLOCK_SIZE);
    const engine = await world.startEngine();
    world.addDaemon('more:1');
    expect(await world.during(outcome(engine.members.join('more:1')))).toBe('LIMIT_EXCEEDED');
    expect(world.daemon('m0').membership.members).toHaveLength(REPLICAS_MAX);
    await end(world, engine);
  });

  it('one that is out leaves, also while it is being looked for, and is forgotten', async () => {
    const { world, engine } = await running();
    const replicaId = world.daemon('n3').replica.replicaId;
    world.daemon('n3').kill();
    await world.during(write(engine, 1, 20));
    let left: Promise<unknown> | undefined;
    world.daemon('n3').start();
    world.network.before = async (call) => {
      if (call !== 'n3:connectIo') return;
      left ??= engine.members.leave({ replicaId, deleteData: false, address: '' });
      await turns(20);
    };
    await world.until(() => left !== undefined);
    await world.during(left ?? Promise.resolve());
    await world.run(60_000);
    expect(world.daemon('n1').membership.members.map((m) => m.address)).toEqual(['n1', 'n2']);
    expect(world.network.openStreams).toBe(2);
    expect(world.network.openControls).toBe(2);
    await world.during(write(engine, 2, 30));
    await end(world, engine);
  });
});
describe('members that serve badly', () => {
  it('P8: one whose replica has failed leaves with the first read that says so', async () => {
    const { world, engine } = await running();
    world.daemon('n1').replica.refuse(IO_OP.READ, 'REPLICA_FAILED');
    for (const block of [0, 1, 2, 3]) {
      expect(await world.during(read(engine, block))).toBe(block + 1);
    }
    expect(world.daemon('n2').membership.members.filter((m) => m.state === 'failed')).toHaveLength(
      1,
    );
    world.daemon('n1').replica.refuse(IO_OP.READ, undefined);
    await backIn(world, engine);
    await end(world, engine);
  });
});
