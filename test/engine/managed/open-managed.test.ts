import { describe, expect, it } from 'vitest';
import type { MemberState } from '../../../engine/core/replica-set.js';
import { Engine } from '../../../engine/engine.js';
import { ManagedOpener } from '../../../engine/opener.js';
import { outcome, turns } from '../../support/engine-bed.js';
import {
  EngineWorld,
  eventsOf,
  expectNothingLeft,
  read,
  write,
} from '../../support/engine-world.js';
import { FakeAuthority } from '../../support/fake-authority.js';

const member = (address: string, state: MemberState = 'in-sync') => ({
  ...{ replicaId: `r-${address}`, address, state },
});

/** A volume on three daemons, and the manager that knows it. */
async function volume(): Promise<{ world: EngineWorld; authority: FakeAuthority }> {
  const world = new EngineWorld();
  const record = {
    ...{ epoch: 0, generation: 1, engineId: '', era: 0 },
    members: world.addresses.map((address) => member(address)),
  };
  for (const address of world.addresses) {
    const { sizeBytes } = world;
    const request = { volume: 'v', replicaId: `r-${address}`, sizeBytes, membership: record };
    await world.daemon(address).calls.createReplica(request);
  }
  return { world, authority: new FakeAuthority(record) };
}

/** The manager attaches an engine on this host. */
function attach(world: EngineWorld, authority: FakeAuthority): Promise<Engine> {
  const config = world.config();
  const environment = world.environment();
  const given = { authority, epoch: authority.attach(), sizeBytes: world.sizeBytes };
  const opener = new ManagedOpener(config, environment, given);
  const onEnded = (error: Error): number => world.ended.push(error as never);
  return world.during(Engine.start(config, environment, { onEnded, opener }));
}

const inSyncOf = (authority: FakeAuthority): string[] =>
  authority.record.members.filter((m) => m.state === 'in-sync').map((m) => m.address);

/** Daemons silent for so long that no engine before can hold a lease. */
function later(world: EngineWorld): EngineWorld {
  const next = world.other();
  for (const d of next.daemons.values()) d.silentMs = 60_000;
  return next;
}

describe('a volume whose record the manager keeps', () => {
  it('is opened, and its record is in the authority before it is on the members (P3)', async () => {
    const { world, authority } = await volume();
    let before: number | undefined;
    world.network.before = async (call) => {
      if (call.endsWith(':setMembership')) before ??= authority.stored.length;
    };
    const engine = await attach(world, authority);
    expect(before).toBe(1);
    expect(authority.record).toMatchObject({ epoch: 1, generation: 2, engineId: engine.engineId });
    expect(world.daemon('n2').membership).toEqual(authority.record);
    await world.during(write(engine, 0, 1));
    await world.during(engine.stop());
    await expectNothingLeft(world);
  });

  it('a member that cannot be opened is excluded, durably, before the volume serves', async () => {
    const { world, authority } = await volume();
    world.daemon('n2').kill();
    const engine = await attach(world, authority);
    expect(inSyncOf(authority)).toEqual(['n1', 'n3']);
    await world.during(write(engine, 0, 1));
    world.daemon('n2').start();
    await world.until(() => inSyncOf(authority).length === 3);
    expect(world.daemon('n2').replica.bytes[0]).toBe(1);
    await world.during(engine.stop());
    await expectNothingLeft(world);
  });

  it('P10: those that lost power do not serve while one that did not is missing', async () => {
    const { world, authority } = await volume();
    const engine = await attach(world, authority);
    await world.during(write(engine, 0, 1));
    world.vanish();
    const next = later(world);
    for (const d of next.daemons.values()) d.losePower();
    for (const address of ['n1', 'n2']) next.daemon(address).start();
    expect(await outcome(attach(next, authority))).toBe('MEMBERSHIP_UNPROVEN');
    expect(inSyncOf(authority)).toHaveLength(3);
    await expectNothingLeft(next);
    next.daemon('n3').start();
    const second = await attach(next, authority);
    expect(authority.record.era).toBe(1);
    await next.during(second.stop());
    await expectNothingLeft(next);
  });

  it('P12: a manager whose state is older than a replica opens nothing', async () => {
    const { world, authority } = await volume();
    const backup = authority.record;
    const engine = await attach(world, authority);
    world.daemon('n3').kill();
    await world.during(write(engine, 0, 1));
    await world.during(engine.stop());
    authority.record = backup;
    const next = later(world);
    next.daemon('n3').start();
    expect(await outcome(attach(next, authority))).toBe('MEMBERSHIP_UNPROVEN');
    await expectNothingLeft(next);
  });
});

