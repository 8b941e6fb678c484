/** `aurochs replica ls`. The daemon itself (`aurochs replica --listen …`) and `replica compare` are
 *  another program. */
import type { Command } from 'commander';
import { formatSize } from '../common/units.js';
import type { EngineStatus } from '../proto/control.js';
import { engineStatus } from './engine-status.js';
import { engineOption, nameArgument, outputOption } from './options.js';
import { createOutput, type OutputFormat, printResult, renderTable } from './report.js';

const EXAMPLES = `
Example:
  aurochs replica ls demo --engine unix:.aurochs/run/demo.control.sock`;

export function addReplicaCommand(program: Command): void {
  const replica = program
    .command('replica')
    .description('one replica daemon, or a look at copies (see aurochs replica --help)');
  replica
    .command('ls')
    .description('the copies of a volume, as its engine sees them')
    .argument('<volume>', 'name of the volume', nameArgument)
    .addOption(engineOption())
    .addOption(outputOption())
    .addHelpText('after', EXAMPLES)
    .action(async (name: string, flags: { engine?: string; output: OutputFormat }) => {
      const status = await engineStatus(name, { engine: flags.engine });
      printResult(createOutput(flags.output), status.replicas, renderReplicas);
    });
}

export function renderReplicas(replicas: EngineStatus['replicas']): string {
  const head = ['REPLICA', 'STATE', 'ALLOCATED', 'READ', 'WRITE', 'IN-FLIGHT', 'ADDRESS'];
  const rows = replicas.map((replica) => [
    replica.replicaId,
    replica.reason === '' ? replica.state : `${replica.state}: ${replica.reason}`,
    formatSize(replica.allocatedBytes),
    `${replica.readLatencyMs.toFixed(2)}ms`,
    `${replica.writeLatencyMs.toFixed(2)}ms`,
    String(replica.inFlight),
    replica.local ? `${replica.address} (local)` : replica.address,
  ]);
  return renderTable(head, rows);
}
