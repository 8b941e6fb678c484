/** Sums up a V8 CPU profile: how long each function was on top of the stack. Pure. */
import { StorageError } from '../common/errors.js';

export interface SelfTime {
  /** name and file:line, or V8's own (idle), (program), (garbage collector) */
  readonly function: string;
  readonly seconds: number;
}

export interface ProfileSummary {
  readonly seconds: number;
  /** on a CPU or in a system call: all but (idle) */
  readonly busySeconds: number;
  /** longest first, without (idle) */
  readonly selfTimes: readonly SelfTime[];
}

interface Frame {
  functionName: string;
  url: string;
  lineNumber: number;
}

/** @throws StorageError PROTOCOL_ERROR when the text is not a .cpuprofile */
export function summarizeProfile(text: string): ProfileSummary {
  const { nodes, samples, timeDeltas } = parseProfile(text);
  const names = new Map(nodes.map(({ id, callFrame }) => [id, frameText(callFrame)]));
  const microseconds = new Map<string, number>();
  let total = 0;
  samples.forEach((id, index) => {
    // The delta of a sample is the time since the one before, which that one's function had.
    const delta = Math.max(0, timeDeltas[index + 1] ?? 0);
    const name = names.get(id) ?? '(unknown)';
    microseconds.set(name, (microseconds.get(name) ?? 0) + delta);
    total += delta;
  });
  const idle = microseconds.get('(idle)') ?? 0;
  microseconds.delete('(idle)');
  const selfTimes = [...microseconds]
    .map(([name, own]) => ({ function: name, seconds: own / 1e6 }))
    .sort((a, b) => b.seconds - a.seconds);
  return { seconds: total / 1e6, busySeconds: (total - idle) / 1e6, selfTimes };
}

function frameText(frame: Frame): string {
  if (frame.url === '') return frame.functionName || '(anonymous)';
  const file = frame.url.split('/').slice(-2).join('/');
  return `${frame.functionName || '(anonymous)'} ${file}:${frame.lineNumber + 1}`;
}

function parseProfile(text: string): {
  nodes: ReadonlyArray<{ id: number; callFrame: Frame }>;
  samples: readonly number[];
  timeDeltas: readonly number[];
} {
  try {
    const profile = JSON.parse(text);
    if ([profile.nodes, profile.samples, profile.timeDeltas].every(Array.isArray)) return profile;
  } catch (cause) {
    throw new StorageError('PROTOCOL_ERROR', 'CPU profile is not JSON', {}, { cause });
  }
  throw new StorageError('PROTOCOL_ERROR', 'CPU profile lacks nodes, samples or timeDeltas');
}
