/** The report of a scrub in words: what was looked at, what was found, what is proved. Pure. */
import { formatSize } from '../common/units.js';
import type { ScrubReport } from '../proto/control.js';
import { barText } from './progress-bar.js';
import { agoText, durationText, wallText } from './time-text.js';

export interface ScrubTextOptions {
  readonly volume: string;
  readonly nowMs: number;
  readonly zoneMinutes: number;
}

export function scrubText(report: ScrubReport, options: ScrubTextOptions): string {
  const lines = [passText(report, options), ...findings(report), proofText(report, options)];
  return lines.filter((line) => line !== '').join('\n');
}

/** Blocks that are not as they should be still. */
export function openBlocks({ undecidedBlocks, lostBlocks }: ScrubReport): number {
  return undecidedBlocks + lostBlocks;
}

/** One line for a terminal that waits. */
export function scrubLine(report: ScrubReport): string {
  const { doneBytes, totalBytes, hashedBytes } = report;
  const found = foundBlocks(report);
  const how = `${formatSize(doneBytes)} of ${formatSize(totalBytes)}`;
  return `scrub ${barText(report)} ${how}, ${formatSize(hashedBytes)} read, ${found} blocks found`;
}

function foundBlocks(report: ScrubReport): number {
  return report.badBlocks + report.divergentBlocks + openBlocks(report);
}

function passText(report: ScrubReport, options: ScrubTextOptions): string {
  const { state, startedMs, finishedMs, doneBytes, totalBytes, hashedBytes } = report;
  const { volume, nowMs } = options;
  const read = `${formatSize(hashedBytes)} read on all copies together`;
  switch (state) {
    case 'never':
      return `The copies of ${volume} were never compared by a scrub.`;
    case 'running':
      return (
        `A scrub of ${volume} runs, begun ${agoText(startedMs, nowMs)}: ${barText(report)} ` +
        `${formatSize(doneBytes)} of ${formatSize(totalBytes)}, ${read}.`
      );
    case 'stopped':
      return (
        `A scrub of ${volume}, begun ${agoText(startedMs, nowMs)}, is stopped at ` +
        `${formatSize(doneBytes)} of ${formatSize(totalBytes)}; scrub start goes on there.`
      );
    case 'done':
      return (
        `The newest scrub of ${volume} ended ${agoText(finishedMs, nowMs)} after ` +
        `${durationText(finishedMs - startedMs)}: ${read}.`
      );
  }
}

const blocks = (count: number): string => (count === 1 ? '1 block' : `${count} blocks`);

function findings(report: ScrubReport): string[] {
  const { state, badBlocks, divergentBlocks, undecidedBlocks, lostBlocks, repairedBlocks } = report;
  if (state === 'never') return [];
  const lines: string[] = [];
  if (badBlocks > 0) {
    lines.push(`- ${blocks(badBlocks)} did not match the stored checksum on a copy.`);
  }
  if (divergentBlocks > 0) {
    lines.push(
      `- ${blocks(divergentBlocks)} differed on a copy although its checksum was right; the ` +
        'majority of the copies was taken for right.',
    );
  }
  if (repairedBlocks > 0) lines.push(`- ${blocks(repairedBlocks)} rewritten from a good copy.`);
  if (undecidedBlocks > 0) {
    lines.push(
      `- ${blocks(undecidedBlocks)} OPEN: the copies differ, each with a right checksum, and ` +
        'there is no majority. Nothing was changed; the events name the places.',
    );
  }
  if (lostBlocks > 0) {
    lines.push(
      `- ${blocks(lostBlocks)} OPEN: bad on every copy. Reads of them fail; write them again or ` +
        'restore them from a backup.',
    );
  }
  if (lines.length > 0) return lines;
  return [state === 'done' ? 'Nothing was found.' : 'Nothing was found so far.'];
}

function proofText({ provedMs }: ScrubReport, options: ScrubTextOptions): string {
  if (provedMs === 0) return 'No whole pass has proved the copies equal yet.';
  const { nowMs, zoneMinutes } = options;
  return (
    `Proved: all that was written before ${wallText(provedMs, zoneMinutes)} ` +
    `(${agoText(provedMs, nowMs)}) was as written, and equal on all copies that were in sync.`
  );
}
