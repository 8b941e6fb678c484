/** `aurochs up`: the all-in-one in the foreground. */

import { mkdir } from 'node:fs/promises';
import { constants } from 'node:os';
import path from 'node:path';
import type { Command } from 'commander';
import { SystemClock } from '../common/clock.js';
import { StorageError } from '../common/errors.js';
import { formatSize } from '../common/units.js';
import { noDeviceReason } from './device-support.js';
import { findInstallation } from './installation.js';
import {
  countArgument,
  nameArgument,
  outputOption,
  rateArgument,
  sizeArgument,
} from './options.js';
import { createOutput, type Output, type OutputFormat } from './report.js';
import { Up, type UpOptions, type UpState } from './up.js';
import { mergeConfig, NODES_MAX, readConfig, type UpConfig, writeConfig } from './up-config.js';

interface UpFlags {
  readonly data: string;
  readonly nodes?: number;
  readonly diskSize?: number;
  readonly volume?: string;
  readonly size?: number;
  readonly device?: true;
  readonly demo?: true;
  readonly ioTimeout?: number;
  readonly rebuildRate?: number;
  readonly scrubInterval?: number;
  readonly output: OutputFormat;
}

const EXAMPLES = `
Examples:
  aurochs up --data ./demo --demo          three copies on this machine, a device if root
  aurochs up --data /srv/a --nodes 2 --volume pg --size 100GiB --disk-size 200GiB
  kill -TERM $(cat /srv/a/run/up.pid)      stops in order: engine, then replicas

The data folder remembers --nodes, --disk-size, --volume and --size: a later start needs
only --data.`;

export function addUpCommand(program: Command): void {
  program
    .command('up')
    .description('replica daemons and one engine on this machine, in the foreground')
    .requiredOption('--data <dir>', 'folder for disks, sockets, pid files and logs')
    .option('--nodes <count>', 'replica daemons, one copy each (3)', countArgument(1, NODES_MAX))
    .option('--disk-size <size>', 'disk file of each daemon, sparse (10GiB)', sizeArgument)
    .option('--volume <name>', 'name of the volume (demo)', nameArgument)
    .option('--size <size>', 'size of the volume (1GiB)', sizeArgument)
    .option('--device', 'make a block device of the volume; needs root')
    .option('--demo', 'a device if this host can, and example commands')
    .option(
      '--io-timeout <seconds>',
      'as of aurochs engine; for this run',
      countArgument(0, 604_800),
    )
    .option('--rebuild-rate <size>', 'as of aurochs engine; for this run', rateArgument)
    .option('--scrub-interval <days>', 'as of aurochs engine; for this run', countArgument(0, 3650))
    .addOption(outputOption())
    .addHelpText('after', EXAMPLES)
    .action(async (flags: UpFlags) => runUp(flags));
}

async function runUp(flags: UpFlags): Promise<void> {
  const output = createOutput(flags.output);
  const dataDir = path.resolve(flags.data);
  if (dataDir.includes(',')) {
    throw new StorageError('INVALID_ARGUMENT', `--data ${dataDir} has a comma in its path`);
  }
  const config = await configure(dataDir, flags);
  const device = await wantsDevice(flags, output);
  const volume = `volume ${config.volume} of ${formatSize(config.sizeBytes)}`;
  output.note(`data in ${dataDir}: ${config.nodes} replica daemons, ${volume}`);
  const up = new Up({
    dataDir,
    config,
    program: findInstallation().aurochs,
    device,
    engineFlags: engineFlags(flags),
    clock: new SystemClock(),
    note: (text) => output.note(text),
  });
  const stopped = stopOnSignal(up, output);
  try {
    const state = await up.start();
    announce(output, state, { config, demo: flags.demo === true });
  } catch (error) {
    // A signal during the start makes the start fail: that is a clean stop, not an error.
    if (!stopped.asked) throw error;
  }
  await stopped.done;
  output.note('stopped');
}

