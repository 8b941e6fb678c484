/** `aurochs events`: what happened to a volume, one line each. */
import type { Command } from 'commander';
import { SystemClock } from '../common/clock.js';
import type { EngineEvent } from '../proto/control.js';
import { EventFollower } from './event-follower.js';
import { countArgument, engineOption, nameArgument, outputOption } from './options.js';
import { pollVolume } from './poll-volume.js';
import { createOutput, type Output, type OutputFormat, printResult } from './report.js';
import { wallText, zoneMinutesAt } from './time-text.js';
import { withVolume } from './volume-client.js';

interface Flags {
  readonly engine?: string;
  readonly output: OutputFormat;
  readonly lines: number;
  readonly follow?: true;
}

/** As many as an engine keeps. */
const LINES_MAX = 10_000;
const FOLLOW_EVERY_MS = 500;

const EXAMPLES = `
Examples:
  aurochs events demo --engine unix:.aurochs/run/demo.control.sock
  aurochs events demo --engine unix:/run/demo.control.sock --follow -n 10 -o json`;

export function addEventsCommand(program: Command): void {
  program
    .command('events')
    .description('what happened to a volume, oldest first')
    .argument('<volume>', 'name of the volume', nameArgument)
    .option('-n, --lines <count>', 'the newest so many', countArgument(1, LINES_MAX), 50)
    .option('-f, --follow', 'go on with new ones; with json one object per line')
    .addOption(engineOption())
    .addOption(outputOption())
    .addHelpText('after', EXAMPLES)
    .action(async (name: string, flags: Flags) => {
      const output = createOutput(flags.output);
      if (flags.follow === true) await follow(name, flags, output);
      else await list(name, flags, output);
    });
}

async function list(volume: string, flags: Flags, output: Output): Promise<void> {
  const { engine, lines } = flags;
  const events = await withVolume(volume, { engine }, (client) => client.events(0));
  printResult(output, events.slice(-lines), (newest) =>
    newest.length === 0 ? 'nothing has happened yet' : newest.map(eventText).join('\n'),
  );
}

async function follow(volume: string, flags: Flags, output: Output): Promise<void> {
  const { engine, lines } = flags;
  const follower = new EventFollower(lines);
  const show = (event: EngineEvent): void =>
    output.print(output.format === 'json' ? JSON.stringify(event) : eventText(event));
  const onSilent = (reason: string | undefined): void => {
    if (reason !== undefined) process.stderr.write(`the engine does not answer: ${reason}\n`);
  };
  const polling = { engine, clock: new SystemClock(), everyMs: FOLLOW_EVERY_MS, onSilent };
  await pollVolume<never>(volume, polling, async (client) => {
    for (const event of follower.next(await client.events(follower.afterSeq))) show(event);
    return undefined;
  });
}

/** `2026-11-24 21:37:16  r-2  failed (EIO): …`, the time of the last one in the local zone. */
export function eventText(event: EngineEvent, zoneMinutes?: number): string {
  const { lastWallMs, count, kind, text, replica, code, errno } = event;
  const time = wallText(lastWallMs, zoneMinutes ?? zoneMinutesAt(lastWallMs));
  const cause = errno || code;
  const what = cause === '' ? kind : `${kind} (${cause})`;
  const repeated = count === 1 ? '' : ` (${count} times)`;
  return `${time}  ${(replica === '' ? '-' : replica).padEnd(14)} ${what}: ${text}${repeated}`;
}
