/**
 * Whether the writes of one cell, each with the reads of its value, can be put in one order that
 * agrees with time (Gibbons and Korach, "Testing shared memories", 1997).
 *
 * A cluster is a write and its reads; f is the first end in it, s the last start. With f < s the
 * value was there all the time from f to s: a forward zone. Else the whole cluster may have
 * happened at one moment between s and f: a backward zone. The order exists exactly if no two
 * forward zones overlap and no backward zone lies inside a forward one. O(n log n).
 */
import type { Operation, Position } from '../../support/history.js';

export interface Cluster {
  readonly value: number;
  /** start of the write */
  readonly born: Position;
  /** acknowledged or read: it was there */
  certain: boolean;
  f: Position;
  s: Position;
  /** whose end and whose start they are; undefined: what the era began with */
  firstEnded: Operation | undefined;
  lastStarted: Operation | undefined;
}

export interface Conflict {
  /** was there from before the other one to after it */
  readonly around: Cluster;
  readonly other: Cluster;
}

/** Undefined: the order exists. */
export function findConflict(clusters: readonly Cluster[]): Conflict | undefined {
  const forward = clusters.filter(({ f, s }) => f < s).sort((a, b) => a.f - b.f);
  for (let at = 1; at < forward.length; at += 1) {
    const around = forward[at - 1] as Cluster;
    const other = forward[at] as Cluster;
    if (other.f < around.s) return { around, other };
  }
  for (const other of clusters) {
    if (other.f < other.s) continue;
    const around = lastBefore(forward, other.s);
    if (around !== undefined && other.f < around.s) return { around, other };
  }
  return undefined;
}

/** The last cluster whose zone begins before the position. */
function lastBefore(forward: readonly Cluster[], position: Position): Cluster | undefined {
  let low = 0;
  let high = forward.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((forward[middle] as Cluster).f < position) low = middle + 1;
    else high = middle;
  }
  return forward[low - 1];
}
