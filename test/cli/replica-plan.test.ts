import { describe, expect, it } from 'vitest';
import { planAdd, planReplace, type Step } from '../../cli/replica-plan.js';
import type { EngineReplicaStatus } from '../../proto/control.js';
import { replicaWith, statusWith, threeCopies } from './volume-facts.js';

const NEW = '10.0.0.4:9601';
const FAILED = { state: 'failed', recordedState: 'failed' } as const;
const MADE = { state: 'failed', recordedState: 'rebuilding' } as const;

const at = (address: string, part: Partial<EngineReplicaStatus> = {}): EngineReplicaStatus =>
  replicaWith({ replicaId: 'r-new', address, ...part });

/** `add`, `wait`, `wait r-new`, `remove r-2`, or the code of the refusal. */
function words(plan: () => readonly Step[]): string[] {
  try {
    return plan().map((step) =>
      step.kind === 'add' ? 'add' : [step.kind, step.replicaId].filter(Boolean).join(' '),
    );
  } catch (error) {
    return [(error as { code: string }).code];
  }
}

describe('replica add: what is left to do', () => {
  it.each<[string, EngineReplicaStatus[], string[]]>([
    ['nothing is there', [], ['add', 'wait']],
    ['interrupted after it was recorded', [at(NEW, MADE)], ['wait r-new']],
    ['interrupted while it is filled', [at(NEW, { ...MADE, state: 'rebuilding' })], ['wait r-new']],
    ['done before', [at(NEW)], ['wait r-new']],
    ['a copy that failed is there', [at(NEW, FAILED)], ['ALREADY_EXISTS']],
  ])('%s', (_name, more, want) => {
    const status = statusWith({ replicas: [...threeCopies(), ...more] });
    expect(words(() => planAdd(status, NEW))).toEqual(want);
  });
});

describe('replica replace: what is left to do', () => {
  it.each<[string, EngineReplicaStatus[], string[]]>([
    ['begun', threeCopies({}, FAILED), ['add', 'wait', 'remove r-2']],
    ['of one in use', threeCopies(), ['add', 'wait', 'remove r-2']],
    [
      'interrupted while the new one is filled',
      [...threeCopies({}, FAILED), at(NEW, { state: 'rebuilding', recordedState: 'rebuilding' })],
      ['wait r-new', 'remove r-2'],
    ],
    [
      'interrupted before the old one was taken off',
      [...threeCopies({}, FAILED), at(NEW)],
      ['wait r-new', 'remove r-2'],
    ],
    ['all done', [...threeCopies().filter((r) => r.replicaId !== 'r-2'), at(NEW)], ['wait r-new']],
    ['no such replica', threeCopies().filter((r) => r.replicaId !== 'r-2'), ['NOT_FOUND']],
  ])('%s', (_name, replicas, want) => {
    const status = statusWith({ replicas });
    expect(words(() => planReplace(status, 'r-2', NEW))).toEqual(want);
  });

  it('a new disk in the old place: the failed one is not taken for the new one', () => {
    const replicas = threeCopies({}, FAILED);
    const place = '10.0.0.2:9601';
    expect(words(() => planReplace(statusWith({ replicas }), 'r-2', place))).toEqual([
      'add',
      'wait',
      'remove r-2',
    ]);
    const more = [...replicas, at(place, MADE)];
    expect(words(() => planReplace(statusWith({ replicas: more }), 'r-2', place))).toEqual([
      'wait r-new',
      'remove r-2',
    ]);
  });
});
