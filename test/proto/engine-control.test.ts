import { afterEach, describe, expect, it } from 'vitest';
import { GIB } from '../../common/units.js';
import {
  EngineControlClient,
  type EngineStatus,
  engineControlService,
} from '../../proto/control.js';
import { cleanUp, later, startServer } from './transport/harness.js';

afterEach(cleanUp);

const STATUS: EngineStatus = {
  volume: 'v1',
  sizeBytes: GIB,
  epoch: 3,
  generation: 9,
  state: 'degraded',
  reason: 'r-2 is rebuilding',
  replicas: [
    {
      replicaId: 'r-1',
      address: 'unix:/run/r1',
      state: 'rebuilding',
      reason: '',
      allocatedBytes: 5,
      readLatencyMs: 0.25,
      writeLatencyMs: 1.5,
      inFlight: 64,
      local: true,
      progress: {
        phase: 'copying',
        doneBytes: 5,
        totalBytes: 2 ** 50,
        bytesPerSecond: 7,
        etaMs: 0,
      },
      recordedState: 'failed',
      stateMs: 12_000,
      attempts: 3,
      nextTryMs: 450,
    },
  ],
  uris: ['nbd+unix:///v1?socket=/run/v1'],
  engineId: 'e-1',
  wallMs: 1.7e12,
  stateMs: 3_600_000,
  parkedOperations: 14,
  refusing: true,
  ioTimeoutMs: 60_000,
  unequalExtents: 640,
};

describe('control of an engine', () => {
  it('engine control: every call, with what it carries', async () => {
    let stopped = 0;
    const asked: unknown[] = [];
    const event = {
      ...{ seq: 7, wallMs: 1e12, lastWallMs: 1e12 + 5, count: 2, kind: 'excluded', text: 'why' },
      ...{
        replica: 'r-1',
        code: 'IO_ERROR',
        errno: 'EIO',
        generation: 42,
        bytes: 9,
        source: 'r-2',
      },
    };
    const report = {
      ...{ state: 'done' as const, startedMs: 1, finishedMs: 2, provedMs: 3, doneBytes: 4 },
      ...{ totalBytes: 5, hashedBytes: 6, badBlocks: 7, divergentBlocks: 8, undecidedBlocks: 9 },
      ...{ lostBlocks: 10, repairedBlocks: 11, nextExtent: 12 },
    };
    const service = engineControlService({
      status: async () => STATUS,
      stop: async () => {
        stopped += 1;
        return {};
      },
      events: async (request) => {
        asked.push(request);
        return { events: [event] };
      },
      addReplica: async (request) => {
        asked.push(request);
        return { replicaId: 'r-new' };
      },
      removeReplica: async (request) => {
        asked.push(request);
        return { dataDeleted: false, dataAddress: 'h:2', note: 'in use' };
      },
      scrub: async (request) => {
        asked.push(request);
        return report;
      },
    });
    const server = await startServer({ services: [service] });
    const client = new EngineControlClient({ address: server.listener.address });
    later(() => client.close());
    expect(await client.status()).toEqual(STATUS);
    expect(await client.stop()).toEqual({});
    expect(stopped).toBe(1);
    expect(await client.events({ afterSeq: 3 })).toEqual({ events: [event] });
    expect(await client.addReplica({ address: 'h:1' })).toEqual({ replicaId: 'r-new' });
    const removal = { replicaId: 'r-1', deleteData: true, address: 'h:2' };
    const removed = { dataDeleted: false, dataAddress: 'h:2', note: 'in use' };
    expect(await client.removeReplica(removal)).toEqual(removed);
    expect(await client.scrub({ action: 'start' })).toEqual(report);
    const sent = [{ afterSeq: 3 }, { address: 'h:1' }, removal, { action: 'start' }];
    expect(asked).toEqual(sent);
    const wrong = { action: 'begin' as 'start' };
    await expect(client.scrub(wrong)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });
});
