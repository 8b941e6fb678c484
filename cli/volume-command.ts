/** `aurochs volume …`: what there is to know about a volume. */
import type { Command } from 'commander';
import { engineOption, nameArgument, outputOption } from './options.js';
import { createOutput, type OutputFormat, printResult } from './report.js';
import { withVolume } from './volume-client.js';
import { renderVolume } from './volume-text.js';
import { watchVolume } from './watch-volume.js';

interface Flags {
  readonly engine?: string;
  readonly output: OutputFormat;
  readonly watch?: true;
}

const EXAMPLES = `
Example:
  aurochs volume show demo --engine unix:.aurochs/run/demo.control.sock -o json`;

export function addVolumeCommand(program: Command): void {
  const volume = program.command('volume').description('volumes');
  volume
    .command('show')
    .description('state, size and copies of one volume')
    .argument('<volume>', 'name of the volume', nameArgument)
    .option('--watch', 'show it again whenever it changes')
    .addOption(engineOption())
    .addOption(outputOption())
    .addHelpText('after', EXAMPLES)
    .action(async (name: string, flags: Flags) => show(name, flags));
}

async function show(name: string, flags: Flags): Promise<void> {
  const output = createOutput(flags.output);
  const { engine } = flags;
  if (flags.watch !== true) {
    const status = await withVolume(name, { engine }, (client) => client.status());
    printResult(output, status, renderVolume);
    return;
  }
  await watchVolume(name, { engine, output, render: renderVolume }, async (client) => {
    const status = await client.status();
    const { state, reason, refusing, epoch, generation, replicas } = status;
    const phases = replicas.map((replica) => [replica.state, replica.progress?.phase]);
    const key = JSON.stringify([state, reason, refusing, epoch, generation, phases]);
    return { value: status, key };
  });
}
