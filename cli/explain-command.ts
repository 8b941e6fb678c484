/** `aurochs explain`: why a volume is as it is, and what to do. */
import type { Command } from 'commander';
import { type Consequence, consequenceText, ifLost } from './explain/if-lost.js';
import { type Story, storyOf } from './explain/story.js';
import { storyText } from './explain/story-text.js';
import { durationArgument, engineOption, nameArgument, outputOption } from './options.js';
import { createOutput, type OutputFormat, printResult } from './report.js';
import { zoneMinutesAt } from './time-text.js';
import { type VolumeClient, withVolume } from './volume-client.js';
import { type View, watchVolume } from './watch-volume.js';

interface Flags {
  readonly engine?: string;
  readonly output: OutputFormat;
  readonly since: number;
  readonly ifLost?: readonly string[];
  readonly watch?: true;
}

const DAY_MS = 86_400_000;

const EXAMPLES = `
Examples:
  aurochs explain demo --engine unix:.aurochs/run/demo.control.sock
  aurochs explain demo --engine unix:/run/demo.control.sock --since 1h --watch
  aurochs explain demo --engine unix:/run/demo.control.sock --if-lost 10.0.0.2 10.0.0.3:9601`;

export function addExplainCommand(program: Command): void {
  program
    .command('explain')
    .description('the story of a volume: how it is, why, and what to do')
    .argument('<volume>', 'name of the volume', nameArgument)
    .option(
      '--since <time>',
      'how far back the time line goes: 90s, 30min, 1h, 7d',
      durationArgument,
      DAY_MS,
    )
    .option('--if-lost <copy...>', 'what would happen without these replicas, daemons or hosts')
    .option('--watch', 'show it again whenever it changes')
    .addOption(engineOption())
    .addOption(outputOption())
    .addHelpText('after', EXAMPLES)
    .action(async (name: string, flags: Flags) => explain(name, flags));
}

/** The story, or what would become of it. */
type Explained = { readonly story: Story } | { readonly ifLost: Consequence };

async function explain(volume: string, flags: Flags): Promise<void> {
  const output = createOutput(flags.output);
  const { engine } = flags;
  const render = (value: Explained): string =>
    'ifLost' in value
      ? consequenceText(value.ifLost)
      : storyText(value.story, {
          zoneMinutes: zoneMinutesAt(value.story.wallMs),
          bar: output.terminal,
        });
  const look = (client: VolumeClient): Promise<View<Explained>> => lookAt(client, flags);
  if (flags.watch === true) await watchVolume(volume, { engine, output, render }, look);
  else printResult(output, (await withVolume(volume, { engine }, look)).value, render);
}

async function lookAt(client: VolumeClient, flags: Flags): Promise<View<Explained>> {
  const status = await client.status();
  if (flags.ifLost !== undefined) {
    const consequence = ifLost(status, flags.ifLost);
    return { value: { ifLost: consequence }, key: JSON.stringify(consequence) };
  }
  const events = await client.events(0);
  const { engine = '', since } = flags;
  const story = storyOf({ status, events, engine, sinceMs: since });
  const newest = events.at(-1);
  const states = story.replicas.map((r) => [r.replicaId, r.situation, r.progress?.phase]);
  const key = JSON.stringify([story.state, states, newest?.seq, newest?.count]);
  return { value: { story }, key };
}
