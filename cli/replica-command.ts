/** `aurochs replica ls|add|remove|replace`. The daemon itself (`aurochs replica --listen …`) and
 *  `replica compare` are another program. */
import type { Command } from 'commander';
import { SystemClock } from '../common/clock.js';
import type { EngineStatus } from '../proto/control.js';
import {
  addressArgument,
  engineOption,
  nameArgument,
  outputOption,
  replicaArgument,
} from './options.js';
import {
  type ChangeDone,
  changeReplicas,
  dataText,
  type ReplicaChange,
  removeReplica,
} from './replica-change.js';
import { planAdd, planReplace } from './replica-plan.js';
import { renderReplicas } from './replica-text.js';
import { createLiveLine, createOutput, type OutputFormat, printResult } from './report.js';
import { type VolumeAccess, withVolume } from './volume-client.js';
import { watchVolume } from './watch-volume.js';

interface Flags {
  readonly engine?: string;
  readonly output: OutputFormat;
}

const statusOf = (volume: string, access: VolumeAccess): Promise<EngineStatus> =>
  withVolume(volume, access, (client) => client.status());

interface ChangeFlags extends Flags {
  readonly wait: boolean;
  readonly deleteData?: true;
}

const SOCKET = 'unix:.aurochs/run/demo.control.sock';
const LS_EXAMPLES = `
Example:
  aurochs replica ls demo --engine ${SOCKET} --watch`;
const ADD_EXAMPLES = `
Example:
  aurochs replica add demo 10.0.0.4:9601 --engine ${SOCKET}

It waits until the copy is in sync. Interrupted, the copying goes on; repeated, the command goes
on waiting. Name the new daemon at the next start of the engine, too (--replica).`;
const REMOVE_EXAMPLES = `
Examples:
  aurochs replica remove demo r-0123456789ab --engine ${SOCKET}
  aurochs replica remove demo r-0123456789ab --delete-data --address 10.0.0.2:9601 \\
    --engine ${SOCKET}

The last in-sync copy is never taken off. The data stays on its daemon without --delete-data.`;
const REPLACE_EXAMPLES = `
Examples:
  aurochs replica replace demo r-0123456789ab 10.0.0.4:9601 --engine ${SOCKET}

The new copy is added and filled first, then the old one is taken off. Interrupt and repeat it as
you like. For a new disk in the old place, give the address of the same daemon.`;

export function addReplicaCommand(program: Command): void {
  const replica = program
    .command('replica')
    .description('one replica daemon, or the copies of a volume (see aurochs replica --help)');
  addList(replica);
  shared(replica.command('add'), 'a new copy on another replica daemon', ADD_EXAMPLES)
    .argument('<volume>', 'name of the volume', nameArgument)
    .argument('<address>', 'replica daemon, HOST:PORT or unix:PATH', addressArgument)
    .option('--no-wait', 'do not wait until the copy is in sync')
    .action(async (volume: string, address: string, flags: ChangeFlags) =>
      runAdd(volume, address, flags),
    );
  shared(replica.command('remove'), 'take a copy off the volume', REMOVE_EXAMPLES)
    .argument('<volume>', 'name of the volume', nameArgument)
    .argument('<replica>', 'id of the copy', replicaArgument)
    .option('--delete-data', 'delete its data on its daemon, too')
    .option('--address <address>', 'where the data of a former copy is', addressArgument)
    .action(async (volume: string, id: string, flags: ChangeFlags & { address?: string }) =>
      runRemove(volume, id, flags),
    );
  shared(replica.command('replace'), 'a new copy in the place of another', REPLACE_EXAMPLES)
    .argument('<volume>', 'name of the volume', nameArgument)
    .argument('<replica>', 'id of the copy to be replaced', replicaArgument)
    .argument('<address>', 'replica daemon of the new one', addressArgument)
    .option('--no-wait', 'only add the new copy; repeated later, take the old one off')
    .option('--delete-data', 'delete the data of the old copy on its daemon, too')
    .action(async (volume: string, id: string, address: string, flags: ChangeFlags) =>
      runReplace(volume, { id, address }, flags),
    );
}

function shared(command: Command, description: string, examples: string): Command {
  return command
    .description(description)
    .addOption(engineOption())
    .addOption(outputOption())
    .addHelpText('after', examples);
}

function addList(replica: Command): void {
  shared(replica.command('ls'), 'the copies of a volume, as its engine sees them', LS_EXAMPLES)
    .argument('<volume>', 'name of the volume', nameArgument)
    .option('--watch', 'show them again whenever they change')
    .action(async (volume: string, flags: Flags & { watch?: true }) => {
      const output = createOutput(flags.output);
      const { engine } = flags;
      if (flags.watch !== true) {
        const { replicas } = await statusOf(volume, { engine });
        printResult(output, replicas, renderReplicas);
        return;
      }
      await watchVolume(volume, { engine, output, render: renderReplicas }, async (client) => {
        const { replicas } = await client.status();
        const states = replicas.map((r) => [r.replicaId, r.state, r.reason, r.progress?.phase]);
        return { value: replicas, key: JSON.stringify(states) };
      });
    });
}

function changeOf(volume: string, address: string, flags: ChangeFlags): ReplicaChange {
  const clock = new SystemClock();
  return {
    ...{ volume, address, clock, access: { engine: flags.engine }, live: createLiveLine(clock) },
    deleteData: flags.deleteData === true,
    wait: flags.wait,
    note: (text) => createOutput(flags.output).note(text),
  };
}

async function runAdd(volume: string, address: string, flags: ChangeFlags): Promise<void> {
  const change = changeOf(volume, address, flags);
  const steps = planAdd(await statusOf(volume, change.access), address);
  tell(await changeReplicas(steps, change), flags);
}

async function runReplace(
  volume: string,
  { id, address }: { readonly id: string; readonly address: string },
  flags: ChangeFlags,
): Promise<void> {
  const change = changeOf(volume, address, flags);
  const steps = planReplace(await statusOf(volume, change.access), id, address);
  tell(await changeReplicas(steps, change), flags);
}

/** The notes on the way are the text; programs get one document. */
function tell(done: ChangeDone, flags: Flags): void {
  const output = createOutput(flags.output);
  if (output.format === 'json') printResult(output, done, () => '');
  else if (done.left > 0) output.note('not waiting: repeat the command to see it through');
}

async function runRemove(
  volume: string,
  id: string,
  flags: ChangeFlags & { readonly address?: string },
): Promise<void> {
  const output = createOutput(flags.output);
  const { engine } = flags;
  const access = { engine };
  const deleteData = flags.deleteData === true;
  const note = (text: string): void => output.note(text);
  if (flags.address === undefined) {
    const data = await removeReplica(id, { volume, access, deleteData, note });
    if (output.format === 'json') printResult(output, { removed: id, data }, () => '');
    return;
  }
  const request = { replicaId: id, deleteData, address: flags.address };
  const data = await withVolume(volume, access, (client) => client.removeReplica(request));
  printResult(
    output,
    { removed: id, data },
    () => `${id} is no member${dataText(id, { volume, engine }, data)}`,
  );
}
