/** Members are found where the newest record names them, not only where they were given (R8). */
import { describe, expect, it } from 'vitest';
import { StorageError } from '../../../common/errors.js';
import { GIB } from '../../../common/units.js';
import { askDaemons } from '../../../engine/standalone/ask-daemons.js';
import type { IdentifyReply, ReplicaControl, ReplicaInfo } from '../../../proto/control.js';

interface Daemon {
  readonly id?: string;
  readonly replica?: string;
  readonly generation?: number;
  /** replica=address */
  readonly members?: readonly string[];
}

function replyOf(address: string, daemon: Daemon): IdentifyReply {
  const members = (daemon.members ?? []).map((text) => {
    const [replicaId = '', at = ''] = text.split('=');
    return { replicaId, address: at, state: 'in-sync' as const };
  });
  const membership = {
    epoch: 3,
    generation: daemon.generation ?? 1,
    engineId: 'e',
    era: 0,
    members,
  };
  const info: ReplicaInfo = {
    ...{ volume: 'v', replicaId: daemon.replica ?? '', diskId: 'd', sizeBytes: GIB, epoch: 3 },
    ...{ membership, allocatedBytes: 0, dirtyRegions: 0, failed: false, failedReason: '' },
    ...{ lossy: false, restartedDirty: false, incarnation: 'i' },
  };
  return {
    ...{ daemonId: daemon.id ?? `daemon ${address}`, incarnation: 'i', bootId: 'b' },
    ...{ clusterId: 'c', disks: [], replicas: daemon.replica === undefined ? [] : [info] },
  };
}

/** Which addresses are asked, and which answers come back. */
async function ask(
  given: readonly string[],
  daemons: Readonly<Record<string, Daemon>>,
  last: readonly string[] = [],
): Promise<{ asked: string[]; answers: string[] }> {
  const asked: string[] = [];
  const dial = (address: string): ReplicaControl =>
    ({
      identify: async () => {
        asked.push(address);
        const daemon = daemons[address];
        if (daemon === undefined) throw new StorageError('UNAVAILABLE', `nobody at ${address}`);
        return replyOf(address, daemon);
      },
      close: () => undefined,
    }) as unknown as ReplicaControl;
  const config = { volume: 'v', replicas: given, tls: undefined };
  const members = last.map((address, n) => ({
    replicaId: `m${n}`,
    address,
    state: 'in-sync' as const,
  }));
  const answers = await askDaemons(config, dial, members);
  return {
    asked,
    answers: answers.map(
      ({ address, reply }) => `${address}${reply === undefined ? ' silent' : ''}`,
    ),
  };
}

const at = (n: number): string => `127.0.0.1:${n}`;

describe('asking replica daemons', () => {
  it('asks those that were given, each once, and no others while nobody is missing', async () => {
    const members = [`a=${at(1)}`, `b=${at(2)}`];
    const daemons = { [at(1)]: { replica: 'a', members }, [at(2)]: { replica: 'b', members } };
    const { asked, answers } = await ask([at(1), at(2)], daemons);
    expect(asked).toEqual([at(1), at(2)]);
    expect(answers).toEqual([at(1), at(2)]);
  });

  it('follows the newest record to a copy that was put elsewhere since', async () => {
    const old = { replica: 'b', generation: 1, members: [`a=${at(1)}`, `b=${at(2)}`] };
    const now = { generation: 5, members: [`a=${at(1)}`, `d=${at(4)}`] };
    const daemons = {
      [at(1)]: { replica: 'a', ...now },
      [at(2)]: old,
      [at(4)]: { replica: 'd', ...now },
    };
    const { answers } = await ask([at(1), at(2)], daemons);
    expect(answers).toEqual([at(1), at(2), at(4)]);
  });

  it('follows it step by step when every given daemon has only an old copy', async () => {
    const daemons = {
      [at(1)]: { replica: 'a', generation: 1, members: [`a=${at(1)}`, `b=${at(2)}`] },
      [at(2)]: { replica: 'b', generation: 2, members: [`b=${at(2)}`, `c=${at(3)}`] },
      [at(3)]: { replica: 'c', generation: 3, members: [`c=${at(3)}`, `d=${at(4)}`] },
      [at(4)]: { replica: 'd', generation: 3, members: [`c=${at(3)}`, `d=${at(4)}`] },
    };
    expect((await ask([at(1)], daemons)).answers).toEqual([at(1), at(2), at(3), at(4)]);
  });

  it('an address that nobody gave and nobody answers at says nothing', async () => {
    const members = [`a=${at(1)}`, `b=${at(2)}`];
    const { asked, answers } = await ask([at(1)], { [at(1)]: { replica: 'a', members } });
    expect(asked).toEqual([at(1), at(2)]);
    expect(answers).toEqual([at(1)]);
  });

  it('a daemon under a second name is no second daemon', async () => {
    const members = [`a=${at(1)}`, `b=localhost:2`];
    const blank = { id: 'the second' };
    const daemons = { [at(1)]: { replica: 'a', members }, [at(2)]: blank, 'localhost:2': blank };
    expect((await ask([at(1), at(2)], daemons)).answers).toEqual([at(1), at(2)]);
  });

  it('keeps the exposure rule: a record leads to no plain TCP beyond this host', async () => {
    const members = [`a=${at(1)}`, 'b=10.0.0.2:1', 'c=nonsense'];
    const { asked } = await ask([at(1)], { [at(1)]: { replica: 'a', members } });
    expect(asked).toEqual([at(1)]);
  });

  it('opened again: asks where its members were last, and silence there counts', async () => {
    const { asked, answers } = await ask([at(1)], {}, [at(1), at(4), '10.0.0.9:1']);
    expect(asked).toEqual([at(1), at(4)]);
    expect(answers).toEqual([`${at(1)} silent`, `${at(4)} silent`]);
  });
});
