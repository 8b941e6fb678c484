/** The story of a volume for a person. Pure. */
import { barText } from '../progress-bar.js';
import { agoText, durationText, wallText, zoneText } from '../time-text.js';
import type { ChainLink } from './chain.js';
import type { ReplicaStory, Story } from './story.js';
import type { TimelineEntry } from './timeline.js';

export interface TextOptions {
  /** of the reader, ahead of UTC */
  readonly zoneMinutes: number;
  readonly bar: boolean;
}

const NAME_COLUMNS = 14;
const KIND_COLUMNS = 11;

export function storyText(story: Story, options: TextOptions): string {
  const parts = [
    story.sentence,
    story.replicas.map((replica) => replicaText(replica, story, options)).join('\n\n'),
    story.todo.length === 0 ? 'Nothing is to be done.' : todoText(story.todo),
    timelineText(story, options),
  ];
  return parts.filter((part) => part !== '').join('\n\n');
}

function replicaText(replica: ReplicaStory, story: Story, options: TextOptions): string {
  const { replicaId, address, state, now, progress, chain } = replica;
  const lines = [`${replicaId} at ${address}: ${state}`, `  now   ${now}`];
  if (options.bar && progress !== undefined && progress.totalBytes > 0) {
    lines.push(`        ${barText(progress)}`);
  }
  for (const [index, link] of chain.entries()) {
    const head = index === 0 ? '  why   ' : '     -> ';
    lines.push(`${head}${linkText(link, story.wallMs)}`);
  }
  return lines.join('\n');
}

/** `failed (EIO): write refused, 3 min ago`. */
export function linkText(link: ChainLink, nowMs: number): string {
  const cause =
    link.errno || (link.kind === 'excluded' || link.kind === 'in-sync' ? '' : link.code);
  const { generation, generationBefore, text, kind } = link;
  // Many texts begin with what kind of event it is.
  const head = text.startsWith(kind) ? '' : `${kind}: `;
  const why = cause === '' ? '' : ` (${cause})`;
  const changed = generation > generationBefore;
  const change = changed ? ` [generation ${generationBefore} -> ${generation}]` : '';
  return `${head}${text}${why}${change}, ${whenText(link, nowMs)}`;
}

function whenText(
  { wallMs, lastWallMs, count }: Pick<ChainLink, 'wallMs' | 'lastWallMs' | 'count'>,
  nowMs: number,
): string {
  const ago = agoText(lastWallMs, nowMs);
  if (count === 1) return ago;
  return `${count} times in ${durationText(lastWallMs - wallMs)}, last ${ago}`;
}

function todoText(todo: readonly string[]): string {
  return ['What to do:', ...todo.map((text, index) => `  ${index + 1}. ${text}`)].join('\n');
}

function timelineText({ timeline, wallMs }: Story, options: TextOptions): string {
  if (timeline.length === 0) return '';
  const zone = zoneText(options.zoneMinutes);
  const lines = timeline.map((entry) => entryText(entry, wallMs, options.zoneMinutes));
  return [`What happened, newest last (${zone}):`, ...lines].join('\n');
}

/** One line of a time line. */
export function entryText(entry: TimelineEntry, nowMs: number, zoneMinutes: number): string {
  const { wallMs, lastWallMs, count, kind, replica, text, alike } = entry;
  const ago = agoText(lastWallMs, nowMs).padStart(16);
  const who = (replica === '' ? '-' : replica).padEnd(NAME_COLUMNS);
  const more = alike ? `, and ${count - 1} more like it` : ` (${count} times)`;
  const repeated = count === 1 ? '' : `${more}, until ${wallText(lastWallMs, zoneMinutes)}`;
  const what = `${kind.padEnd(KIND_COLUMNS)} ${text}${repeated}`;
  return `  ${wallText(wallMs, zoneMinutes)} ${ago}  ${who} ${what}`;
}
