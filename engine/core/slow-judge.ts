/**
 * Decides when a member is too slow to wait for: its latency is an outlier against its peers for
 * long enough, and enough others are in-sync (scenario 20). Pure; fed once a second.
 *
 * Never flaps: a member that was set aside comes back after a back-off that doubles each time, and
 * shrinks again only after it has behaved for long.
 */

export interface SlowPolicy {
  /** slower than the median of its peers by this factor … */
  readonly factor: number;
  /** … and by at least this much */
  readonly floorMs: number;
  /** for so long without a break */
  readonly forMs: number;
  /** only while so many others are in-sync */
  readonly othersMin: number;
  readonly backOffMs: number;
  readonly backOffMaxMs: number;
  /** good behaviour after which the back-off begins anew */
  readonly forgiveMs: number;
}

export const SLOW_POLICY: SlowPolicy = {
  factor: 5,
  floorMs: 20,
  forMs: 10_000,
  othersMin: 2,
  backOffMs: 60_000,
  backOffMaxMs: 3_600_000,
  forgiveMs: 600_000,
};

export interface SlowSample {
  readonly replicaId: string;
  /** of changes, smoothed; what the volume waits for */
  readonly latencyMs: number;
}

interface History {
  /** since when it is an outlier; undefined: it is not */
  sinceMs: number | undefined;
  lastSampleMs: number;
  setAside: number;
  lastSetAsideMs: number;
}

export interface SlowVerdict {
  readonly replicaId: string;
  readonly latencyMs: number;
  readonly peersMs: number;
  readonly forMs: number;
}

export class SlowJudge {
  readonly #policy: SlowPolicy;
  readonly #histories = new Map<string, History>();

  constructor(policy: SlowPolicy = SLOW_POLICY) {
    this.#policy = policy;
  }

  /** One look at all in-sync members that answered changes lately. At most one is set aside at a
   *  time: with it gone the others are judged anew. */
  look(samples: readonly SlowSample[], nowMs: number): SlowVerdict | undefined {
    const { factor, floorMs, forMs, othersMin } = this.#policy;
    let worst: SlowVerdict | undefined;
    for (const { replicaId, latencyMs } of samples) {
      const peers = samples.filter((s) => s.replicaId !== replicaId).map((s) => s.latencyMs);
      const peersMs = median(peers);
      const history = this.#historyOf(replicaId);
      // A member that has not answered for long is not slow: nobody asked it.
      if (nowMs - history.lastSampleMs > forMs) history.sinceMs = undefined;
      history.lastSampleMs = nowMs;
      const outlier =
        peers.length >= othersMin && latencyMs > peersMs * factor && latencyMs > peersMs + floorMs;
      if (!outlier) {
        history.sinceMs = undefined;
        continue;
      }
      history.sinceMs ??= nowMs;
      const lastedMs = nowMs - history.sinceMs;
      if (lastedMs >= forMs && (worst === undefined || latencyMs > worst.latencyMs)) {
        worst = { replicaId, latencyMs, peersMs, forMs: lastedMs };
      }
    }
    if (worst !== undefined) this.#setAside(worst.replicaId, nowMs);
    return worst;
  }

  /** How long a member that was set aside stays away; 0 if it never was, or long ago. */
  backOffMs(replicaId: string, nowMs: number): number {
    const history = this.#histories.get(replicaId);
    if (history === undefined || history.setAside === 0) return 0;
    const { backOffMs, backOffMaxMs } = this.#policy;
    const lengthMs = Math.min(backOffMaxMs, backOffMs * 2 ** (history.setAside - 1));
    return Math.max(0, history.lastSetAsideMs + lengthMs - nowMs);
  }

  #setAside(replicaId: string, nowMs: number): void {
    const history = this.#historyOf(replicaId);
    const { forgiveMs } = this.#policy;
    const sinceBackMs = nowMs - history.lastSetAsideMs;
    if (history.setAside > 0 && sinceBackMs > forgiveMs * 2 ** (history.setAside - 1)) {
      history.setAside = 0;
    }
    history.setAside = Math.min(history.setAside + 1, 32);
    history.lastSetAsideMs = nowMs;
    history.sinceMs = undefined;
  }

  #historyOf(replicaId: string): History {
    let history = this.#histories.get(replicaId);
    if (history === undefined) {
      const never = Number.NEGATIVE_INFINITY;
      history = { sinceMs: undefined, lastSampleMs: never, setAside: 0, lastSetAsideMs: never };
      this.#histories.set(replicaId, history);
    }
    return history;
  }
}

function median(values: readonly number[]): number {
  if (values.length === 0) return 0;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  if (sorted.length % 2 === 1) return sorted[middle] as number;
  return ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2;
}
