/** Feeds the slow judge with what the links have measured. */
import type { ReplicaLink } from './replica-link.js';
import { SlowJudge, type SlowPolicy, type SlowSample } from './slow-judge.js';

export class SlowWatch {
  readonly #judge: SlowJudge;
  readonly #writesSeen = new WeakMap<ReplicaLink, number>();

  constructor(policy: SlowPolicy) {
    this.#judge = new SlowJudge(policy);
  }

  /** Called once a second. A member that should be set aside, and why. */
  look(
    inSync: readonly ReplicaLink[],
    nowMs: number,
  ): { readonly replicaId: string; readonly text: string } | undefined {
    const samples: SlowSample[] = [];
    for (const link of inSync) {
      const seen = this.#writesSeen.get(link) ?? 0;
      this.#writesSeen.set(link, link.writes);
      // Latencies of a link that carried nothing lately say nothing.
      if (link.writes === seen) continue;
      samples.push({ replicaId: link.replicaId, latencyMs: link.writeLatencyMs });
    }
    const verdict = this.#judge.look(samples, nowMs);
    if (verdict === undefined) return undefined;
    const { replicaId, latencyMs, peersMs, forMs } = verdict;
    const against = `${latencyMs.toFixed(1)} ms against ${peersMs.toFixed(1)} ms of its peers`;
    const text = `set aside: writes took ${against} for ${Math.round(forMs / 1000)} s`;
    return { replicaId, text };
  }

  backOffMs(replicaId: string, nowMs: number): number {
    return this.#judge.backOffMs(replicaId, nowMs);
  }
}
