/**
 * The story of a volume, from what its engine says: how it is, why, what to do, and how it came
 * about. Facts in, plain data out: pure. The words for a person: story-text.ts.
 */
import type { EngineEvent, EngineReplicaStatus, EngineStatus } from '../../proto/control.js';
import { rebuildText } from '../progress-bar.js';
import { durationText } from '../time-text.js';
import { type ChainLink, chainOf } from './chain.js';
import { hintFor } from './hints.js';
import { type ReplicaSituation, situationOf } from './situation.js';
import { type TimelineEntry, timelineOf } from './timeline.js';

export interface StoryFacts {
  readonly status: EngineStatus;
  /** oldest first */
  readonly events: readonly EngineEvent[];
  /** `--engine` as it was given */
  readonly engine: string;
  /** how far back the time line goes */
  readonly sinceMs: number;
}

export interface ReplicaStory {
  readonly replicaId: string;
  readonly address: string;
  readonly state: EngineReplicaStatus['state'];
  readonly situation: ReplicaSituation;
  /** what it does now, in words */
  readonly now: string;
  readonly progress: EngineReplicaStatus['progress'];
  /** why it is where it is, oldest first */
  readonly chain: readonly ChainLink[];
  /** what to do about it; '': nothing */
  readonly hint: string;
}

export interface Story {
  readonly volume: string;
  readonly state: EngineStatus['state'];
  readonly epoch: number;
  readonly generation: number;
  /** of the engine, for the relative times */
  readonly wallMs: number;
  /** how it is, in one sentence */
  readonly sentence: string;
  readonly replicas: readonly ReplicaStory[];
  /** what to do, most urgent first */
  readonly todo: readonly string[];
  readonly timeline: readonly TimelineEntry[];
}

const ENTRIES_MAX = 60;
/** Less is not worth a word: the engine may have begun just now. */
const LONG_MS = 60_000;

export function storyOf(facts: StoryFacts): Story {
  const { status, events, sinceMs } = facts;
  const { volume, state, epoch, generation, wallMs } = status;
  const replicas = status.replicas.map((replica) => replicaStory(replica, facts));
  const wish = { sinceWallMs: wallMs - sinceMs, entriesMax: ENTRIES_MAX };
  return {
    ...{ volume, state, epoch, generation, wallMs, replicas },
    sentence: sentenceOf(status),
    todo: todoOf(status, replicas),
    timeline: timelineOf(events, wish),
  };
}

function replicaStory(replica: EngineReplicaStatus, facts: StoryFacts): ReplicaStory {
  const { status, events, engine, sinceMs } = facts;
  const { replicaId, address, state, progress } = replica;
  const situation = situationOf(replica, status.state, events);
  const chain = chainOf(replicaId, events, state === 'in-sync');
  // The trouble of one that is well again is told for as long as the time line goes back.
  const over = state === 'in-sync' && !isRecent(chain, status.wallMs - sinceMs);
  return {
    ...{ replicaId, address, state, situation, progress },
    now: nowText(replica, situation),
    chain: over ? [] : chain,
    hint: hintFor(situation, { volume: status.volume, engine, replica }),
  };
}

function isRecent(chain: readonly ChainLink[], sinceWallMs: number): boolean {
  return chain.some(({ lastWallMs }) => lastWallMs >= sinceWallMs);
}

/** What it does now, in words. */
export function nowText(replica: EngineReplicaStatus, situation: ReplicaSituation): string {
  const { progress, nextTryMs, attempts, reason } = replica;
  const attempt = (number: number): string => (number > 1 ? `, attempt ${number}` : '');
  switch (situation) {
    case 'in-sync':
      return 'takes every write and is read';
    case 'rebuilding':
      return `takes every write and catches up: ${
        progress === undefined ? 'about to be promoted' : rebuildText(progress, { bar: false })
      }`;
    case 'needed':
      return 'has every acknowledged write; the volume waits for it';
    case 'excluding':
      return 'gets nothing; that it failed is being recorded on the others';
    default:
  }
  const before = reason === '' ? '' : `; last: ${reason}`;
  if (progress !== undefined) return `is being brought back${attempt(attempts)}${before}`;
  if (nextTryMs > 0)
    return `is tried again in ${durationText(nextTryMs)}${attempt(attempts + 1)}${before}`;
  return `is out of use${before}`;
}

function sentenceOf(status: EngineStatus): string {
  const { volume, state, replicas } = status;
  if (state === 'faulted') return faultedSentence(status);
  const inSync = replicas.filter((r) => r.state === 'in-sync').length;
  const copies = `${inSync} of ${replicas.length} copies in sync`;
  const equal = equalText(status);
  if (state === 'healthy') {
    const { stateMs } = status;
    const long = stateMs < LONG_MS ? '' : `, for ${durationText(stateMs)} at least`;
    return `${volume} is healthy: ${copies}${long}${equal}.`;
  }
  const others = replicas.filter((r) => r.state !== 'in-sync').map(otherText);
  const alone = inSync === 1 ? '; without the last one I/O would wait' : '';
  return `${volume} serves, degraded: ${copies}${alone}; ${others.join(', ')}${equal}.`;
}

function otherText(replica: EngineReplicaStatus): string {
  const { replicaId, state, progress, recordedState } = replica;
  if (state === 'rebuilding') {
    const how = progress === undefined ? '' : ` (${rebuildText(progress, { bar: false })})`;
    return `${replicaId} is catching up${how}`;
  }
  const verb = recordedState === 'in-sync' ? 'has just failed' : 'is out';
  return `${replicaId} ${verb}`;
}

function equalText({ unequalExtents }: EngineStatus): string {
  if (unequalExtents === 0) return '';
  return (
    `; ${unequalExtents} MiB are still made equal after an unclean stop, ` +
    'and what is asked for goes first'
  );
}

function faultedSentence(status: EngineStatus): string {
  const { volume, reason, stateMs, ioTimeoutMs, refusing, parkedOperations } = status;
  const long = durationText(stateMs);
  const why = reason === '' ? '' : `: ${reason.replace(/\.$/, '')}`;
  if (refusing) return `${volume} does not serve, for ${long}, and I/O fails${why}.`;
  const leftMs = ioTimeoutMs - stateMs;
  const ends = leftMs > 0 ? `, and fails in ${durationText(leftMs)}` : '';
  const waiting = `I/O waits (${parkedOperations} operations)${ends}`;
  return `${volume} does not serve, for ${long}; ${waiting}${why}.`;
}

/** Most urgent first: what keeps the volume from serving, then what keeps it from being whole. */
const URGENT: readonly ReplicaSituation[] = ['needed', 'excluding', 'fenced'];

function todoOf(status: EngineStatus, replicas: readonly ReplicaStory[]): readonly string[] {
  const rank = ({ situation }: ReplicaStory): number => (URGENT.includes(situation) ? 0 : 1);
  const wanted = replicas.filter(({ hint, state }) => hint !== '' && state !== 'in-sync');
  const sorted = [...wanted].sort((a, b) => rank(a) - rank(b));
  const todo = sorted.map(({ replicaId, hint }) => `${replicaId}: ${hint}`);
  if (status.state === 'faulted') todo.push(salvageText(status));
  return todo;
}

function salvageText({ volume }: EngineStatus): string {
  return (
    `only if a copy that ${volume} needs is lost for good: stop the engine and start it with ` +
    '--salvage; that may lose acknowledged writes'
  );
}
