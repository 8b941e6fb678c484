import { describe, expect, it } from 'vitest';
import { LiveLine } from '../../cli/live-line.js';
import { pollVolume } from '../../cli/poll-volume.js';
import {
  changeReplicas,
  dataText,
  type ReplicaChange,
  waitingView,
} from '../../cli/replica-change.js';
import { renderReplicas } from '../../cli/replica-text.js';
import { StorageError } from '../../common/errors.js';
import type { EngineReplicaStatus, EngineStatus } from '../../proto/control.js';
import { HastyClock } from './fake-installation.js';
import { FakeVolume, replicaWith, statusWith, threeCopies } from './volume-facts.js';

const NEW = '10.0.0.4:9601';
const PROGRESS = {
  ...{ phase: 'copying' as const, doneBytes: 1024, totalBytes: 4096 },
  ...{ bytesPerSecond: 512, etaMs: 6_000 },
};

const added = (state: EngineReplicaStatus['state']): EngineReplicaStatus =>
  replicaWith({ replicaId: 'r-new', address: NEW, state, recordedState: 'rebuilding' });

/** A volume whose new copy is in sync at the third look. */
function bed(options: { readonly wait: boolean }) {
  const did: string[] = [];
  const notes: string[] = [];
  let looks = 0;
  const status = (): EngineStatus => {
    looks += 1;
    const state = looks > 4 ? 'in-sync' : 'rebuilding';
    return statusWith({ replicas: [...threeCopies(), added(state)] });
  };
  const connect = () =>
    new FakeVolume({
      status,
      addReplica: (address) => {
        did.push(`add ${address}`);
        return 'r-new';
      },
      removeReplica: ({ replicaId, deleteData }) => {
        did.push(`remove ${replicaId}${deleteData ? ' with its data' : ''}`);
        return {
          dataDeleted: deleteData,
          dataAddress: deleteData ? '' : '10.0.0.2:9601',
          note: '',
        };
      },
    });
  const clock = new HastyClock(1000);
  const change: ReplicaChange = {
    ...{ volume: 'demo', access: { engine: 'unix:/x', connect }, address: NEW, clock },
    ...{ deleteData: false, wait: options.wait, note: (text: string) => void notes.push(text) },
    live: new LiveLine({ clock, columns: undefined, write: () => undefined }),
  };
  return { did, notes, change };
}

describe('replica replace, step by step', () => {
  const steps = [
    { kind: 'add' },
    { kind: 'wait', replicaId: undefined },
    { kind: 'remove', replicaId: 'r-2' },
  ] as const;

  it('adds, waits until the new copy is in sync, and only then takes the old one off', async () => {
    const { did, notes, change } = bed({ wait: true });
    const done = await changeReplicas(steps, change);
    expect(did).toEqual([`add ${NEW}`, 'remove r-2']);
    expect(notes.map((text) => text.split(/[;,]/)[0])).toEqual([
      `r-new is added at ${NEW}`,
      'r-new is in sync',
      'r-2 is taken off',
    ]);
    expect(done).toMatchObject({ added: 'r-new', removed: 'r-2', left: 0 });
  });

  it('without waiting leaves the rest to a repetition', async () => {
    const { did, change } = bed({ wait: false });
    const done = await changeReplicas(steps, change);
    expect(did).toEqual([`add ${NEW}`]);
    expect(done).toEqual({ added: 'r-new', removed: undefined, data: undefined, left: 2 });
  });

  it('says where the data stays, and how to delete it', () => {
    const at = { volume: 'demo', engine: 'unix:/x' };
    const stays = { dataDeleted: false, dataAddress: '10.0.0.2:9601', note: 'CONFLICT: in use' };
    expect(dataText('r-2', at, stays)).toBe(
      '; its data could not be deleted (CONFLICT: in use) and stays at 10.0.0.2:9601, ' +
        'to delete it: aurochs replica remove demo r-2 --delete-data ' +
        '--address 10.0.0.2:9601 --engine unix:/x',
    );
    expect(dataText('r-2', at, { ...stays, dataDeleted: true })).toBe(', its data is deleted');
  });
});

