/** Reads what this host is and offers. No judgement here: that is `diagnosis.ts`. */
import { execFile } from 'node:child_process';
import { constants } from 'node:fs';
import { access, readdir, readFile } from 'node:fs/promises';
import { arch, release } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { SECTOR_SIZE } from '../common/units.js';

const run = promisify(execFile);

export interface DiskFacts {
  readonly name: string;
  readonly sizeBytes: number;
  readonly rotational: boolean;
  /** as the kernel says: `write back` or `write through` */
  readonly writeCache: string;
  readonly fua: boolean;
  readonly sectorBytes: number;
  readonly readOnly: boolean;
}

export interface NativeFacts {
  readonly loaded: boolean;
  readonly error?: string;
  readonly capabilities?: {
    readonly ioUring: boolean;
    readonly ioUringReason?: string;
    readonly crc32c: string;
  };
}

export interface HostFacts {
  readonly kernel: string;
  readonly arch: string;
  readonly node: string;
  readonly root: boolean;
  readonly native: NativeFacts;
  /** /proc/sys/kernel/io_uring_disabled, undefined where the kernel has no such switch */
  readonly ioUringDisabled: string | undefined;
  /** available: usable now; module: can be loaded; missing: neither; denied: there, but not for
   *  us */
  readonly ublk: Offer;
  readonly nbd: Offer;
  readonly fuse: Offer;
  readonly loop: Offer;
  readonly disks: readonly DiskFacts[];
  readonly memoryBytes: number;
  readonly memoryAvailableBytes: number;
  readonly openFilesMax: number | undefined;
  readonly missingTools: readonly string[];
}

export type Offer = 'available' | 'module' | 'missing' | 'denied';

export const TOOLS = ['nbdinfo', 'nbdcopy', 'fio', 'losetup', 'fusermount3', 'mkfs.ext4'] as const;

export interface FactSources {
  /** folder that stands for `/`, for tests */
  readonly rootDir?: string;
  readonly probe: readonly string[];
  readonly toolPath?: string;
}

/** Never fails: what cannot be read is undefined, missing or empty. */
export async function readHostFacts(sources: FactSources): Promise<HostFacts> {
  const rootDir = sources.rootDir ?? '/';
  const at = (...parts: string[]): string => path.join(rootDir, ...parts);
  const kernel = (await readText(at('proc/sys/kernel/osrelease'))) ?? release();
  const modules = (await readText(at('lib/modules', kernel, 'modules.dep'))) ?? '';
  const offer = (device: string, module: string): Promise<Offer> =>
    readOffer(at(device), modules.includes(`/${module}.ko`));
  const memory = (await readText(at('proc/meminfo'))) ?? '';
  const [ublk, nbd, fuse, loop] = await Promise.all([
    offer('dev/ublk-control', 'ublk_drv'),
    offer('dev/nbd0', 'nbd'),
    offer('dev/fuse', 'fuse'),
    offer('dev/loop-control', 'loop'),
  ]);
  return {
    kernel,
    arch: arch(),
    node: process.versions.node,
    root: process.geteuid?.() === 0,
    native: await readNative(sources.probe),
    ioUringDisabled: await readText(at('proc/sys/kernel/io_uring_disabled')),
    ublk,
    nbd,
    fuse,
    loop,
    disks: await readDisks(at('sys/block')),
    memoryBytes: memoryLine(memory, 'MemTotal'),
    memoryAvailableBytes: memoryLine(memory, 'MemAvailable'),
    openFilesMax: openFilesMax((await readText(at('proc/self/limits'))) ?? ''),
    missingTools: await findMissing(
      TOOLS,
      sources.toolPath ?? `${process.env['PATH']}:/usr/sbin:/sbin`,
    ),
  };
}

async function readOffer(device: string, moduleThere: boolean): Promise<Offer> {
  try {
    await access(device, constants.R_OK | constants.W_OK);
    return 'available';
  } catch {
    const exists = await access(device).then(
      () => true,
      () => false,
    );
    if (exists) return 'denied';
    return moduleThere ? 'module' : 'missing';
  }
}

async function readDisks(folder: string): Promise<DiskFacts[]> {
  const names = await readdir(folder).catch(() => []);
  const real = names.filter((name) => !/^(loop|ram|zram|sr|fd|dm-|nbd|ublkb)/.test(name)).sort();
  const disks = await Promise.all(
    real.map(async (name): Promise<DiskFacts> => {
      const text = async (file: string): Promise<string> =>
        (await readText(path.join(folder, name, file))) ?? '';
      return {
        name,
        // The size file counts 512-byte sectors, whatever the sector size of the disk.
        sizeBytes: Number(await text('size')) * SECTOR_SIZE,
        rotational: (await text('queue/rotational')) === '1',
        writeCache: await text('queue/write_cache'),
        fua: (await text('queue/fua')) === '1',
        sectorBytes: Number(await text('queue/logical_block_size')),
        readOnly: (await text('ro')) === '1',
      };
    }),
  );
  return disks.filter((disk) => disk.sizeBytes > 0);
}

async function readNative(probe: readonly string[]): Promise<NativeFacts> {
  const [command = '', ...args] = probe;
  try {
    const { stdout } = await run(command, args, { timeout: 10_000, maxBuffer: 64 * 1024 });
    return JSON.parse(stdout) as NativeFacts;
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    return { loaded: false, error: text.split('\n').slice(0, 2).join(' ') };
  }
}

async function findMissing(tools: readonly string[], searchPath: string): Promise<string[]> {
  const folders = searchPath.split(':').filter((folder) => folder !== '');
  const found = await Promise.all(
    tools.map(async (tool) => {
      const checks = folders.map((folder) => access(path.join(folder, tool), constants.X_OK));
      return Promise.any(checks).then(
        () => true,
        () => false,
      );
    }),
  );
  return tools.filter((_, index) => found[index] !== true);
}

function memoryLine(text: string, key: string): number {
  const kib = new RegExp(`^${key}:\\s+([0-9]+) kB`, 'm').exec(text)?.[1];
  return kib === undefined ? 0 : Number(kib) * 1024;
}

function openFilesMax(text: string): number | undefined {
  const soft = /^Max open files\s+([0-9]+)/m.exec(text)?.[1];
  return soft === undefined ? undefined : Number(soft);
}

async function readText(file: string): Promise<string | undefined> {
  return readFile(file, 'utf8').then(
    (text) => text.trim(),
    () => undefined,
  );
}