/** How the engine behaves is not what the folder was made with: it is said anew at each start. */
function engineFlags({ ioTimeout, rebuildRate, scrubInterval }: UpFlags): string[] {
  const given: ReadonlyArray<readonly [string, number | undefined]> = [
    ['--io-timeout', ioTimeout],
    ['--rebuild-rate', rebuildRate],
    ['--scrub-interval', scrubInterval],
  ];
  return given.flatMap(([flag, value]) => (value === undefined ? [] : [flag, String(value)]));
}

async function configure(dataDir: string, flags: UpFlags): Promise<UpConfig> {
  await mkdir(dataDir, { recursive: true });
  const stored = await readConfig(dataDir);
  const config = mergeConfig(stored, {
    ...(flags.nodes === undefined ? {} : { nodes: flags.nodes }),
    ...(flags.diskSize === undefined ? {} : { diskSizeBytes: flags.diskSize }),
    ...(flags.volume === undefined ? {} : { volume: flags.volume }),
    ...(flags.size === undefined ? {} : { sizeBytes: flags.size }),
  });
  if (stored === undefined) await writeConfig(dataDir, config);
  return config;
}

/** `--device` insists; `--demo` takes what the host offers and says why not. */
async function wantsDevice(flags: UpFlags, output: Output): Promise<UpOptions['device']> {
  if (flags.device !== true && flags.demo !== true) return 'no';
  const reason = await noDeviceReason();
  if (reason === undefined) return flags.device === true ? 'require' : 'try';
  if (flags.device === true) {
    throw new StorageError('UNSUPPORTED', `no block device: ${reason}`, {
      hint: 'aurochs doctor tells what this host offers',
    });
  }
  output.note(`no block device: ${reason}; the NBD socket works all the same`);
  return 'no';
}

/** SIGINT and SIGTERM stop once, in order; further signals change nothing, the stop has its own
 *  deadlines. */
function stopOnSignal(up: Up, output: Output): { asked: boolean; done: Promise<void> } {
  const result = { asked: false, done: Promise.resolve() };
  result.done = new Promise((resolve, reject) => {
    const onSignal = (signal: NodeJS.Signals): void => {
      if (result.asked) return;
      result.asked = true;
      output.note(`${signal} (${constants.signals[signal]}): stopping, engine first`);
      up.stop().then(resolve, reject);
    };
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, onSignal);
  });
  return result;
}

function announce(
  output: Output,
  state: UpState,
  options: { config: UpConfig; demo: boolean },
): void {
  if (output.format === 'json') {
    output.print(JSON.stringify({ ready: state.uri, volume: options.config, ...state }));
    return;
  }
  for (const node of state.nodes) output.print(`${node.name} ${node.disk}`);
  if (state.device !== undefined) output.print(`device ${state.device}`);
  output.print(`control ${state.control}`);
  if (options.demo) output.print(examples(state, options.config));
  output.print(`ready ${state.uri}`);
}

function examples(state: UpState, config: UpConfig): string {
  const lines = [
    '',
    'Try, in another terminal:',
    `  nbdinfo '${state.uri}'`,
    `  bin/aurochs replica ls ${config.volume} --engine ${state.control}`,
    `  bin/aurochs volume show ${config.volume} --engine ${state.control}`,
    `  bin/aurochs explain ${config.volume} --engine ${state.control}`,
  ];
  if (state.device !== undefined) {
    lines.push(`  mkfs.ext4 ${state.device} && mount ${state.device} /mnt`);
  } else {
    lines.push(`  nbdcopy FILE '${state.uri}'`);
  }
  const compare = state.nodes.map((node) => `--disk ${node.disk} --data ${node.data}`);
  lines.push(
    'After Ctrl-C, compare the copies byte by byte:',
    `  bin/aurochs replica compare ${compare.join(' ')} ${config.volume}`,
    '',
  );
  return lines.join('\n');
}
