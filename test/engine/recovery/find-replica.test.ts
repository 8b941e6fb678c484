import { describe, expect, it } from 'vitest';
import { StorageError } from '../../../common/errors.js';
import type { MemberRecord, MembershipRecord } from '../../../engine/core/replica-set.js';
import { findReplica } from '../../../engine/recovery/find-replica.js';
import type { IdentifyReply, ReplicaControl } from '../../../proto/control.js';
import { outcome } from '../../support/engine-bed.js';

type Holds = string | undefined | StorageError;

/** Daemons by address: the replica that each holds (`volume/replica`), none, or why it is
 *  silent. */
class Network {
  readonly open = new Set<string>();
  readonly made: string[] = [];

  constructor(
    readonly daemons: Record<string, Holds>,
    /** addresses under which one daemon is reached, too */
    readonly aliases: Record<string, string> = {},
  ) {}

  readonly dial = (address: string): ReplicaControl => {
    if (address === '') throw new StorageError('INVALID_ARGUMENT', 'no address');
    if (address.startsWith('!')) throw new StorageError('INVALID_ARGUMENT', `${address} is none`);
    this.open.add(address);
    const name = this.aliases[address] ?? address;
    return {
      identify: async () => this.#identify(name),
      createReplica: async ({ replicaId }: { replicaId: string }) => {
        if (name === 'full') throw new StorageError('NO_SPACE', 'full');
        this.made.push(`${replicaId}@${address}`);
      },
      close: () => this.open.delete(address),
    } as unknown as ReplicaControl;
  };

  #identify(name: string): IdentifyReply {
    const holds = this.daemons[name];
    if (holds instanceof StorageError) throw holds;
    const [volume, replicaId] = holds?.split('/') ?? [];
    const replicas = holds === undefined ? [] : [{ volume, replicaId, epoch: 7 }];
    return { daemonId: name, replicas } as unknown as IdentifyReply;
  }
}

const silent = new StorageError('UNAVAILABLE', 'nobody answers');
const member = (address: string, state: MemberRecord['state'] = 'failed'): MemberRecord => ({
  ...{ replicaId: 'r', address, state },
});

function find(network: Network, addresses: readonly string[], own?: MemberRecord) {
  return findReplica({
    ...{ volume: 'v', replicaId: 'r', member: own, addresses, dial: network.dial },
    ...{ sizeBytes: 4096, record: {} as MembershipRecord },
  });
}

describe('where a replica is now (R8)', () => {
  it.each([
    { name: 'where it was last', daemons: { a: 'v/r', b: 'v/x' }, own: member('a'), at: 'a' },
    { name: 'at another address', daemons: { a: 'v/x', b: 'v/r' }, own: member('a'), at: 'b' },
    {
      name: 'though its last address is silent',
      daemons: { a: silent, b: 'v/r' },
      own: member('a'),
      at: 'b',
    },
    {
      name: 'at an address that only the record knows',
      daemons: { z: 'v/r', a: 'v/x', b: undefined },
      own: member('z'),
      at: 'z',
    },
  ])('$name', async ({ daemons, own, at }) => {
    const network = new Network(daemons);
    const found = await find(network, ['a', 'b'], own);
    expect(found.address).toBe(at);
    expect(found.info?.epoch).toBe(7);
    // Only the connection to it is left open.
    expect([...network.open]).toEqual([at]);
    found.control.close();
  });

  it.each([
    { name: 'nobody has it', daemons: { a: 'v/x', b: 'w/r' }, code: 'NOT_FOUND' },
    { name: 'somebody is silent', daemons: { a: 'v/x', b: silent }, code: 'UNAVAILABLE' },
    {
      name: 'scenario 35: another volume at its address',
      daemons: { a: 'w/r', b: undefined },
      code: 'NOT_FOUND',
    },
    {
      name: 'scenario 56: a cloned disk: two have it',
      daemons: { a: 'v/r', b: 'v/r' },
      code: 'CONFLICT',
    },
  ])('$name: $code, and nothing is left open', async ({ daemons, code }) => {
    const network = new Network(daemons);
    expect(await outcome(find(network, ['a', 'b'], member('a')))).toBe(code);
    expect(network.open.size).toBe(0);
  });

  it('one daemon under two names is one', async () => {
    const network = new Network({ a: 'v/r' }, { b: 'a' });
    expect((await find(network, ['b'], member('a'))).address).toBe('a');
    expect([...network.open]).toEqual(['a']);
  });

  it('an address that is none fails by itself and leaves nothing open', async () => {
    const network = new Network({ a: 'v/r' });
    expect((await find(network, ['a'], member('!?'))).address).toBe('a');
    expect([...network.open]).toEqual(['a']);
    const other = new Network({ a: 'v/x' });
    expect(await outcome(find(other, ['a'], member('!?')))).toBe('UNAVAILABLE');
    expect(other.open.size).toBe(0);
  });
});

describe('a new member that was recorded and never made', () => {
  it.each([
    {
      name: 'is made where it is to be',
      daemons: { a: undefined },
      state: 'rebuilding' as const,
      made: ['r@a'],
    },
    {
      name: 'not where another one of the volume is',
      daemons: { a: 'v/x' },
      state: 'rebuilding' as const,
      made: [],
    },
    {
      name: 'not while its daemon is silent',
      daemons: { a: silent },
      state: 'rebuilding' as const,
      made: [],
    },
    {
      name: 'not one that once was in-sync',
      daemons: { a: undefined },
      state: 'failed' as const,
      made: [],
    },
  ])('$name', async ({ daemons, state, made }) => {
    const network = new Network(daemons);
    const found = await find(network, ['a'], member('a', state)).catch(() => undefined);
    expect(network.made).toEqual(made);
    expect(network.open.size).toBe(made.length);
    found?.control.close();
  });

  it('that cannot be made leaves nothing open', async () => {
    const network = new Network({ full: undefined, b: undefined });
    expect(await outcome(find(network, ['b'], member('full', 'rebuilding')))).toBe('NO_SPACE');
    expect(network.open.size).toBe(0);
  });
});
