/**
 * What an all-in-one folder was made with: `DIR/up.json`, so that a repeated `aurochs up --data
 * DIR` finds the same disks and volume without being told again, and a contradicting option is
 * refused before anything starts.
 */
import { open, readFile, rename } from 'node:fs/promises';
import path from 'node:path';
import { StorageError } from '../common/errors.js';
import { isName } from '../common/names.js';
import { formatSize, GIB, VOLUME_SIZE_MAX } from '../common/units.js';
import { isErrno } from './pid-file.js';

export const NODES_MAX = 16;

export interface UpConfig {
  readonly version: 1;
  readonly nodes: number;
  readonly diskSizeBytes: number;
  readonly volume: string;
  readonly sizeBytes: number;
}

export type UpChoice = Partial<Omit<UpConfig, 'version'>>;

const DEFAULTS: UpConfig = {
  version: 1,
  nodes: 3,
  diskSizeBytes: 10 * GIB,
  volume: 'demo',
  sizeBytes: GIB,
};

/** The stored configuration if there is one, else the defaults with what was asked for.
 *  @throws StorageError CONFLICT when an option differs from what is stored | CORRUPT_METADATA */
export function mergeConfig(stored: UpConfig | undefined, asked: UpChoice): UpConfig {
  if (stored === undefined) return { ...DEFAULTS, ...asked };
  for (const key of ['nodes', 'diskSizeBytes', 'volume', 'sizeBytes'] as const) {
    const [was, wants] = [stored[key], asked[key]];
    if (wants === undefined || wants === was) continue;
    const show = (value: number | string): string =>
      key.endsWith('Bytes') ? formatSize(Number(value)) : String(value);
    throw new StorageError(
      'CONFLICT',
      `this folder was made with ${OPTION_NAMES[key]} ${show(was)}, not ${show(wants)}`,
      { hint: `leave ${OPTION_NAMES[key]} out, or use another --data folder` },
    );
  }
  return stored;
}

const OPTION_NAMES = {
  nodes: '--nodes',
  diskSizeBytes: '--disk-size',
  volume: '--volume',
  sizeBytes: '--size',
} as const;

/** @returns undefined when the folder is new. @throws StorageError CORRUPT_METADATA */
export async function readConfig(dataDir: string): Promise<UpConfig | undefined> {
  const file = path.join(dataDir, 'up.json');
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
  const config = parseConfig(text);
  if (config === undefined) {
    throw new StorageError('CORRUPT_METADATA', `${file} is not a configuration of aurochs up`, {
      hint: 'move the file away only if you know the options the folder was made with',
    });
  }
  return config;
}

/** Durable when resolved: new file, fsync, rename, fsync of the folder (rule R7). */
export async function writeConfig(dataDir: string, config: UpConfig): Promise<void> {
  const file = path.join(dataDir, 'up.json');
  const handle = await open(`${file}.new`, 'w', 0o644);
  try {
    await handle.writeFile(`${JSON.stringify(config, undefined, 2)}\n`);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(`${file}.new`, file);
  const folder = await open(dataDir, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

function parseConfig(text: string): UpConfig | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const { version, nodes, diskSizeBytes, volume, sizeBytes } = value as Record<string, unknown>;
  if (version !== 1 || typeof volume !== 'string' || !isName(volume)) return undefined;
  if (!isCount(nodes, NODES_MAX) || !isCount(sizeBytes, VOLUME_SIZE_MAX)) return undefined;
  if (!isCount(diskSizeBytes, Number.MAX_SAFE_INTEGER)) return undefined;
  return { version, nodes, diskSizeBytes, volume, sizeBytes };
}

function isCount(value: unknown, max: number): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value > 0 && value <= max;
}
