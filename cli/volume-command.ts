/** `aurochs volume …`: what there is to know about a volume. */
import type { Command } from 'commander';
import { formatSize } from '../common/units.js';
import type { EngineStatus } from '../proto/control.js';
import { engineStatus } from './engine-status.js';
import { engineOption, nameArgument, outputOption } from './options.js';
import { createOutput, type OutputFormat, printResult } from './report.js';

const EXAMPLES = `
Example:
  aurochs volume show demo --engine unix:.aurochs/run/demo.control.sock -o json`;

export function addVolumeCommand(program: Command): void {
  const volume = program.command('volume').description('volumes');
  volume
    .command('show')
    .description('state, size and copies of one volume')
    .argument('<volume>', 'name of the volume', nameArgument)
    .addOption(engineOption())
    .addOption(outputOption())
    .addHelpText('after', EXAMPLES)
    .action(async (name: string, flags: { engine?: string; output: OutputFormat }) => {
      const status = await engineStatus(name, { engine: flags.engine });
      printResult(createOutput(flags.output), status, renderVolume);
    });
}

export function renderVolume(status: EngineStatus): string {
  const inSync = status.replicas.filter((replica) => replica.state === 'in-sync').length;
  const rows: Array<[string, string]> = [
    ['volume', status.volume],
    ['size', formatSize(status.sizeBytes)],
    ['state', status.reason === '' ? status.state : `${status.state}: ${status.reason}`],
    ['copies', `${inSync} of ${status.replicas.length} in sync`],
    ['epoch', `${status.epoch}, generation ${status.generation}`],
    ['engine', status.engineId],
    ...status.uris.map((uri): [string, string] => ['uri', uri]),
  ];
  return rows.map(([key, value]) => `${key.padEnd(8)}${value}`).join('\n');
}
