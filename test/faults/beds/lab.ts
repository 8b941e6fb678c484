/**
 * A folder for one fault test, and the promise that nothing of it stays behind.
 *
 * Whatever a test makes can be found from the folder's path: processes name it on their command
 * line, mounts lie below it, loop devices have their backing file below it, network namespaces are
 * listed in a file of it. So cleaning up needs no memory of what was made: it works after a failed
 * test, and for the next run after one that was killed. The file `owner` says whose folder it is.
 */
import { appendFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { readMounts } from '../../../engine/device/mount-table.js';
import { run } from '../../support/process.js';

/** Disk files belong on a real file system: /tmp may be memory. */
const PARENT = '/var/tmp';
const PREFIX = 'aurochs-lab-';
const NAMESPACES = 'namespaces';
/** Rounds of killing and unmounting before giving up; a process in the middle of an I/O needs a
 *  moment. */
const ROUNDS_MAX = 100;
const ROUND_MS = 50;

export class Lab {
  readonly #stops: Array<() => Promise<unknown>> = [];

  private constructor(readonly dir: string) {}

  /** Makes a folder of its own; clears away those of runs that were killed. */
  static async open(): Promise<Lab> {
    await clearDeadLabs();
    const dir = await mkdtemp(path.join(PARENT, PREFIX));
    await writeFile(path.join(dir, 'owner'), `${await identityOf(process.pid)}\n`);
    return new Lab(dir);
  }

  path(...names: string[]): string {
    return path.join(this.dir, ...names);
  }

  async makeDir(...names: string[]): Promise<string> {
    const dir = this.path(...names);
    await mkdir(dir, { recursive: true, mode: 0o700 });
    return dir;
  }

  /** Runs before everything is cleared away, last registered first; its failure is ignored. */
  onClose(stop: () => Promise<unknown>): void {
    this.#stops.push(stop);
  }

  /** To be called before the namespace is made. */
  async noteNamespace(name: string): Promise<void> {
    await appendFile(this.path(NAMESPACES), `${name}\n`);
  }

  /** Ends, unmounts, detaches and removes everything. @throws Error if something cannot be
   *  removed */
  async close(): Promise<void> {
    for (const stop of this.#stops.splice(0).reverse()) await stop().catch(() => undefined);
    await clearAway(this.dir);
  }
}

/** Clears away every lab whose process is gone. */
export async function clearDeadLabs(): Promise<void> {
  for (const name of await readdir(PARENT)) {
    if (!name.startsWith(PREFIX)) continue;
    const dir = path.join(PARENT, name);
    const owner = (await readFile(path.join(dir, 'owner'), 'utf8').catch(() => '')).trim();
    // Without an owner's name it is being made right now, or was left by a crash at that moment.
    if (owner === '') continue;
    const pid = Number(owner.split(' ')[0]);
    if ((await identityOf(pid)) !== owner) await clearAway(dir);
  }
}

/** Pid and start time: a pid alone may be another process by now. '' if there is none. */
async function identityOf(pid: number): Promise<string> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  const fields = stat.substring(stat.lastIndexOf(')') + 2).split(' ');
  const startedAt = fields[19];
  return startedAt === undefined ? '' : `${pid} ${startedAt}`;
}

async function clearAway(dir: string): Promise<void> {
  let left: string[] = [];
  for (let round = 0; round < ROUNDS_MAX; round += 1) {
    for (const pid of await processesOf(dir)) kill(pid);
    await unmountBelow(dir, (type) => !type.startsWith('fuse'));
    for (const loop of await loopsBelow(dir)) await quietly('losetup', '-d', loop);
    await unmountBelow(dir, () => true);
    left = [
      ...(await processesOf(dir)).map((pid) => `process ${pid}`),
      ...(await mountsBelow(dir)).map((mount) => `mount ${mount.mountPoint}`),
      ...(await loopsBelow(dir)).map((loop) => `loop device ${loop}`),
    ];
    if (left.length === 0) break;
    await new Promise((resolve) => setTimeout(resolve, ROUND_MS));
  }
  if (left.length > 0) throw new Error(`${dir} cannot be cleared away: ${left.join(', ')}`);
  const namespaces = await readFile(path.join(dir, NAMESPACES), 'utf8').catch(() => '');
  for (const name of namespaces.split('\n').filter((line) => line !== '')) {
    await quietly('ip', 'netns', 'delete', name);
  }
  await rm(dir, { recursive: true, force: true });
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {}
}

async function quietly(command: string, ...args: string[]): Promise<void> {
  await run(command, args).catch(() => undefined);
}

/** Processes with the folder on their command line, but this one. */
async function processesOf(dir: string): Promise<number[]> {
  const pids = (await readdir('/proc')).map(Number).filter((pid) => pid > 0 && pid !== process.pid);
  const named = await Promise.all(
    pids.map(async (pid) => {
      const argv = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
      return argv.includes(dir);
    }),
  );
  return pids.filter((_pid, index) => named[index] === true);
}

/** The newest mount first. */
async function mountsBelow(dir: string): Promise<Array<{ mountPoint: string; type: string }>> {
  const mounts = await readMounts();
  return mounts.filter(({ mountPoint }) => mountPoint.startsWith(`${dir}/`)).reverse();
}

async function unmountBelow(dir: string, wanted: (type: string) => boolean): Promise<void> {
  for (const { mountPoint, type } of await mountsBelow(dir)) {
    const flags = ['--internal-only', '--no-canonicalize'];
    if (wanted(type)) await quietly('umount', ...flags, '--', mountPoint);
  }
}

async function loopsBelow(dir: string): Promise<string[]> {
  const names = (await readdir('/sys/block')).filter((name) => name.startsWith('loop'));
  const loops: string[] = [];
  for (const name of names) {
    const file = `/sys/block/${name}/loop/backing_file`;
    const backing = (await readFile(file, 'utf8').catch(() => '')).trim();
    if (backing.startsWith(`${dir}/`)) loops.push(`/dev/${name}`);
  }
  return loops;
}
