import { describe, expect, it } from 'vitest';
import { StorageError } from '../../../common/errors.js';
import { GIB } from '../../../common/units.js';
import { type Answer, planOpen } from '../../../engine/standalone/open-plan.js';
import type { Member, ReplicaInfo } from '../../../proto/control.js';

type State = Member['state'];
interface Copy {
  id: string;
  epoch?: number;
  record?: { epoch: number; generation: number; members: Record<string, State> };
  failed?: boolean;
  size?: number;
}

function info(copy: Copy): ReplicaInfo {
  const record = copy.record ?? {
    epoch: 3,
    generation: 1,
    members: { a: 'in-sync', b: 'in-sync', c: 'in-sync' },
  };
  const members = Object.entries(record.members).map(([replicaId, state]) => ({
    replicaId,
    address: `${replicaId}:1`,
    state,
  }));
  return {
    volume: 'v',
    replicaId: copy.id,
    diskId: 'd',
    sizeBytes: copy.size ?? GIB,
    epoch: copy.epoch ?? record.epoch,
    membership: { ...record, members, engineId: 'e', era: 0 },
    allocatedBytes: 0,
    dirtyRegions: 0,
    failed: copy.failed ?? false,
    failedReason: copy.failed === true ? 'EIO' : '',
    lossy: false,
    restartedDirty: false,
    incarnation: 'i',
  };
}

function answer(address: string, ...copies: Copy[]): Answer {
  return {
    address,
    reply: {
      daemonId: `daemon-of-${address}`,
      incarnation: 'i',
      bootId: 'b',
      clusterId: 'default',
      disks: [],
      replicas: copies.map(info),
    },
  };
}

const silent = (address: string): Answer => ({
  address,
  reply: undefined,
  error: new StorageError('UNAVAILABLE', 'refused'),
});

const drawn: string[] = [];
const wish = (over: { sizeBytes?: number | undefined; salvage?: boolean } = {}) => ({
  volume: 'v',
  sizeBytes: GIB as number | undefined,
  salvage: false,
  engineId: 'e-new',
  newReplicaId: () => `n${drawn.push('')}`,
  ...over,
});

const codeOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    return error instanceof StorageError ? error.code : String(error);
  }
  return 'no error';
};

const abc = {
  epoch: 3,
  generation: 1,
  members: { a: 'in-sync', b: 'in-sync', c: 'in-sync' },
} as const;
const ab = {
  epoch: 3,
  generation: 2,
  members: { a: 'in-sync', b: 'in-sync', c: 'failed' },
} as const;
const onlyA = {
  epoch: 3,
  generation: 3,
  members: { a: 'in-sync', b: 'failed', c: 'failed' },
} as const;

