/** `aurochs engine`: one standalone engine process. Outside contract: docs/operating.md. */
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { isLoopback, parseTcpAddress } from '../common/address.js';
import { SystemClock } from '../common/clock.js';
import { ERROR_CODES, StorageError, toStorageError } from '../common/errors.js';
import { createLogger } from '../common/log.js';
import { checkName } from '../common/names.js';
import { BLOCK_SIZE, parseSize, VOLUME_SIZE_MAX } from '../common/units.js';
import type { TransportTls } from '../proto/transport.js';
import {
  DAY_MS,
  DEFAULT_TUNING,
  type EngineConfig,
  type EngineTuning,
  REPLICAS_MAX,
} from './engine-config.js';
import { checkReplicaAddress, EXPOSURE_HINT } from './exposure.js';
import type { NbdAddress, NbdTls } from './nbd/server.js';
import { type EngineProcessOptions, runEngine } from './process.js';

/** A week: longer than that nobody waits for a disk to answer. */
const IO_TIMEOUT_SECONDS_MAX = 604_800;
const SCRUB_DAYS_MAX = 3650;

interface Flags {
  readonly volume: string;
  readonly size?: number;
  readonly replica: readonly string[];
  readonly nbd: NbdAddress;
  readonly control?: string;
  readonly runDir?: string;
  readonly device: boolean;
  readonly salvage: boolean;
  readonly metrics?: string;
  readonly tlsCa?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly nbdTlsCa?: string;
  readonly nbdTlsCert?: string;
  readonly nbdTlsKey?: string;
  readonly insecure: boolean;
  readonly ioTimeout: number;
  readonly rebuildRate: number;
  readonly scrubInterval: number;
}

/** Runs a parser of ours as commander's: its error becomes a usage error. */
function parsed<T>(parse: (text: string) => T): (text: string) => T {
  return (text) => {
    try {
      return parse(text);
    } catch (error) {
      throw new InvalidArgumentError(toStorageError(error, 'argument').message);
    }
  };
}

/** For commander: a whole number from 0 to the limit. */
function wholeNumber(max: number): (text: string) => number {
  return (text) => {
    const value = /^[0-9]{1,9}$/.test(text) ? Number(text) : Number.NaN;
    if (value <= max) return value;
    throw new InvalidArgumentError(`must be a whole number from 0 to ${max}`);
  };
}

function parseVolumeSize(text: string): number {
  const bytes = parseSize(text);
  if (bytes < BLOCK_SIZE || bytes > VOLUME_SIZE_MAX || bytes % BLOCK_SIZE !== 0) {
    throw new StorageError(
      'INVALID_ARGUMENT',
      `volume size ${bytes} is not a multiple of ${BLOCK_SIZE} up to ${VOLUME_SIZE_MAX}`,
    );
  }
  return bytes;
}

/** `unix:PATH` or `tcp:HOST:PORT`. */
function parseNbdAddress(text: string): NbdAddress {
  if (text.startsWith('unix:') && text.length > 5) return { path: resolve(text.slice(5)) };
  if (text.startsWith('tcp:')) return parseTcpAddress(text.slice(4));
  throw new StorageError('INVALID_ARGUMENT', `"${text}" is neither unix:PATH nor tcp:HOST:PORT`);
}

function buildCommand(): Command {
  const collect = (text: string, before: readonly string[] = []): string[] => [...before, text];
  return new Command('aurochs engine')
    .description('Serve one volume from its replicas, without a manager.')
    .requiredOption(
      '--volume <name>',
      'name of the volume',
      parsed((t) => checkName(t, 'volume')),
    )
    .addOption(
      new Option('--size <size>', 'create with this size').argParser(parsed(parseVolumeSize)),
    )
    .requiredOption(
      '--replica <address>',
      'replica daemon, HOST:PORT or unix:PATH; repeat',
      collect,
    )
    .requiredOption('--nbd <address>', 'unix:PATH or tcp:HOST:PORT', parsed(parseNbdAddress))
    .option('--control <address>', 'control socket, unix:PATH')
    .option('--run-dir <dir>', 'state of the block device (default: beside the NBD socket)')
    .option('--device', 'also attach a block device on this host', false)
    .option('--salvage', 'open with the members that are left; may lose acknowledged writes', false)
    .option('--metrics <address>', 'Prometheus endpoint, HOST:PORT')
    .option('--tls-ca <file>', 'certificate authority of the replica connections')
    .option('--tls-cert <file>', 'certificate of this engine')
    .option('--tls-key <file>', 'its key')
    .option('--nbd-tls-ca <file>', 'certificate authority of NBD clients')
    .option('--nbd-tls-cert <file>', 'certificate of the NBD server')
    .option('--nbd-tls-key <file>', 'its key')
    .option('--insecure', 'allow plain TCP beyond loopback', false)
    .option(
      '--io-timeout <seconds>',
      'how long I/O waits without an in-sync replica before it fails',
      wholeNumber(IO_TIMEOUT_SECONDS_MAX),
      DEFAULT_TUNING.lostDeadlineMs / 1000,
    )
    .option(
      '--rebuild-rate <size>',
      'most that a catch-up copies per second, such as 100MiB; 0: no limit',
      parsed(parseSize),
      DEFAULT_TUNING.pacer.bytesPerSecond,
    )
    .option(
      '--scrub-interval <days>',
      'a scrub begins when the last one is older; 0: only when asked for',
      wholeNumber(SCRUB_DAYS_MAX),
      DEFAULT_TUNING.scrubEveryMs / DAY_MS,
    )
    .addHelpText(
      'after',
      `
Example:
  aurochs engine --volume db --size 10GiB --replica 127.0.0.1:9601 --replica 127.0.0.1:9602 \\
    --replica 127.0.0.1:9603 --nbd unix:/run/aurochs/db.sock`,
    )
    .exitOverride();
}

