import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { StorageError } from '../../../common/errors.js';
import { ReplicaSessionState } from '../../../replica/service/replica-session-state.js';

function codeOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (error instanceof StorageError) return error.code;
    throw error;
  }
  return 'OK';
}

function openedBy(epoch: number, engineId: string): ReplicaSessionState {
  const state = new ReplicaSessionState('v1', 'r1', { epoch: 0, engineId: '' });
  state.claim({ epoch, engineId });
  state.persisted({ epoch, engineId });
  return state;
}

const HELLO = { protocolVersion: 1, volume: 'v1', replicaId: 'r1', epoch: 5, engineId: 'a' };

describe('who may open a replica (P4, R5)', () => {
  const cases = [
    { name: 'a higher epoch', open: { epoch: 6, engineId: 'b' }, want: 'OK' },
    { name: 'the same epoch and engine', open: { epoch: 5, engineId: 'a' }, want: 'OK' },
    {
      name: 'the same epoch, other engine',
      open: { epoch: 5, engineId: 'b' },
      want: 'STALE_EPOCH',
    },
    { name: 'a lower epoch', open: { epoch: 4, engineId: 'a' }, want: 'STALE_EPOCH' },
    { name: 'epoch 0', open: { epoch: 0, engineId: 'a' }, want: 'INVALID_ARGUMENT' },
    { name: 'a fraction', open: { epoch: 5.5, engineId: 'a' }, want: 'INVALID_ARGUMENT' },
    { name: 'past 2^53', open: { epoch: 2 ** 53, engineId: 'a' }, want: 'INVALID_ARGUMENT' },
    { name: 'an empty engine id', open: { epoch: 9, engineId: '' }, want: 'INVALID_ARGUMENT' },
    { name: 'a control byte', open: { epoch: 9, engineId: 'a\n' }, want: 'INVALID_ARGUMENT' },
  ];
  it.each(cases)('$name -> $want', ({ open, want }) => {
    expect(codeOf(() => openedBy(5, 'a').claim(open))).toBe(want);
  });

  it('fences from the claim on, before it is durable', () => {
    const state = openedBy(5, 'a');
    expect(state.claim({ epoch: 6, engineId: 'b' })).toBe('claim');
    expect(state.opened).toBeUndefined();
    expect(codeOf(() => state.admitHello(HELLO))).toBe('STALE_EPOCH');
    expect(codeOf(() => state.admitHello({ ...HELLO, epoch: 6, engineId: 'b' }))).toBe(
      'STALE_EPOCH',
    );
    expect(codeOf(() => state.claim({ epoch: 5, engineId: 'a' }))).toBe('STALE_EPOCH');
    state.persisted({ epoch: 6, engineId: 'b' });
    expect(codeOf(() => state.admitHello({ ...HELLO, epoch: 6, engineId: 'b' }))).toBe('OK');
  });

  it('a claim that could not be persisted still fences the older engine', () => {
    const state = openedBy(5, 'a');
    state.claim({ epoch: 6, engineId: 'b' });
    expect(codeOf(() => state.claim({ epoch: 5, engineId: 'a' }))).toBe('STALE_EPOCH');
    expect(state.claim({ epoch: 6, engineId: 'b' })).toBe('claim');
  });

  it('P7: after a restart nobody is served until the replica is opened again', () => {
    const state = new ReplicaSessionState('v1', 'r1', { epoch: 5, engineId: 'a' });
    expect(codeOf(() => state.admitHello(HELLO))).toBe('STALE_EPOCH');
    expect(codeOf(() => state.claim({ epoch: 5, engineId: 'b' }))).toBe('STALE_EPOCH');
    expect(state.claim({ epoch: 5, engineId: 'a' })).toBe('claim');
  });

  it('a replica created in an epoch belongs to the first engine that opens it', () => {
    const state = new ReplicaSessionState('v1', 'r1', { epoch: 5, engineId: '' });
    expect(codeOf(() => state.claim({ epoch: 4, engineId: 'a' }))).toBe('STALE_EPOCH');
    expect(codeOf(() => state.claim({ epoch: 5, engineId: 'a' }))).toBe('OK');
    expect(codeOf(() => state.claim({ epoch: 5, engineId: 'b' }))).toBe('STALE_EPOCH');
  });

  it('R5 property: never two tenures of one epoch, never an older one after a newer', () => {
    const open = fc.record({
      epoch: fc.integer({ min: 1, max: 5 }),
      engineId: fc.constantFrom('a', 'b', 'c'),
      persists: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(open, { maxLength: 40 }), (opens) => {
        const state = new ReplicaSessionState('v1', 'r1', { epoch: 0, engineId: '' });
        const holders = new Map<number, string>();
        let highest = 0;
        for (const { epoch, engineId, persists } of opens) {
          const result = codeOf(() => state.claim({ epoch, engineId }));
          if (result !== 'OK') continue;
          expect(epoch).toBeGreaterThanOrEqual(highest);
          expect(holders.get(epoch) ?? engineId).toBe(engineId);
          holders.set(epoch, engineId);
          highest = epoch;
          if (persists && state.opened === undefined) state.persisted({ epoch, engineId });
        }
      }),
    );
  });
});

