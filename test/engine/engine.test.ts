import { describe, expect, it } from 'vitest';
import { BLOCK_SIZE } from '../../common/units.js';
import { engineIdOf } from '../../engine/engine-life.js';
import { IO_OP } from '../../proto/io-codec.js';
import { outcome, turns } from '../support/engine-bed.js';
import {
  EngineWorld,
  eventsOf,
  expectNothingLeft,
  FakeProcesses,
  inSync,
  processFacts,
  read,
  write,
} from '../support/engine-world.js';

const LEASE_WAIT_MS = 5_500;

/** Which step of the start each call belongs to, each named once. */
const steps = (calls: readonly string[]): string[] => [
  ...new Set(calls.map((call) => call.split(':')[1] as string)),
];

describe('the start of an engine', () => {
  it('a new volume: created, fenced, connected, recorded, in this order; then serves', async () => {
    const world = new EngineWorld();
    const engine = await world.startEngine();
    expect(world.network.calls).toHaveLength(15);
    expect(steps(world.network.calls)).toEqual([
      ...['identify', 'createReplica', 'openReplica', 'connectIo', 'setMembership'],
    ]);
    await world.during(write(engine, 3, 7));
    expect(await world.during(read(engine, 3))).toBe(7);
    expect(world.daemon('n2').membership).toMatchObject({ epoch: 1, generation: 1, era: 0 });
    await world.during(engine.stop());
    await expectNothingLeft(world);
  });

  it('after an orderly stop nothing is compared', async () => {
    const world = new EngineWorld();
    const first = await world.startEngine();
    await world.during(write(first, 3, 7));
    await world.during(first.stop());
    expect([...world.daemons.values()].flatMap((d) => d.replica.copy.dirtyRegions())).toEqual([]);
    for (const daemon of world.daemons.values()) daemon.replica.seen.length = 0;
    const next = world.other();
    const second = await next.startEngine();
    expect(next.daemon('n1').membership).toMatchObject({ epoch: 2, generation: 1 });
    expect(await next.during(read(second, 3))).toBe(7);
    const ops = [...next.daemons.values()].flatMap((d) => d.replica.seen.map((s) => s.op));
    expect(ops.filter((op) => op === IO_OP.HASH)).toEqual([]);
    await next.during(second.stop());
    await expectNothingLeft(next);
  });

  it('P5: after a crash what was in flight is equal before the record is stored', async () => {
    const world = new EngineWorld();
    const first = await world.startEngine();
    await world.during(write(first, 1, 7));
    // It arrives at one member only.
    for (const address of ['n2', 'n3']) world.daemon(address).replica.stall(true);
    void outcome(write(first, 1, 8));
    await turns(5);
    world.vanish();
    for (const address of ['n2', 'n3']) world.daemon(address).replica.stall(false);
    const bytes = (): number[] =>
      [...world.daemons.values()].map((d) => d.replica.bytes[BLOCK_SIZE] ?? -1);
    expect(bytes()).toEqual([8, 7, 7]);
    const next = world.other();
    let equalWhenStored = false;
    next.network.before = (call) => {
      if (call.endsWith(':setMembership')) equalWhenStored = new Set(bytes()).size === 1;
      return undefined;
    };
    const second = await next.startEngine();
    expect(equalWhenStored).toBe(true);
    expect(eventsOf(second)).toContain('recovered');
    const value = await next.during(read(second, 1));
    expect(bytes()).toEqual([value, value, value]);
    await next.during(second.stop());
    await expectNothingLeft(next);
  });
});