function transportTls(flags: Flags): TransportTls | undefined {
  const { tlsCa: ca, tlsCert: cert, tlsKey: key } = flags;
  if (ca === undefined && cert === undefined && key === undefined) return undefined;
  if (ca === undefined || cert === undefined || key === undefined) {
    throw new StorageError('INVALID_ARGUMENT', '--tls-ca, --tls-cert and --tls-key go together');
  }
  return { ca, cert, key };
}

function nbdTls(flags: Flags): NbdTls | undefined {
  const { nbdTlsCa: ca, nbdTlsCert: cert, nbdTlsKey: key } = flags;
  if (ca === undefined && cert === undefined && key === undefined) return undefined;
  if (cert === undefined || key === undefined) {
    throw new StorageError('INVALID_ARGUMENT', '--nbd-tls-cert and --nbd-tls-key go together');
  }
  return {
    ...(ca === undefined ? {} : { ca: readFileSync(ca) }),
    cert: readFileSync(cert),
    key: readFileSync(key),
    requireClientCert: ca !== undefined,
  };
}

/** No plaintext beyond this host unless a person says so (correctness 3.1). */
function checkExposure(flags: Flags): void {
  if (flags.insecure) return;
  if ('host' in flags.nbd && !isLoopback(flags.nbd.host) && flags.nbdTlsCert === undefined) {
    const hint = EXPOSURE_HINT;
    throw new StorageError('PERMISSION', `NBD on ${flags.nbd.host} without TLS`, { hint });
  }
}

function tuningOf(flags: Flags): EngineTuning {
  const { ioTimeout, rebuildRate, scrubInterval } = flags;
  const { pacer } = DEFAULT_TUNING;
  return {
    ...DEFAULT_TUNING,
    lostDeadlineMs: ioTimeout * 1000,
    pacer: { ...pacer, bytesPerSecond: rebuildRate },
    scrubEveryMs: scrubInterval * DAY_MS,
  };
}

function toOptions(flags: Flags): EngineProcessOptions {
  if (flags.replica.length > REPLICAS_MAX) {
    throw new StorageError(
      'LIMIT_EXCEEDED',
      `${flags.replica.length} replicas, at most ${REPLICAS_MAX}`,
    );
  }
  checkExposure(flags);
  const tls = transportTls(flags);
  const { insecure } = flags;
  for (const address of flags.replica) checkReplicaAddress(address, { tls, insecure });
  const socketDir = 'path' in flags.nbd ? dirname(flags.nbd.path) : process.cwd();
  const config: EngineConfig = {
    volume: flags.volume,
    sizeBytes: flags.size,
    replicas: flags.replica,
    salvage: flags.salvage,
    ...{ tls, insecure },
    tuning: tuningOf(flags),
  };
  return {
    config,
    nbd: flags.nbd,
    nbdTls: nbdTls(flags),
    control: flags.control,
    metrics: flags.metrics,
    device: flags.device,
    runDir: resolve(flags.runDir ?? socketDir),
  };
}

/** @returns the exit code: 0 after an orderly stop; see ERROR_CODES otherwise */
export async function main(argv: readonly string[]): Promise<number> {
  try {
    const command = buildCommand();
    command.parse([...argv], { from: 'user' });
    const options = toOptions(command.opts<Flags>());
    return await runEngine(options, { clock: new SystemClock(), log: createLogger('engine') });
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    const failure = toStorageError(error, 'engine');
    process.stderr.write(`error ${failure.code}: ${failure.message}\n`);
    if (failure.details.hint !== undefined) process.stderr.write(`hint: ${failure.details.hint}\n`);
    return ERROR_CODES[failure.code].exit;
  }
}
