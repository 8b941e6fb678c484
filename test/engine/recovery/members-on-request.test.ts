/** Members added and taken off while the whole engine runs, over daemons in memory. */
import { describe, expect, it } from 'vitest';
import type { Engine } from '../../../engine/engine.js';
import { outcome } from '../../support/engine-bed.js';
import { EngineWorld, expectNothingLeft, inSync, read, write } from '../../support/engine-world.js';

const OLD = ['localhost:1', 'localhost:2', 'localhost:3'] as const;
const NEW = ['localhost:4', 'localhost:5', 'localhost:6'] as const;

async function running(): Promise<{ world: EngineWorld; engine: Engine }> {
  const world = new EngineWorld([...OLD]);
  for (const address of NEW) world.addDaemon(address);
  const engine = await world.startEngine({ tuning: { cleanIdleMs: 100, cleanIntervalMs: 100 } });
  for (const block of [0, 1, 2]) await world.during(write(engine, block, block + 1));
  return { world, engine };
}

const idAt = async (world: EngineWorld, engine: Engine, address: string): Promise<string> => {
  const { replicas } = await world.during(engine.status([]));
  return replicas.find((replica) => replica.address === address)?.replicaId ?? 'nobody';
};

async function leave(world: EngineWorld, engine: Engine, address: string, deleteData = false) {
  const replicaId = await idAt(world, engine, address);
  return world.during(engine.members.leave({ replicaId, deleteData, address: '' }));
}

/** Adds a member and waits until it is in-sync. */
async function join(world: EngineWorld, engine: Engine, address: string): Promise<void> {
  const replicaId = await world.during(engine.members.join(address));
  const isIn = (): boolean =>
    engine.events.events().some((e) => e.replica === replicaId && e.kind === 'in-sync');
  await world.until(isIn);
}

/** As `replica replace` does it. */
async function replace(world: EngineWorld, engine: Engine, from: string, to: string) {
  await join(world, engine, to);
  await leave(world, engine, from);
}

async function expectBlocks(world: EngineWorld, engine: Engine, values: readonly number[]) {
  for (const [block, value] of values.entries()) {
    expect(await world.during(read(engine, block))).toBe(value);
  }
}

async function end(world: EngineWorld, engine: Engine): Promise<void> {
  await world.during(engine.stop());
  await expectNothingLeft(world);
}

describe('members on request', () => {
  it('P3: one in use is taken off under writes and gets nothing more', async () => {
    const { world, engine } = await running();
    const writing = write(engine, 0, 7);
    await leave(world, engine, OLD[2]);
    await world.during(writing);
    await world.during(write(engine, 1, 8));
    await world.run(120_000);
    expect(inSync(world, OLD[0])).toEqual([OLD[0], OLD[1]]);
    expect(world.daemon(OLD[2]).replica.bytes[4096]).toBe(2);
    await expectBlocks(world, engine, [7, 8, 3]);
    await end(world, engine);
  });

  it('one that is catching up is taken off: no link of nobody stays behind', async () => {
    const { world, engine } = await running();
    world.daemon(OLD[2]).kill();
    await world.during(write(engine, 0, 9));
    for (const address of [OLD[0], OLD[1]]) world.daemon(address).replica.stall(true);
    world.daemon(OLD[2]).start();
    const status = async () => (await world.during(engine.status([]))).replicas.at(-1)?.state;
    for (let n = 0; n < 100 && (await status()) !== 'rebuilding'; n += 1) await world.run(50);
    expect(await status()).toBe('rebuilding');
    const left = leave(world, engine, OLD[2]);
    await world.run(100);
    for (const address of [OLD[0], OLD[1]]) world.daemon(address).replica.stall(false);
    await left;
    await world.during(write(engine, 1, 10));
    await expectBlocks(world, engine, [9, 10, 3]);
    expect((await world.during(engine.status([]))).state).toBe('healthy');
    await end(world, engine);
  });

  it('R4: the last in-sync one stays, whatever is asked for', async () => {
    const { world, engine } = await running();
    await leave(world, engine, OLD[0]);
    await leave(world, engine, OLD[1]);
    expect(await outcome(leave(world, engine, OLD[2]))).toBe('CONFLICT');
    await expectBlocks(world, engine, [1, 2, 3]);
    await end(world, engine);
  });

  it('all replaced: an engine that loses them finds them where its record names them', async () => {
    const { world, engine } = await running();
    for (const [n, from] of OLD.entries()) await replace(world, engine, from, NEW[n] ?? '');
    for (const address of NEW) world.daemon(address).kill();
    await world.run(1_000);
    expect(engine.waiting).toBe(true);
    const waiting = write(engine, 0, 11);
    // The old copies are there all the time, and are not the volume any more (R4).
    await world.run(5_000);
    expect(engine.waiting).toBe(true);
    for (const address of NEW) world.daemon(address).start();
    await world.during(waiting);
    await expectBlocks(world, engine, [11, 2, 3]);
    await end(world, engine);
  });

  it('all replaced: a start that names the old daemons is led to the new ones', async () => {
    const { world, engine } = await running();
    for (const [n, from] of OLD.entries()) await replace(world, engine, from, NEW[n] ?? '');
    await world.during(write(engine, 2, 12));
    await end(world, engine);
    const next = await world.startEngine();
    await expectBlocks(world, next, [1, 2, 12]);
    const { replicas } = await world.during(next.status([]));
    expect(replicas.map(({ address }) => address).sort()).toEqual([...NEW]);
    await end(world, next);
  });

  it('a daemon whose old copy was deleted takes a new one', async () => {
    const { world, engine } = await running();
    await leave(world, engine, OLD[2]);
    expect(await outcome(world.during(engine.members.join(OLD[2])))).toBe('ALREADY_EXISTS');
    await join(world, engine, NEW[0]);
    const left = await leave(world, engine, NEW[0], true);
    expect(left).toMatchObject({ dataDeleted: true });
    await join(world, engine, NEW[0]);
    await expectBlocks(world, engine, [1, 2, 3]);
    await end(world, engine);
  });
});

describe('what an engine shows of itself', () => {
  it('names its members also while all of them are gone', async () => {
    const { world, engine } = await running();
    for (const address of OLD) world.daemon(address).kill();
    const writing = outcome(write(engine, 0, 13));
    await world.run(2_000);
    const status = await world.during(engine.status([]));
    expect(status).toMatchObject({ state: 'faulted', refusing: false, parkedOperations: 1 });
    expect(status.replicas.map((r) => [r.address, r.state, r.recordedState])).toEqual(
      OLD.map((address) => [address, 'failed', 'in-sync']),
    );
    expect(status.replicas.every((r) => r.reason !== '')).toBe(true);
    expect(status.stateMs).toBeGreaterThan(1_000);
    await world.run(60_000);
    expect(await writing).toBe('NO_REPLICA');
    expect(await world.during(engine.status([]))).toMatchObject({ refusing: true });
    await end(world, engine);
  });
});
