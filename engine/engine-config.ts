/** What one engine process is told. Checked by who parses it (engine/main.ts). */
import type { TransportTls } from '../proto/transport.js';
import { SLOW_POLICY, type SlowPolicy } from './core/slow-judge.js';
import { PACER_POLICY, type PacerPolicy, SCRUB_PACER_POLICY } from './recovery/pacer.js';

export const DAY_MS = 86_400_000;

export interface EngineConfig {
  readonly volume: string;
  /** needed to create; undefined opens what exists */
  readonly sizeBytes: number | undefined;
  readonly replicas: readonly string[];
  readonly salvage: boolean;
  readonly tls: TransportTls | undefined;
  /** plain TCP beyond this host is allowed: a person said so */
  readonly insecure?: boolean;
  readonly tuning: EngineTuning;
}

export interface EngineTuning {
  /** an unanswered operation breaks the link to the replica */
  readonly opDeadlineMs: number;
  /** deadline of control calls, also of storing an exclusion */
  readonly controlDeadlineMs: number;
  /** a member that confirmed nothing for so long is pinged … */
  readonly keepaliveMs: number;
  /** … and given up without an answer for so long */
  readonly pingDeadlineMs: number;
  /** reads are answered for so long after all members confirmed the epoch (P13) */
  readonly leaseMs: number;
  /** how long I/O waits when no in-sync replica is left, before it fails; it is served again when
   *  they are back */
  readonly lostDeadlineMs: number;
  /** how long an acknowledgement waits for an exclusion to be recorded, before it fails */
  readonly settleDeadlineMs: number;
  /** a region without a change for so long is cleaned */
  readonly cleanIdleMs: number;
  readonly cleanIntervalMs: number;
  readonly slow: SlowPolicy;
  readonly pacer: PacerPolicy;
  readonly scrubPacer: PacerPolicy;
  /** a scrub begins when the last one ended longer ago; 0: only when asked for */
  readonly scrubEveryMs: number;
}

export const DEFAULT_TUNING: EngineTuning = {
  opDeadlineMs: 8_000,
  controlDeadlineMs: 5_000,
  keepaliveMs: 1_000,
  pingDeadlineMs: 6_000,
  leaseMs: 5_000,
  lostDeadlineMs: 60_000,
  settleDeadlineMs: 30_000,
  cleanIdleMs: 10_000,
  cleanIntervalMs: 2_000,
  slow: SLOW_POLICY,
  pacer: PACER_POLICY,
  scrubPacer: SCRUB_PACER_POLICY,
  scrubEveryMs: 7 * DAY_MS,
};

/** Most replicas of one volume: they are counted in the bits of a 32-bit integer. */
export const REPLICAS_MAX = 20;