describe('R5: two engines', () => {
  it('one that was attached later fences the earlier; that one gives up', async () => {
    const { world, authority } = await volume();
    const first = await attach(world, authority);
    const next = later(world);
    const second = await attach(next, authority);
    expect(await world.during(outcome(write(first, 0, 1)))).toBe('STALE_EPOCH');
    expect(world.ended).toHaveLength(1);
    await next.during(write(second, 0, 2));
    await world.during(first.stop());
    await next.during(second.stop());
    await expectNothingLeft(world);
    await expectNothingLeft(next);
  });

  it('one that was attached in vain does not begin', async () => {
    const { world, authority } = await volume();
    world.network.before = async (call) => {
      if (call === 'n1:connectIo') authority.attach();
    };
    expect(await outcome(attach(world, authority))).toBe('STALE_EPOCH');
    await expectNothingLeft(world);
  });
});

describe('an engine that lost its members', () => {
  async function lost() {
    const { world, authority } = await volume();
    const engine = await attach(world, authority);
    await world.during(write(engine, 0, 1));
    // The first that is missed is being excluded when the last is: that commit is still to come.
    for (const d of world.daemons.values()) d.kill();
    expect(engine.waiting).toBe(true);
    return { world, authority, engine };
  }

  it.each([
    { name: 'all is well', fates: [] },
    { name: 'the request for an epoch is lost', fates: ['lost-request' as const] },
    { name: 'the answer is lost', fates: ['lost-answer' as const] },
    { name: 'the answer to the first record is lost', fates: ['stored', 'lost-answer'] as const },
  ])('takes an epoch of its own and goes on: $name', async ({ fates }) => {
    const { world, authority, engine } = await lost();
    for (const d of world.daemons.values()) d.start();
    await turns(10);
    authority.fates = [...fates];
    await world.until(() => !engine.waiting && inSyncOf(authority).length === 3);
    expect(world.ended).toEqual([]);
    expect(authority.record.engineId).toBe(engine.engineId);
    expect(world.daemon('n1').epoch).toBe(authority.record.epoch);
    expect(await world.during(read(engine, 0))).toBe(1);
    await world.during(write(engine, 1, 2));
    await world.during(engine.stop());
    await expectNothingLeft(world);
  });

  it('goes on without a member that does not come back', async () => {
    const { world, authority, engine } = await lost();
    for (const address of ['n2', 'n3']) world.daemon(address).start();
    await world.until(() => !engine.waiting);
    expect(inSyncOf(authority)).toEqual(['n2', 'n3']);
    expect(await world.during(read(engine, 0))).toBe(1);
    await world.during(engine.stop());
    await expectNothingLeft(world);
  });

  it('gives up when another engine was attached meanwhile', async () => {
    const { world, authority, engine } = await lost();
    for (const d of world.daemons.values()) d.start();
    await turns(10);
    expect(authority.record.generation).toBe(3);
    authority.attach();
    await world.until(() => world.ended.length > 0 || !engine.waiting);
    expect(world.ended.map((e) => e.code)).toEqual(['STALE_EPOCH']);
    await world.during(engine.stop());
    await expectNothingLeft(world);
  });

  it('tries again when its own last commit arrives after all', async () => {
    const { world, authority, engine } = await lost();
    const { record } = authority;
    for (const d of world.daemons.values()) d.start();
    await turns(10);
    // As if it had been on its way for longer: between the look and the new epoch.
    const late = authority.record;
    authority.record = record;
    authority.onRead = () => {
      authority.record = late;
      authority.onRead = () => undefined;
    };
    await world.until(() => !engine.waiting || world.ended.length > 0);
    expect(world.ended).toEqual([]);
    expect(await world.during(read(engine, 0))).toBe(1);
    await world.during(engine.stop());
    await expectNothingLeft(world);
  });

  it('tries again when the membership changed while it opened', async () => {
    const { world, authority, engine } = await lost();
    for (const d of world.daemons.values()) d.start();
    let changed = false;
    world.network.before = async (call) => {
      if (call !== 'n2:connectIo' || changed) return;
      changed = true;
      const { record } = authority;
      authority.record = { ...record, generation: record.generation + 1 };
    };
    await world.until(() => !engine.waiting || world.ended.length > 0);
    expect(world.ended).toEqual([]);
    expect(eventsOf(engine)).toContain('back');
    expect(await world.during(read(engine, 0))).toBe(1);
    await world.during(engine.stop());
    await expectNothingLeft(world);
  });
});

it('scenario 26: the manager is away: writes to all go on, an exclusion waits', async () => {
  const { world, authority } = await volume();
  const engine = await attach(world, authority);
  authority.fates = Array(200).fill('lost-request');
  await world.during(write(engine, 0, 1));
  world.daemon('n3').kill();
  expect(await world.during(outcome(write(engine, 0, 2)))).toBe('DEADLINE');
  expect(eventsOf(engine)).toContain('stalled');
  authority.fates = [];
  await world.during(write(engine, 0, 3));
  expect(inSyncOf(authority)).toEqual(['n1', 'n2']);
  expect(await world.during(read(engine, 0))).toBe(3);
  await world.during(engine.stop());
  await expectNothingLeft(world);
});