describe('hello of a data stream (R8, R5)', () => {
  const cases = [
    { name: 'of the opened tenure', change: {}, want: 'OK' },
    { name: 'for another volume', change: { volume: 'v2' }, want: 'IDENTITY_MISMATCH' },
    { name: 'for another replica', change: { replicaId: 'r2' }, want: 'IDENTITY_MISMATCH' },
    { name: 'with a lower epoch', change: { epoch: 4 }, want: 'STALE_EPOCH' },
    { name: 'with a higher epoch', change: { epoch: 6 }, want: 'STALE_EPOCH' },
    { name: 'of another engine', change: { engineId: 'b' }, want: 'STALE_EPOCH' },
    { name: 'of another protocol', change: { protocolVersion: 2 }, want: 'VERSION_UNSUPPORTED' },
  ];
  it.each(cases)('$name -> $want', ({ change, want }) => {
    expect(codeOf(() => openedBy(5, 'a').admitHello({ ...HELLO, ...change }))).toBe(want);
  });

  it('nothing is accepted once the session is shut', () => {
    const state = openedBy(5, 'a');
    state.shut();
    expect(codeOf(() => state.admitHello(HELLO))).toBe('STALE_EPOCH');
  });
});

describe('membership records (P12)', () => {
  const stored = { epoch: 5, generation: 3 };
  const cases = [
    { name: 'the next generation', next: { epoch: 5, generation: 4 }, equal: false, want: 'store' },
    { name: 'the stored one again', next: stored, equal: true, want: 'same' },
    { name: 'same version, other members', next: stored, equal: false, want: 'CONFLICT' },
    { name: 'older generation', next: { epoch: 5, generation: 2 }, equal: false, want: 'CONFLICT' },
    { name: 'older epoch', next: { epoch: 4, generation: 9 }, equal: false, want: 'STALE_EPOCH' },
    {
      name: 'not opened epoch',
      next: { epoch: 6, generation: 9 },
      equal: true,
      want: 'STALE_EPOCH',
    },
  ];
  it.each(cases)('$name -> $want', ({ next, equal, want }) => {
    const state = openedBy(5, 'a');
    let got: string = '';
    const code = codeOf(() => {
      got = state.admitRecord(stored, next, equal);
    });
    expect(code === 'OK' ? got : code).toBe(want);
  });

  it('a new epoch starts its generations where it likes', () => {
    const state = openedBy(6, 'a');
    expect(state.admitRecord(stored, { epoch: 6, generation: 1 }, false)).toBe('store');
    expect(state.admitRecord(undefined, { epoch: 6, generation: 1 }, false)).toBe('store');
  });
});

describe('delete', () => {
  it('is refused to an older epoch and under a live stream of its own epoch', () => {
    const state = openedBy(5, 'a');
    expect(codeOf(() => state.admitDelete(4, false))).toBe('STALE_EPOCH');
    expect(codeOf(() => state.admitDelete(5, true))).toBe('CONFLICT');
    expect(codeOf(() => state.admitDelete(5, false))).toBe('OK');
    expect(codeOf(() => state.admitDelete(6, true))).toBe('OK');
  });
});
