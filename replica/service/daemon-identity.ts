/** Who a replica daemon is: stable id in its data directory, and what distinguishes this start from
 *  every other (P7). */
import { randomUUID } from 'node:crypto';
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { StorageError } from '../../common/errors.js';
import { checkName, isName } from '../../common/names.js';

export interface DaemonIdentity {
  /** kept in DIR/daemon.json for good */
  readonly daemonId: string;
  readonly clusterId: string;
  /** drawn at each start of the process */
  readonly incarnation: string;
  /** of the running kernel: another one after a restart means that the host lost power or rebooted
   *  (P10) */
  readonly bootId: string;
}

export type StoredIdentity = Pick<DaemonIdentity, 'daemonId' | 'clusterId'>;

const FORMAT_VERSION = 1;
const FILE_BYTES_MAX = 64 * 1024;

/** Reads the identity in `dataDir`, or makes it durable there (written aside, synced, renamed,
 *  directory synced: R7). The directory must be locked by the caller.
 *  @param randomId  draws what no other call ever draws: a name of at most 36 characters
 *  @throws StorageError CORRUPT_METADATA | VERSION_UNSUPPORTED | IDENTITY_MISMATCH (another
 *    cluster's directory) | IO_ERROR */
export async function loadDaemonIdentity(
  dataDir: string,
  clusterId: string,
  randomId: () => string = randomUUID,
): Promise<DaemonIdentity> {
  checkName(clusterId, 'cluster');
  const stored = await readStoredIdentity(dataDir);
  if (stored !== undefined && stored.clusterId !== clusterId) {
    throw new StorageError(
      'IDENTITY_MISMATCH',
      `${dataDir} belongs to cluster ${stored.clusterId}, not to ${clusterId}`,
      { hint: `start with --cluster ${stored.clusterId}, or use another --data directory` },
    );
  }
  const daemonId = stored?.daemonId ?? randomId();
  if (stored === undefined) {
    const body = { formatVersion: FORMAT_VERSION, daemonId, clusterId };
    await writeDurably(dataDir, 'daemon.json', `${JSON.stringify(body, undefined, 2)}\n`);
  }
  return { daemonId, clusterId, incarnation: randomId(), bootId: await readBootId() };
}

/** The durable part of the identity in a data directory; undefined if no daemon ever ran there.
 *  Changes nothing.
 *  @throws StorageError CORRUPT_METADATA | VERSION_UNSUPPORTED | IO_ERROR */
export async function readStoredIdentity(dataDir: string): Promise<StoredIdentity | undefined> {
  const path = join(dataDir, 'daemon.json');
  const text = await readText(path);
  return text === undefined ? undefined : parseIdentity(path, text);
}

function parseIdentity(path: string, text: string): StoredIdentity {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new StorageError('CORRUPT_METADATA', `${path} is not JSON`, HINT, { cause });
  }
  const fields: Record<string, unknown> =
    typeof value === 'object' && value !== null ? { ...value } : {};
  const { formatVersion, daemonId, clusterId } = fields;
  if (typeof formatVersion === 'number' && formatVersion > FORMAT_VERSION) {
    throw new StorageError('VERSION_UNSUPPORTED', `${path} has format ${formatVersion}`, {
      hint: 'it was written by a newer version',
    });
  }
  const valid =
    formatVersion === FORMAT_VERSION &&
    typeof daemonId === 'string' &&
    typeof clusterId === 'string' &&
    isName(daemonId) &&
    isName(clusterId);
  if (!valid) throw new StorageError('CORRUPT_METADATA', `${path} lacks its fields`, HINT);
  return { daemonId, clusterId };
}

const HINT = { hint: 'restore the data directory; without it the replicas must be rebuilt' };

async function readText(path: string): Promise<string | undefined> {
  try {
    const file = await open(path, 'r');
    try {
      const { size } = await file.stat();
      if (size > FILE_BYTES_MAX) {
        throw new StorageError('CORRUPT_METADATA', `${path} has ${size} bytes`, HINT);
      }
      return await file.readFile('utf8');
    } finally {
      await file.close();
    }
  } catch (error) {
    if (error instanceof StorageError) throw error;
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw ioError(`read ${path}`, error);
  }
}

async function writeDurably(dataDir: string, name: string, text: string): Promise<void> {
  const temporary = join(dataDir, `${name}.new`);
  try {
    await mkdir(dataDir, { recursive: true });
    const file = await open(temporary, 'w', 0o600);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, join(dataDir, name));
    const directory = await open(dataDir, 'r');
    try {
      await directory.sync();
    } finally {
      await directory.close();
    }
  } catch (error) {
    await rm(temporary, { force: true });
    throw ioError(`write ${join(dataDir, name)}`, error);
  }
}

async function readBootId(): Promise<string> {
  const path = '/proc/sys/kernel/random/boot_id';
  try {
    return (await readFile(path, 'utf8')).trim();
  } catch (error) {
    throw ioError(`read ${path}`, error);
  }
}

function ioError(doing: string, cause: unknown): StorageError {
  const { code, message } = cause as NodeJS.ErrnoException;
  const errorCode = code === 'ENOSPC' ? 'NO_SPACE' : 'IO_ERROR';
  return new StorageError(
    errorCode,
    `${doing}: ${message}`,
    code === undefined ? {} : { errno: code },
    { cause },
  );
}