describe('R5, P13: an engine that held the volume before', () => {
  async function takeOver(
    processes: FakeProcesses | undefined,
    silentMs: number,
  ): Promise<{ waitedMs: number; world: EngineWorld }> {
    const world = new EngineWorld();
    const own = new FakeProcesses(processes?.facts && processFacts(1));
    await world.startEngine({ processes: own });
    world.vanish();
    const next = world.other();
    for (const daemon of next.daemons.values()) daemon.silentMs = silentMs;
    const before = next.clock.nowMs();
    const second = await next.startEngine(processes === undefined ? {} : { processes });
    const waitedMs = next.clock.nowMs() - before;
    await next.during(second.stop());
    await expectNothingLeft(next);
    return { waitedMs, world: next };
  }

  it('may be alive: nothing is served for one lease, with a margin', async () => {
    const { waitedMs } = await takeOver(undefined, 0);
    expect(waitedMs).toBeGreaterThanOrEqual(LEASE_WAIT_MS);
    expect(waitedMs).toBeLessThan(LEASE_WAIT_MS + 1_000);
  });

  it('has been silent for so long that its lease is over: no wait', async () => {
    expect((await takeOver(undefined, 6_000)).waitedMs).toBeLessThan(1_000);
  });

  it('is a process of this host that is gone: no wait', async () => {
    const processes = new FakeProcesses(processFacts(2));
    expect((await takeOver(processes, 0)).waitedMs).toBeLessThan(1_000);
  });

  it('is a process of this host that still runs: waits', async () => {
    const processes = new FakeProcesses(processFacts(2));
    processes.running.set(1, processFacts(1).startTicks);
    expect((await takeOver(processes, 0)).waitedMs).toBeGreaterThanOrEqual(LEASE_WAIT_MS);
  });

  it('scenario 17: goes on and is fenced: writes fail, reads are not answered', async () => {
    const world = new EngineWorld();
    const first = await world.startEngine();
    await world.during(write(first, 0, 1));
    const next = world.other();
    const second = await next.startEngine();
    await next.during(write(second, 0, 2));
    expect(await world.during(outcome(write(first, 0, 3)))).toBe('STALE_EPOCH');
    expect(await world.during(outcome(read(first, 0)))).toBe('STALE_EPOCH');
    expect(world.ended.map((e) => e.code)).toEqual(['STALE_EPOCH']);
    expect(await next.during(read(second, 0))).toBe(2);
    expect(engineIdOf('e', new FakeProcesses(undefined))).toBe('e');
    await world.during(first.stop());
    await expectNothingLeft(world);
    await next.during(second.stop());
    await expectNothingLeft(next);
  });
});

describe('all members are lost (scenario 23)', () => {
  it('I/O waits and goes on when they are back; nothing is lost', async () => {
    const world = new EngineWorld();
    const engine = await world.startEngine();
    await world.during(write(engine, 0, 1));
    for (const d of world.daemons.values()) d.kill();
    const waiting = write(engine, 1, 2);
    const reading = read(engine, 0);
    await world.run(10_000);
    expect(engine.waiting).toBe(true);
    expect((await world.during(engine.status([]))).state).toBe('faulted');
    for (const d of world.daemons.values()) d.start();
    await world.during(waiting);
    expect(await world.during(reading)).toBe(1);
    expect(await world.during(read(engine, 1))).toBe(2);
    expect(world.ended).toEqual([]);
    expect(inSync(world, 'n1')).toHaveLength(3);
    await world.during(engine.stop());
    await expectNothingLeft(world);
  });

  it('for too long: I/O fails, and is served again when they are back', async () => {
    const world = new EngineWorld();
    const engine = await world.startEngine({ tuning: { lostDeadlineMs: 5_000 } });
    for (const d of world.daemons.values()) d.kill();
    const before = world.clock.nowMs();
    expect(await world.during(outcome(write(engine, 1, 2)))).toBe('NO_REPLICA');
    expect(world.clock.nowMs() - before).toBeLessThan(6_000);
    expect(engine.refusing).toBe(true);
    expect(await world.during(outcome(read(engine, 1)))).toBe('NO_REPLICA');
    expect(await world.during(outcome(engine.volume.flush()))).toBe('NO_REPLICA');
    for (const d of world.daemons.values()) d.start();
    await world.until(() => !engine.waiting);
    expect(engine.refusing).toBe(false);
    await world.during(write(engine, 1, 3));
    expect(await world.during(read(engine, 1))).toBe(3);
    await world.during(engine.stop());
    await expectNothingLeft(world);
  });

  it('again and again: nothing is left behind by each time', async () => {
    const world = new EngineWorld();
    const engine = await world.startEngine();
    const pending: number[] = [];
    for (let n = 0; n < 4; n += 1) {
      await world.run(3_000);
      pending.push(world.clock.pending);
      expect(world.network.openStreams).toBe(3);
      expect(world.network.openControls).toBe(3);
      for (const d of world.daemons.values()) d.replica.stall(true);
      await world.until(() => engine.waiting);
      for (const d of world.daemons.values()) d.replica.stall(false);
      await world.until(() => !engine.waiting);
    }
    expect(new Set(pending).size).toBe(1);
    await world.during(engine.stop());
    await expectNothingLeft(world);
  });
});
