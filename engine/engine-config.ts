/** What one engine process is told. Checked by who parses it (engine/main.ts). */
import type { TransportTls } from '../proto/transport.js';

export interface EngineConfig {
  readonly volume: string;
  /** needed to create; undefined opens what exists */
  readonly sizeBytes: number | undefined;
  readonly replicas: readonly string[];
  readonly salvage: boolean;
  readonly tls: TransportTls | undefined;
  readonly tuning: EngineTuning;
}

export interface EngineTuning {
  /** an unanswered operation breaks the link to the replica */
  readonly opDeadlineMs: number;
  /** deadline of control calls, also of storing an exclusion */
  readonly controlDeadlineMs: number;
  /** an idle link is pinged this often */
  readonly keepaliveMs: number;
  /** a region without a change for so long is cleaned */
  readonly cleanIdleMs: number;
  readonly cleanIntervalMs: number;
}

export const DEFAULT_TUNING: EngineTuning = {
  opDeadlineMs: 8_000,
  controlDeadlineMs: 5_000,
  keepaliveMs: 3_000,
  cleanIdleMs: 10_000,
  cleanIntervalMs: 2_000,
};

/** Most replicas of one volume: they are counted in the bits of a 32-bit integer. */
export const REPLICAS_MAX = 20;
