/** `aurochs replica`: one replica daemon, or an offline comparison of copies.. */
import { resolve } from 'node:path';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { isLoopback, parseTcpAddress } from '../common/address.js';
import { SystemClock } from '../common/clock.js';
import { ERROR_CODES, StorageError, toStorageError } from '../common/errors.js';
import { createLogger, type Logger } from '../common/log.js';
import { checkName } from '../common/names.js';
import type { TransportTls } from '../proto/transport.js';
import { buildCompareCommand } from './compare-command.js';
import { type Daemon, startDaemon } from './daemon.js';
import { type DiskSpec, parseDiskSpec } from './service/disk-spec.js';

interface DaemonFlags {
  readonly listen: string;
  readonly data: string;
  readonly disk: readonly DiskSpec[];
  readonly metrics?: string;
  readonly cluster: string;
  readonly tlsCa?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly insecure: boolean;
}

const DISKS_MAX = 64;

/** Runs a parser of ours as commander's: its error becomes a usage error. */
export function parsed<T>(parse: (text: string) => T): (text: string) => T {
  return (text) => {
    try {
      return parse(text);
    } catch (error) {
      throw new InvalidArgumentError(toStorageError(error, 'argument').message);
    }
  };
}

function buildCommand(run: (code: number) => void): Command {
  return new Command('aurochs replica')
    .description('Keep copies of volumes on the disks of this host, and serve them to engines.')
    .requiredOption('--listen <address>', 'HOST:PORT (port 0: any free one) or unix:PATH')
    .requiredOption('--data <dir>', 'directory of identity and metadata')
    .addOption(
      new Option('--disk <path[,size=SIZE]>', 'block device or file; repeat')
        .makeOptionMandatory()
        .argParser((text: string, before: readonly DiskSpec[] | undefined) => [
          ...(before ?? []),
          parsed(parseDiskSpec)(text),
        ]),
    )
    .option(
      '--cluster <name>',
      'cluster that disks and engines must belong to',
      parsed((text) => checkName(text, 'cluster')),
      'default',
    )
    .option('--metrics <address>', 'Prometheus endpoint, HOST:PORT')
    .option('--tls-ca <file>', 'certificate authority that engines must have')
    .option('--tls-cert <file>', 'certificate of this daemon')
    .option('--tls-key <file>', 'its key')
    .option('--insecure', 'allow plain TCP beyond loopback', false)
    .addHelpText(
      'after',
      `
\`aurochs replica compare --help\` is about comparing the copies on stopped disks,
\`aurochs replica ls|add|remove|replace --help\` about the copies of a volume that is served.

A file is made with the given size if it is missing. What is not provably empty is never formatted.

Example:
  aurochs replica --listen 127.0.0.1:9601 --data /var/lib/aurochs/node1 \\
    --disk /var/lib/aurochs/node1.img,size=10GiB`,
    )
    .exitOverride()
    .action(async (flags: DaemonFlags) => run(await runDaemon(flags)));
}

/** Runs `aurochs replica ARGV`. @returns the exit code: 0 after an orderly stop; see ERROR_CODES
 *  otherwise */
export async function main(argv: readonly string[]): Promise<number> {
  let code = 0;
  try {
    const run = (result: number): void => {
      code = result;
    };
    // Not a subcommand of commander's: the daemon's mandatory options are none of its business.
    const compare = argv[0] === 'compare';
    const command = compare ? buildCompareCommand(run) : buildCommand(run);
    await command.parseAsync([...(compare ? argv.slice(1) : argv)], { from: 'user' });
    return code;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    const failure = toStorageError(error, 'replica');
    process.stderr.write(`error ${failure.code}: ${failure.message}\n`);
    if (failure.details.hint !== undefined) process.stderr.write(`hint: ${failure.details.hint}\n`);
    return ERROR_CODES[failure.code].exit;
  }
}

async function runDaemon(flags: DaemonFlags): Promise<number> {
  const tls = transportTls(flags);
  checkExposure(flags.listen, { tls, insecure: flags.insecure });
  if (flags.disk.length > DISKS_MAX) {
    throw new StorageError('LIMIT_EXCEEDED', `${flags.disk.length} disks, at most ${DISKS_MAX}`);
  }
  // A reader of stdout that went away must not end the daemon (scenario 78).
  process.stdout.on('error', () => undefined);
  const log = createLogger('replica');
  const stop = stopOnSignals(log);
  const daemon = await startDaemon({
    listen: flags.listen,
    dataDir: resolve(flags.data),
    disks: flags.disk,
    clusterId: flags.cluster,
    tls,
    metrics: flags.metrics,
    clock: new SystemClock(),
    log,
  });
  process.stdout.write(`ready ${daemon.address}\n`);
  await stop;
  await stopInOrder(daemon, log);
  return 0;
}

/** Resolves at the first SIGTERM or SIGINT; the second ends the process at once. */
function stopOnSignals(log: Logger): Promise<void> {
  return new Promise((resolveStop) => {
    let signals = 0;
    const onSignal = (signal: NodeJS.Signals): void => {
      signals += 1;
      if (signals > 1) process.exit(1);
      log.info({ signal }, 'stopping');
      resolveStop();
    };
    process.on('SIGTERM', onSignal);
    process.on('SIGINT', onSignal);
  });
}

async function stopInOrder(daemon: Daemon, log: Logger): Promise<void> {
  try {
    await daemon.stop();
  } catch (error) {
    log.error({ error: String(error) }, 'stop failed');
    throw error;
  }
}

function transportTls(flags: DaemonFlags): TransportTls | undefined {
  const { tlsCa: ca, tlsCert: cert, tlsKey: key } = flags;
  if (ca === undefined && cert === undefined && key === undefined) return undefined;
  if (ca === undefined || cert === undefined || key === undefined) {
    throw new StorageError('INVALID_ARGUMENT', '--tls-ca, --tls-cert and --tls-key go together');
  }
  return { ca, cert, key };
}

/** No plaintext beyond this host unless a person says so. */
function checkExposure(
  listen: string,
  security: { tls: TransportTls | undefined; insecure: boolean },
): void {
  if (listen.startsWith('unix:')) return;
  const { host } = parseTcpAddress(listen);
  if (isLoopback(host) || security.tls !== undefined || security.insecure) return;
  throw new StorageError('PERMISSION', `listening on ${listen} without TLS`, {
    hint: 'give --tls-ca, --tls-cert and --tls-key, or --insecure on a network you trust',
  });
}
