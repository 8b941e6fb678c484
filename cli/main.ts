/** The `aurochs` command line tool: parses arguments, runs one command, answers with an exit
 *  code. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { Command, CommanderError } from 'commander';
import { ERROR_CODES, StorageError } from '../common/errors.js';
import { addBenchCommand } from './bench-command.js';
import { addDoctorCommand } from './doctor-command.js';
import { addEventsCommand } from './events-command.js';
import { addExplainCommand } from './explain-command.js';
import { findInstallation } from './installation.js';
import { addReplicaCommand } from './replica-command.js';
import { reportError } from './report.js';
import { addScrubCommand } from './scrub-command.js';
import { addUpCommand } from './up-command.js';
import { addVolumeCommand } from './volume-command.js';

const USAGE_EXIT = ERROR_CODES.INVALID_ARGUMENT.exit;

const EXIT_CODES = `
Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 conflict, 5 unavailable.
Sizes take KiB, MiB, GiB and TiB. Every command has --help with examples.`;

/** Runs one command. Never throws for what a user or the machine did wrong: that is printed and
 *  becomes the result.
 *  @param argv  arguments after `aurochs`
 *  @returns the exit code, from the one table in common/errors.ts */
export async function main(argv: readonly string[]): Promise<number> {
  let exitCode = 0;
  const program = createProgram((code) => {
    exitCode = code;
  });
  try {
    await program.parseAsync([...argv], { from: 'user' });
    return exitCode;
  } catch (error) {
    // Help and version are printed already; commander reports them as errors with status 0.
    if (error instanceof CommanderError && error.exitCode === 0) return 0;
    // A command group without its command: commander has printed the help.
    if (error instanceof CommanderError && error.code === 'commander.help') return USAGE_EXIT;
    return reportError(usageError(error), { json: wantsJson(argv) });
  }
}

/** @param setExitCode  for commands that end in order but have bad news, such as `doctor` */
export function createProgram(setExitCode: (code: number) => void): Command {
  const program = new Command('aurochs');
  program
    .description('Replicated block storage: every acknowledged flush is on every copy.')
    .version(packageVersion(), '-V, --version')
    .exitOverride()
    .configureOutput({ outputError: () => undefined })
    .showHelpAfterError(false)
    .addHelpText('after', EXIT_CODES);
  addUpCommand(program);
  program
    .command('engine')
    .description('one engine: serves one volume over NBD (see aurochs engine --help)')
    .helpOption(false);
  addReplicaCommand(program);
  addVolumeCommand(program);
  addExplainCommand(program);
  addEventsCommand(program);
  addScrubCommand(program, setExitCode);
  addDoctorCommand(program, setExitCode);
  addBenchCommand(program);
  return program;
}

function usageError(error: unknown): unknown {
  if (!(error instanceof CommanderError)) return error;
  const message = error.message.replace(/^error: /, '').replace(/\s*\n\s*/g, ' ');
  const hint = 'aurochs --help lists the commands; aurochs COMMAND --help explains one';
  return new StorageError('INVALID_ARGUMENT', message, { hint });
}

function wantsJson(argv: readonly string[]): boolean {
  return argv.some(
    (arg, index) =>
      arg === '-ojson' ||
      arg === '--output=json' ||
      (arg === 'json' && ['-o', '--output'].includes(argv[index - 1] ?? '')),
  );
}

function packageVersion(): string {
  const file = path.join(findInstallation().root, 'package.json');
  const parsed: { version?: unknown } = JSON.parse(readFileSync(file, 'utf8'));
  return String(parsed.version);
}
