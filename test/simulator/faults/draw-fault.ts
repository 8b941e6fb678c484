/** One fault of a kind, its numbers by chance. */
import type { Fate } from '../disk/disk-faults.js';
import type { Random } from '../kernel/random.js';
import type { FaultAct, FaultKind } from './fault.js';

/** Beyond every deadline, and still within what a run waits for at its end. */
const SPAN_MAX_MS = 90_000;

const FATES: readonly Fate[] = ['kept', 'dropped', 'subset', 'subset'];

/** Short mostly, beyond every deadline sometimes. */
function span(random: Random): number {
  const mean = random.pick([20, 300, 300, 3_000, 12_000]);
  return Math.min(SPAN_MAX_MS, 5 + random.exponential(mean));
}

/** How long something is away. */
function away(random: Random, meanMs = random.pick([50, 500, 3_000])): number {
  return 10 + random.exponential(meanMs);
}

export function drawFault(
  random: Random,
  kind: FaultKind,
  space: { readonly replicas: number; readonly awayMs?: number | undefined },
): FaultAct {
  const replica = random.int(space.replicas);
  switch (kind) {
    case 'engine-kill':
    case 'engine-stop':
      return { kind, downMs: away(random) };
    case 'engine-pause':
      return { kind, forMs: span(random) };
    case 'engine-zombie':
      return { kind, forMs: 500 + span(random), startMs: random.exponential(400) };
    case 'engine-kill-uneven': {
      const behindMs = random.pick([1, 10, 100]);
      const afterMs = random.exponential(2 * behindMs);
      return { kind, replica, behindMs, afterMs, downMs: away(random) };
    }
    case 'engine-kill-again':
      return { kind, times: 2 + random.int(8), everyMs: 1 + random.exponential(20) };
    case 'replace':
    case 'replica-kill':
    case 'replica-stop':
      return { kind, replica, downMs: away(random, space.awayMs) };
    case 'replica-pause':
      return { kind, replica, forMs: span(random) };
    case 'replica-crash-loop':
      return { kind, replica, times: 3 + random.int(20), everyMs: 5 + random.exponential(100) };
    case 'power':
      return { kind, replica, fate: random.pick(FATES), downMs: away(random, space.awayMs) };
    case 'all-kill':
      return { kind, downMs: away(random) };
    case 'all-power':
      return {
        kind,
        fates: Array.from({ length: space.replicas }, () => random.pick(FATES)),
        downMs: away(random),
        spreadMs: random.chance(0.5) ? 0 : away(random),
        again: random.chance(0.5) ? 0 : 1 + random.int(5),
        againMs: 1 + random.exponential(40),
      };
    case 'clock-jump': {
      const byMs = random.pick([-1, 1]) * random.pick([3_600_000, 86_400_000, 1e12]);
      return { kind, host: random.int(space.replicas + 2), byMs };
    }
    default:
      return drawLinkFault(random, kind, replica);
  }
}

function drawLinkFault(random: Random, kind: FaultKind, replica: number): FaultAct {
  switch (kind) {
    case 'cut': {
      const way = random.pick(['both', 'both', 'requests', 'replies'] as const);
      const every = random.chance(0.2);
      return { kind, replica: every ? undefined : replica, way, forMs: span(random) };
    }
    case 'flap':
      return { kind, replica, times: 3 + random.int(20), everyMs: 20 + random.exponential(500) };
    case 'reset':
      return { kind, replica, way: random.pick(['requests', 'replies'] as const) };
    case 'bad-link':
      return {
        kind,
        replica,
        forMs: 200 + random.exponential(3_000),
        extraMs: random.pick([0, 1, 20, 100]),
        lossRate: random.pick([0, 0.05, 0.3]),
        bytesPerMs: random.pick([Number.POSITIVE_INFINITY, 125, 1_250]),
        duplicateRate: random.pick([0, 0.5]),
        flipRate: random.pick([0, 0, 0.02]),
      };
    default:
      return drawDiskFault(random, kind, replica);
  }
}

function drawDiskFault(random: Random, kind: FaultKind, replica: number): FaultAct {
  const forMs = span(random);
  switch (kind) {
    case 'disk-error': {
      const op = random.pick(['read', 'write', 'flush', 'zeroes'] as const);
      const errno = op === 'write' && random.chance(0.4) ? 'ENOSPC' : 'EIO';
      const rate = random.pick([1, 1, 0.2]);
      return { kind, replica, op, errno, rate, count: random.pick([1, 3, 1_000]), forMs };
    }
    case 'metadata-error': {
      const errno = random.pick(['EIO', 'ENOSPC'] as const);
      const op = random.pick(['write', 'flush'] as const);
      return { kind, replica, op, errno, count: random.pick([1, 5]), forMs };
    }
    case 'disk-slow':
      return {
        kind,
        replica,
        forMs,
        factor: random.pick([10, 100, 1_000]),
        hangRate: random.pick([0, 0, 0.01]),
      };
    case 'flush-stall':
    case 'disk-stall':
    case 'disk-gone':
      return { kind, replica, forMs };
    case 'rot':
      return { kind, replica, pages: 1 + random.int(20) };
    case 'lying-write': {
      const how = random.pick(['lost', 'misdirected'] as const);
      return { kind, replica, how, count: 1 + random.int(3) };
    }
    default:
      throw new Error(`no fault of kind ${kind} can be drawn`);
  }
}
