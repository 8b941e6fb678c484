/**
 * Mixes of faults. Each seed of a mix turns a random part of its faults on (swarm), with random
 * rates, so that some runs have much of one thing and some a little of everything.
 *
 * `scenarios` are the numbers of docs/testing.md that a mix covers.
 */
import type { Random } from '../kernel/random.js';
import { drawFault } from './draw-fault.js';
import type { Fault, FaultKind } from './fault.js';

export interface Mix {
  readonly name: string;
  readonly says: string;
  readonly scenarios: readonly number[];
  readonly kinds: readonly FaultKind[];
  /** faults of a run, fewest and most */
  readonly faults: readonly [number, number];
  /** default: one to three */
  readonly replicas?: number;
  /** part of the disks that are too small for the volume */
  readonly smallDisks?: number;
  /** most places are left alone for long and are cleaned soon; what is away stays away for long */
  readonly quiet?: boolean;
  /** some copies may be damaged where they lie: a read may fail, it may never lie */
  readonly readsMayFail?: boolean;
}

export const MIXES: readonly Mix[] = [
  {
    name: 'calm',
    says: 'nothing goes wrong: overlapping writes, cleaning, orderly restarts',
    scenarios: [32, 74],
    kinds: ['engine-stop', 'replica-stop'],
    faults: [0, 2],
  },
  {
    name: 'engine',
    says: 'the engine is killed, idle, under load, during recovery, again and again',
    scenarios: [1, 2, 3, 4, 11, 74],
    kinds: [
      'engine-kill',
      'engine-kill-uneven',
      'engine-kill-again',
      'engine-stop',
      'engine-pause',
    ],
    faults: [2, 8],
  },
  {
    name: 'replica',
    says: 'replica daemons are killed, stopped, restarted, in loops',
    scenarios: [5, 6, 7, 8, 15, 16, 19],
    kinds: ['replica-kill', 'replica-stop', 'replica-pause', 'replica-crash-loop', 'engine-kill'],
    faults: [2, 8],
    replicas: 3,
  },
  {
    name: 'network',
    says: 'cuts both ways and one way, flaps, resets, loss, delay, little bandwidth, replays',
    scenarios: [22, 23, 24, 25, 27, 28, 29, 30, 31, 34],
    kinds: ['cut', 'flap', 'reset', 'bad-link', 'engine-kill', 'replica-pause'],
    faults: [2, 10],
  },
  {
    name: 'power',
    says: 'hosts lose power, one, some, all, again while they recover',
    scenarios: [9, 57, 58, 59, 60, 61, 62],
    kinds: ['power', 'all-power', 'all-kill', 'engine-kill'],
    faults: [2, 7],
  },
  {
    name: 'disk',
    says: 'errors, want of space, slow and stalled disks, disks that vanish',
    scenarios: [20, 21, 37, 38, 39, 40, 41, 42, 44, 45],
    kinds: ['disk-error', 'metadata-error', 'disk-slow', 'flush-stall', 'disk-stall', 'disk-gone'],
    faults: [2, 6],
    smallDisks: 0.15,
  },
  {
    name: 'rot',
    says: 'bits that flip, writes that are lost or land elsewhere, on one copy',
    scenarios: [33, 47, 48, 49, 50, 63],
    kinds: ['rot', 'lying-write', 'bad-link', 'engine-pause'],
    faults: [2, 6],
    replicas: 3,
    readsMayFail: true,
  },
  {
    name: 'zombie',
    says: 'a stopped engine is replaced and goes on later; own clocks, wall time that jumps',
    scenarios: [17, 35, 36, 72, 75],
    kinds: ['engine-zombie', 'engine-pause', 'engine-kill', 'cut', 'clock-jump'],
    faults: [2, 6],
  },
  {
    name: 'rebuild',
    says: 'copies come back, or new ones are made, while all else goes wrong and writes go on',
    scenarios: [43, 64, 65],
    kinds: [
      ...(['replace', 'replica-kill', 'power', 'cut', 'replica-crash-loop'] as const),
      ...(['engine-kill', 'engine-kill-again', 'engine-stop', 'disk-error', 'reset'] as const),
    ],
    faults: [2, 9],
    replicas: 3,
  },
  {
    name: 'return',
    says: 'copies are away while regions are written and cleaned, and engines come and go in order',
    scenarios: [57, 74],
    kinds: ['engine-stop', 'engine-stop', 'replica-stop', 'replica-kill', 'power', 'cut'],
    faults: [4, 12],
    replicas: 3,
    quiet: true,
  },
  {
    name: 'all',
    says: 'some of everything that leaves one good copy, at once',
    scenarios: [82],
    kinds: [
      ...(['engine-kill', 'engine-kill-uneven', 'engine-kill-again'] as const),
      ...(['engine-stop', 'engine-pause'] as const),
      ...(['replica-kill', 'replica-stop', 'replica-pause', 'replica-crash-loop'] as const),
      ...(['power', 'all-power', 'all-kill', 'cut', 'flap', 'reset', 'bad-link'] as const),
      ...(['disk-error', 'metadata-error', 'disk-slow', 'flush-stall', 'disk-stall'] as const),
      'clock-jump',
    ],
    faults: [3, 12],
  },
];

export function mixNamed(name: string): Mix {
  const mix = MIXES.find((candidate) => candidate.name === name);
  if (mix === undefined) {
    throw new Error(`mix ${name} is none of ${MIXES.map((one) => one.name).join(', ')}`);
  }
  return mix;
}

const ALONE_RATE = 0.25;

export interface FaultSpace {
  readonly replicas: number;
  readonly operations: number;
}

const QUIET_AWAY_MS = 4_000;

export function planFaults(random: Random, mix: Mix, space: FaultSpace): Fault[] {
  const [fewest, most] = mix.faults;
  // One fault after a long calm finds what the recoveries from many others would mend.
  const alone = random.chance(ALONE_RATE);
  const count = alone ? 1 : fewest + random.int(most - fewest + 1);
  const on = mix.kinds.filter(() => random.chance(0.6));
  const kinds = on.length > 0 ? on : [random.pick(mix.kinds)];
  const faults = Array.from({ length: count }, (): Fault => {
    const afterOperations = random.int(space.operations);
    const delayMs = random.chance(0.5) ? 0 : random.exponential(5);
    const awayMs = mix.quiet === true ? QUIET_AWAY_MS : undefined;
    const act = drawFault(random, random.pick(kinds), { ...space, awayMs });
    return { afterOperations, delayMs, act };
  });
  return faults.sort((a, b) => a.afterOperations - b.afterOperations);
}