describe('waiting for a copy', () => {
  const view = (part: Partial<EngineReplicaStatus>, volume: Partial<EngineStatus> = {}) =>
    waitingView(statusWith({ ...volume, replicas: [replicaWith(part)] }), 'r-1');

  it.each([
    ['in sync', {}, {}, { done: true, line: '' }],
    [
      'copying: bar, rate, time left',
      { state: 'rebuilding' as const, progress: PROGRESS },
      {},
      { line: 'r-1 copying [######..................]  25% 1KiB of 4KiB, 512B/s, 6 s left' },
    ],
    [
      'not reached: why, and when it is tried again',
      {
        ...{ state: 'failed' as const, recordedState: 'rebuilding' as const },
        ...{ reason: 'UNAVAILABLE: refused', attempts: 2, nextTryMs: 3_000 },
      },
      {},
      { line: 'r-1 is tried again in 3 s, attempt 3; last: UNAVAILABLE: refused' },
    ],
    [
      'the volume is lost meanwhile',
      { state: 'failed' as const },
      { state: 'faulted' as const, reason: 'nobody answers' },
      { line: 'demo does not serve: nobody answers' },
    ],
  ])('%s', (_name, part, volume, want) => {
    expect(view(part, volume)).toMatchObject({ done: false, ...want });
  });

  it('ends when somebody took it off', () => {
    expect(() => waitingView(statusWith(), 'r-9')).toThrow(
      expect.objectContaining({ code: 'NOT_FOUND' }),
    );
  });

  it('shows it short in replica ls', () => {
    const long = `UNAVAILABLE: ${'x'.repeat(100)}`;
    const rows = renderReplicas([
      replicaWith({ replicaId: 'r-1', state: 'rebuilding', progress: PROGRESS }),
      replicaWith({ replicaId: 'r-2', state: 'failed', recordedState: 'failed', reason: long }),
      replicaWith({ replicaId: 'r-3', state: 'failed', recordedState: 'rebuilding' }),
    ]).split('\n');
    expect(rows[1]).toMatch(/^r-1 +rebuilding 25% \(6 s left\) +/);
    expect(rows[2]).toMatch(/^r-2 +failed: UNAVAILABLE: x{46}… +/);
    expect(rows[3]).toMatch(/^r-3 +new +/);
  });
});

describe('polling a volume', () => {
  it('goes on through a restart of the engine, and says so once', async () => {
    const said: Array<string | undefined> = [];
    let connections = 0;
    let closed = 0;
    const connect = () => {
      connections += 1;
      const away = connections > 1 && connections < 4;
      const status = (): EngineStatus => {
        if (away) throw new StorageError('UNAVAILABLE', 'connection refused');
        return statusWith();
      };
      const onClose = (): void => {
        closed += 1;
      };
      return new FakeVolume({ status, onClose });
    };
    const polling = {
      ...{ engine: 'unix:/x', connect, clock: new HastyClock(1000), everyMs: 500 },
      onSilent: (reason: string | undefined) => void said.push(reason),
    };
    let looks = 0;
    const found = await pollVolume('demo', polling, async (client) => {
      await client.status();
      looks += 1;
      if (looks === 2) throw new StorageError('DEADLINE', 'no answer');
      return looks === 3 ? 'seen' : undefined;
    });
    expect(found).toBe('seen');
    expect(said).toEqual(['no answer', undefined]);
    expect(closed).toBe(connections);
  });

  it('does not wait for an engine that was never there', async () => {
    const connect = () =>
      new FakeVolume({
        status: () => {
          throw new StorageError('UNAVAILABLE', 'connection refused');
        },
      });
    const polling = { engine: 'unix:/x', connect, clock: new HastyClock(1000), everyMs: 500 };
    await expect(pollVolume('demo', polling, async () => 1)).rejects.toMatchObject({
      code: 'UNAVAILABLE',
      details: { hint: expect.stringContaining('demo.events.jsonl') },
    });
  });

  it('ends with any other error', async () => {
    const connect = () => new FakeVolume({ status: () => statusWith() });
    const polling = { engine: 'unix:/x', connect, clock: new HastyClock(1000), everyMs: 500 };
    const wrong = pollVolume('demo', polling, async () => {
      throw new StorageError('NOT_FOUND', 'taken off');
    });
    await expect(wrong).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });
});
