/** A member that is taken off while an attempt to bring it back is under way. */
import { describe, expect, it } from 'vitest';
import { CopiesAlone } from '../../../engine/core/membership-authority.js';
import { MembershipKeeper } from '../../../engine/core/membership-keeper.js';
import { ReplicaSet } from '../../../engine/core/replica-set.js';
import type { DataPath } from '../../../engine/data-path.js';
import { DEFAULT_TUNING } from '../../../engine/engine-config.js';
import type { EngineEnvironment } from '../../../engine/engine-environment.js';
import { EventLog } from '../../../engine/events/event-log.js';
import { MemberReturns } from '../../../engine/recovery/member-returns.js';
import type { IdentifyReply, ReplicaControl } from '../../../proto/control.js';
import { ManualClock } from '../../common/manual-clock.js';

const AT = '127.0.0.1:2';

/** Member `b` is out; its daemon has been asked, and has not answered yet. */
async function bed() {
  const clock = new ManualClock();
  const record = {
    ...{ epoch: 3, generation: 7, engineId: 'e', era: 0 },
    members: [
      { replicaId: 'a', address: '127.0.0.1:1', state: 'in-sync' as const },
      { replicaId: 'b', address: AT, state: 'failed' as const },
    ],
  };
  const keeper = new MembershipKeeper({
    ...{ set: new ReplicaSet(record), authority: new CopiesAlone(record), clock },
    ...{ settleDeadlineMs: 1, copies: { store: async () => new Map() } },
    events: {
      ...{ onFailed: () => undefined, onStored: () => undefined, onStalled: () => undefined },
      ...{ onFaulted: () => undefined, onFenced: () => undefined },
    },
  });
  const opened: string[] = [];
  let answer: (reply: IdentifyReply) => void = () => undefined;
  const control = (address: string): ReplicaControl =>
    ({
      identify: () =>
        new Promise<IdentifyReply>((resolve) => {
          answer = resolve;
        }),
      openReplica: async () => {
        opened.push(address);
        throw new Error('nobody should get here');
      },
      close: () => undefined,
    }) as unknown as ReplicaControl;
  const events = new EventLog(clock);
  const returns = new MemberReturns({
    ...{ events, keeper, engineId: 'e', epoch: 3, known: new Map() },
    config: {
      ...{ volume: 'v', sizeBytes: undefined, replicas: [], salvage: false, tls: undefined },
      tuning: DEFAULT_TUNING,
    },
    environment: { clock, network: { control } } as unknown as EngineEnvironment,
    data: { volume: { sizeBytes: 4096 } } as unknown as DataPath,
    slow: { backOffMs: () => 0 } as never,
    ...{ signal: new AbortController().signal },
    ...{ onBroken: () => undefined, onHeard: () => undefined },
  });
  returns.start('b', 0);
  clock.advance(1);
  await new Promise(setImmediate);
  const found = {
    ...{ daemonId: 'd', incarnation: 'i', bootId: 'b', clusterId: 'c', disks: [] },
    replicas: [{ volume: 'v', replicaId: 'b' }],
  } as unknown as IdentifyReply;
  return { clock, returns, events, opened, answer: () => answer(found) };
}

describe('taking off a member that is on its way back', () => {
  it('waits for the attempt, which goes no further', async () => {
    const { returns, answer, opened, events } = await bed();
    let ended = false;
    const released = returns.release('b').then(() => {
      ended = true;
    });
    await new Promise(setImmediate);
    expect(ended).toBe(false);
    answer();
    await released;
    expect(opened).toEqual([]);
    expect(events.events()).toEqual([]);
  });

  it('begins no new attempt, also when its exclusion is stored meanwhile', async () => {
    const { returns, answer, clock, opened } = await bed();
    const released = returns.release('b');
    answer();
    await released;
    returns.start('b');
    clock.advance(60_000);
    await new Promise(setImmediate);
    expect(opened).toEqual([]);
    expect(clock.pending).toBe(0);
  });

  it('goes on when it is wanted after all', async () => {
    const { returns, answer, clock } = await bed();
    const released = returns.release('b');
    answer();
    await released;
    returns.want('b');
    expect(clock.pending).toBe(1);
  });
});