describe('opening a standalone volume (R4, R8, P12)', () => {
  it('creates on empty daemons with epoch 1', () => {
    const plan = planOpen([answer('a:1'), answer('b:1')], wish());
    expect(plan.create).toHaveLength(2);
    expect(plan.open).toEqual(plan.create);
    expect(plan.initial.epoch).toBe(0);
    expect(plan.epoch).toBe(1);
    expect(plan.record.epoch).toBe(1);
  });

  it.each([
    {
      name: 'a daemon is silent',
      answers: [answer('a:1'), silent('b:1')],
      size: GIB,
      want: 'UNAVAILABLE',
    },
    { name: 'no size is given', answers: [answer('a:1')], size: undefined, want: 'NOT_FOUND' },
  ])('does not create when $name', ({ answers, size, want }) => {
    expect(codeOf(() => planOpen(answers, wish({ sizeBytes: size })))).toBe(want);
  });

  it.each([
    {
      name: 'all members of the newest record are there',
      answers: [answer('a:1', { id: 'a' }), answer('b:1', { id: 'b' }), answer('c:1', { id: 'c' })],
      open: ['a', 'b', 'c'],
    },
    {
      name: 'a stale copy stands by',
      answers: [
        answer('a:1', { id: 'a', record: ab }),
        answer('b:1', { id: 'b', record: ab }),
        answer('c:1', { id: 'c', record: abc }),
      ],
      open: ['a', 'b'],
    },
    {
      name: 'the newest record reached only one of its members',
      answers: [answer('a:1', { id: 'a', record: ab }), answer('b:1', { id: 'b', record: abc })],
      open: ['a', 'b'],
    },
    {
      name: 'a member has failed: opening loads it anew, and refuses if that fails (P8)',
      answers: [
        answer('a:1', { id: 'a', record: ab }),
        answer('b:1', { id: 'b', record: ab, failed: true }),
      ],
      open: ['a', 'b'],
    },
    {
      name: 'a copy moved to another address',
      answers: [answer('x:1', { id: 'a', record: onlyA })],
      open: ['a'],
    },
  ])('opens when $name', ({ answers, open }) => {
    const plan = planOpen(answers, wish());
    expect(plan.open.map((m) => m.replicaId)).toEqual(open);
    expect(plan.create).toEqual([]);
  });

  it.each([
    {
      name: 'scenario 62: a stale copy is alone',
      answers: [answer('c:1', { id: 'c', record: abc })],
    },
    {
      name: 'one of three is missing',
      answers: [answer('a:1', { id: 'a' }), answer('b:1', { id: 'b' })],
    },
    {
      name: 'scenario 55: a member is an older copy, from before the epoch of the record',
      answers: [
        answer('a:1', { id: 'a', record: ab }),
        answer('b:1', { id: 'b', record: { ...abc, epoch: 2 } }),
      ],
    },
    {
      name: 'the newest record was seen, its other member not',
      answers: [answer('a:1', { id: 'a', record: ab }), answer('c:1', { id: 'c', record: abc })],
    },
  ])('refuses when $name', ({ answers }) => {
    expect(codeOf(() => planOpen(answers, wish()))).toBe('MEMBERSHIP_UNPROVEN');
  });

  it('salvage does without a member that has failed', () => {
    const answers = [
      answer('a:1', { id: 'a', record: ab }),
      answer('b:1', { id: 'b', record: ab, failed: true }),
    ];
    const plan = planOpen(answers, wish({ salvage: true }));
    expect(plan.open.map((m) => m.replicaId)).toEqual(['a']);
    expect(plan.record.era).toBe(1);
  });

  it('scenario 55: salvage does without a member that is an older copy', () => {
    const answers = [
      answer('a:1', { id: 'a', record: ab }),
      answer('b:1', { id: 'b', record: { ...abc, epoch: 2 } }),
    ];
    expect(planOpen(answers, wish({ salvage: true })).open.map((m) => m.replicaId)).toEqual(['a']);
  });

  it('R5: an engine that had the volume does not take it back from another', () => {
    const answers = [answer('a:1', { id: 'a', record: onlyA })];
    const own = { own: { epoch: 2 } };
    expect(codeOf(() => planOpen(answers, { ...wish(), ...own }))).toBe('STALE_EPOCH');
    expect(planOpen(answers, { ...wish(), own: { epoch: 9 } }).epoch).toBe(10);
  });

  it('salvage opens what is left and records the loss', () => {
    const plan = planOpen([answer('a:1', { id: 'a' })], wish({ salvage: true }));
    expect(plan.open.map((m) => m.replicaId)).toEqual(['a']);
    expect(plan.record.generation).toBe(2);
    expect(plan.record.members.map((m) => m.state)).toEqual(['in-sync', 'failed', 'failed']);
    expect(plan.warnings).toHaveLength(2);
  });

  it('salvage never makes a stale copy a member', () => {
    const answers = [answer('c:1', { id: 'c', record: ab })];
    expect(codeOf(() => planOpen(answers, wish({ salvage: true })))).toBe('MEMBERSHIP_UNPROVEN');
  });

  it('the epoch is above what any copy has seen, stale ones too (R5)', () => {
    const answers = [
      answer('a:1', { id: 'a', record: onlyA, epoch: 5 }),
      answer('c:1', { id: 'c', record: abc, epoch: 9 }),
    ];
    expect(planOpen(answers, wish()).epoch).toBe(10);
  });

  it('a creation that was cut off goes on', () => {
    const initial = { epoch: 0, generation: 1, members: { a: 'in-sync', b: 'in-sync' } } as const;
    const answers = [answer('a:1', { id: 'a', record: initial }), answer('b:1')];
    const plan = planOpen(answers, wish());
    expect(plan.create).toEqual([{ replicaId: 'b', address: 'b:1' }]);
    expect(plan.open.map((m) => m.replicaId)).toEqual(['a', 'b']);
    expect(plan.initial.epoch).toBe(0);
  });

  it('refuses another size and the same daemon twice', () => {
    const answers = [answer('a:1', { id: 'a', record: onlyA })];
    expect(codeOf(() => planOpen(answers, wish({ sizeBytes: 2 * GIB })))).toBe('CONFLICT');
    const one = answer('a:1');
    const two: Answer = { ...one, address: 'localhost:1' };
    expect(codeOf(() => planOpen([one, two], wish()))).toBe('CONFLICT');
  });
});
