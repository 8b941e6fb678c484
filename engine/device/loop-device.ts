/** Loop devices: making, finding by backing file, who uses one, giving back. Source: losetup(8),
 *  sysfs of loop. */
import { constants } from 'node:fs';
import { open, readdir, readFile, readlink } from 'node:fs/promises';
import { basename } from 'node:path';
import { StorageError } from '../../common/errors.js';
import { runTool } from './host-tool.js';
import { mountPointOf, readMounts } from './mount-table.js';

export interface LoopOptions {
  readonly readOnly: boolean;
  /** logical sector size of the device: 512 or 4096 */
  readonly sectorBytes: number;
}

/** Puts a loop device with direct I/O on the file and returns its path. */
export async function createLoop(backingFile: string, options: LoopOptions): Promise<string> {
  const argv = ['--direct-io=on', '--sector-size', String(options.sectorBytes)];
  if (options.readOnly) argv.push('--read-only');
  const printed = await runTool('losetup', [...argv, '--show', '--find', '--', backingFile]);
  const path = printed.trim();
  if (!/^\/dev\/loop[0-9]+$/.test(path)) {
    throw new StorageError('INTERNAL', `losetup printed ${JSON.stringify(path.slice(0, 80))}`);
  }
  return path;
}

/** Whether reads and writes bypass the page cache of the backing file. */
export async function hasDirectIo(devicePath: string): Promise<boolean> {
  return (await readLoopFile(devicePath, 'dio')) === '1';
}

/** Loop devices whose backing file is, or was, this path. */
export async function findLoops(backingFile: string): Promise<string[]> {
  const names = (await readdir('/sys/block')).filter((name) => /^loop[0-9]+$/.test(name));
  const paths: string[] = [];
  for (const name of names) {
    const backing = await readLoopFile(`/dev/${name}`, 'backing_file');
    if (backing === backingFile || backing === `${backingFile} (deleted)`) {
      paths.push(`/dev/${name}`);
    }
  }
  return paths;
}

/** Makes the loop device take the size that its backing file has now. */
export async function followSize(devicePath: string, backingFile: string): Promise<void> {
  // Before Linux 6.17 the loop driver believes the size that was last asked for: ask, in another
  // process than the one that answers.
  await runTool('stat', ['--format=%s', '--', backingFile]);
  await runTool('losetup', ['--set-capacity', devicePath]);
}

export async function loopSizeBytes(devicePath: string): Promise<number> {
  const text = await readFile(`/sys/block/${basename(devicePath)}/size`, 'utf8');
  return Number(text.trim()) * 512;
}

/** Gives the device back. One that is in use goes away when its last user closes it. No error if it
 *  is gone. */
export async function releaseLoop(devicePath: string): Promise<void> {
  if ((await readLoopFile(devicePath, 'backing_file')) === undefined) return;
  try {
    await runTool('losetup', ['--detach', devicePath], { timeoutMs: 150_000 });
  } catch (error) {
    if ((await readLoopFile(devicePath, 'backing_file')) !== undefined) throw error;
  }
}

/** Why the device may not be taken away, as words; undefined if nobody uses it.
 *  @param options.probe  also finds users outside of this mount namespace, by an exclusive open; a
 *  mount at that very moment would be refused, so only who is about to detach asks that way */
export async function loopUser(
  devicePath: string,
  options: { probe: boolean },
): Promise<string | undefined> {
  const number = (await readSysFile(`/sys/block/${basename(devicePath)}/dev`)) ?? '';
  const mountPoint = mountPointOf(await readMounts(), { path: devicePath, number });
  if (mountPoint !== undefined) return `mounted at ${mountPoint}`;
  const holders = await readdir(`/sys/block/${basename(devicePath)}/holders`).catch(() => []);
  if (holders.length > 0) return `held by ${holders[0]}`;
  if (options.probe && (await isClaimed(devicePath))) {
    return 'in exclusive use (mounted in another mount namespace, swap, or opened by a program)';
  }
  const pid = await findOpener(devicePath);
  return pid === undefined ? undefined : `open in process ${pid}`;
}

/** An exclusive open is refused while a file system, swap or another exclusive open has the
 *  device. */
async function isClaimed(devicePath: string): Promise<boolean> {
  try {
    const handle = await open(devicePath, constants.O_RDONLY | constants.O_EXCL);
    await handle.close();
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EBUSY';
  }
}

/** A process of this pid namespace that has the device open. */
async function findOpener(devicePath: string): Promise<number | undefined> {
  const pids = (await readdir('/proc')).filter((name) => /^[0-9]+$/.test(name));
  for (const pid of pids) {
    const fds = await readdir(`/proc/${pid}/fd`).catch(() => []);
    for (const fd of fds) {
      const target = await readlink(`/proc/${pid}/fd/${fd}`).catch(() => '');
      if (target === devicePath) return Number(pid);
    }
  }
  return undefined;
}

async function readLoopFile(devicePath: string, file: string): Promise<string | undefined> {
  return readSysFile(`/sys/block/${basename(devicePath)}/loop/${file}`);
}

async function readSysFile(path: string): Promise<string | undefined> {
  try {
    return (await readFile(path, 'utf8')).trimEnd();
  } catch {
    return undefined;
  }
}
