/** `aurochs replica compare`: the copies of a volume, byte by byte, on stopped disks. Changes
 *  nothing. */
import { join, resolve } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { StorageError, toStorageError } from '../common/errors.js';
import { createLogger } from '../common/log.js';
import { checkName } from '../common/names.js';
import { formatSize, MIB } from '../common/units.js';
import { createBufferPool, type FileLock, lockFile } from '../native/index.js';
import { type CompareDisk, type CompareReport, compareReplicas } from './compare.js';
import { readStoredIdentity } from './service/daemon-identity.js';

interface CompareFlags {
  readonly disk: readonly string[];
  readonly data: readonly string[];
  readonly output: 'text' | 'json';
}

const POOL_BYTES = 128 * MIB;
const COPIES_MAX = 32;

/** The command; `run` is told the exit code: 0 identical, 1 different or with bad blocks. */
export function buildCompareCommand(run: (code: number) => void): Command {
  const collect = (text: string, before: readonly string[] = []): string[] => [...before, text];
  return new Command('aurochs replica compare')
    .description('Compare the copies of a volume byte by byte. The daemons must be stopped.')
    .argument('<volume>', 'name of the volume', (text) => {
      try {
        return checkName(text, 'volume');
      } catch (error) {
        throw new InvalidArgumentError(toStorageError(error, 'volume').message);
      }
    })
    .requiredOption('--disk <path>', 'disk with a copy; repeat', collect)
    .requiredOption(
      '--data <dir>',
      'data directory of its daemon: one per --disk in order, or one for all',
      collect,
    )
    .addOption(
      new Option('-o, --output <format>', 'text for people, json for programs')
        .choices(['text', 'json'])
        .default('text'),
    )
    .addHelpText(
      'after',
      `
Exit status: 0 the copies are identical, 1 they differ or hold blocks that rotted.

Example:
  aurochs replica compare --disk /srv/1.img --data /srv/node1 \\
    --disk /srv/2.img --data /srv/node2 db`,
    )
    .exitOverride()
    .action(async (volume: string, flags: CompareFlags) => run(await compare(volume, flags)));
}

async function compare(volume: string, flags: CompareFlags): Promise<number> {
  const pairs = pairDisks(flags);
  const locks: FileLock[] = [];
  try {
    const disks: CompareDisk[] = [];
    for (const { path, dataDir } of pairs) disks.push(await compareDisk(path, dataDir));
    // A daemon that runs, or starts meanwhile, is kept out by the same lock that keeps out a second
    // daemon.
    for (const dir of new Set(pairs.map(({ dataDir }) => dataDir))) {
      locks.push(await lockFile(join(dir, 'lock')));
    }
    const progress = new ProgressLine(`compare ${volume}`);
    const report = await compareReplicas({
      volume,
      disks,
      pool: createBufferPool({ limitBytes: POOL_BYTES }),
      log: createLogger('compare'),
      onProgress: ({ doneBytes, totalBytes }) => progress.show(doneBytes, totalBytes),
    });
    progress.clear();
    const json = flags.output === 'json';
    process.stdout.write(json ? `${JSON.stringify(report, undefined, 2)}\n` : render(report));
    return report.identical ? 0 : 1;
  } finally {
    for (const lock of locks) lock.release();
  }
}

/** @throws StorageError INVALID_ARGUMENT | LIMIT_EXCEEDED */
function pairDisks(flags: CompareFlags): Array<{ path: string; dataDir: string }> {
  const { disk, data } = flags;
  if (data.length !== 1 && data.length !== disk.length) {
    throw new StorageError(
      'INVALID_ARGUMENT',
      `${disk.length} --disk with ${data.length} --data: give one per disk, or one for all`,
    );
  }
  if (disk.length > COPIES_MAX) {
    throw new StorageError('LIMIT_EXCEEDED', `${disk.length} disks, at most ${COPIES_MAX}`);
  }
  return disk.map((path, i) => ({
    path: resolve(path),
    dataDir: resolve((data.length === 1 ? data[0] : data[i]) ?? ''),
  }));
}

async function compareDisk(path: string, dataDir: string): Promise<CompareDisk> {
  const identity = await readStoredIdentity(dataDir);
  if (identity === undefined) {
    throw new StorageError('NOT_FOUND', `no replica daemon ever ran in ${dataDir}`, {
      hint: 'give the --data directory that the daemon of this disk was started with',
    });
  }
  return { path, metaDir: join(dataDir, 'meta'), identity };
}

/** One line on a terminal that is written over; nothing where nobody watches. */
class ProgressLine {
  #shown = -1;

  constructor(readonly title: string) {}

  show(doneBytes: number, totalBytes: number): void {
    const percent = Math.floor((doneBytes / totalBytes) * 100);
    if (!process.stderr.isTTY || percent === this.#shown) return;
    this.#shown = percent;
    const done = `${formatSize(doneBytes)} of ${formatSize(totalBytes)}`;
    process.stderr.write(`\r\x1b[K${this.title}: ${percent} % (${done})`);
  }

  clear(): void {
    if (this.#shown >= 0) process.stderr.write('\r\x1b[K');
  }
}

function render(report: CompareReport): string {
  const lines = [`volume ${report.volume}: ${formatSize(report.comparedBytes)} compared`];
  for (const copy of report.copies) {
    const { replicaId, allocatedBytes, epoch, generation, dirtyRegions, badBlocks } = copy;
    lines.push(
      `  ${copy.path}: replica ${replicaId}, ${formatSize(allocatedBytes)} allocated, ` +
        `epoch ${epoch}, generation ${generation}, ${dirtyRegions} dirty regions, ` +
        `${badBlocks} bad blocks`,
    );
  }
  for (const path of report.without) lines.push(`  ${path}: holds no copy`);
  for (const { offsetBytes, groups } of report.differences) {
    lines.push(`  differs at ${offsetBytes}: ${groups.map((g) => g.join(' = ')).join('  |  ')}`);
  }
  for (const { path, offsetBytes } of report.badBlocks) {
    lines.push(`  bad block at ${offsetBytes} on ${path}`);
  }
  const more = report.differentBlocks - report.differences.length;
  if (more > 0) lines.push(`  and ${more} more blocks that differ`);
  const verdict = report.identical
    ? `identical: ${report.copies.length} of ${report.copies.length} copies`
    : `NOT identical: ${report.differentBlocks} blocks differ`;
  return `${[...lines, verdict].join('\n')}\n`;
}
