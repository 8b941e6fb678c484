/**
 * Pid files of the all-in-one: `DIR/run/node1.replica.pid`, one number and a newline.
 *
 * A pid alone proves nothing: numbers are used again. A process counts as the one that the file
 * means only if its command line still says so.
 */
import { readFile, rm, writeFile } from 'node:fs/promises';
import { type Clock, sleep } from '../common/clock.js';

const POLL_MS = 25;

export interface ProcessMark {
  /** an argument that the command line has as it is: `replica`, `engine`, `up` */
  readonly role: string;
  /** text that one of its arguments contains, such as the data folder */
  readonly contains: string;
}

/** Takes the file if it is free. False: it is there already, alive or not. */
export async function createPidFile(file: string, pid: number): Promise<boolean> {
  try {
    await writeFile(file, `${pid}\n`, { flag: 'wx', mode: 0o644 });
    return true;
  } catch (error) {
    if (isErrno(error, 'EEXIST')) return false;
    throw error;
  }
}

/** Replaces what is there. */
export async function writePidFile(file: string, pid: number): Promise<void> {
  await writeFile(file, `${pid}\n`, { mode: 0o644 });
}

export async function removePidFile(file: string): Promise<void> {
  await rm(file, { force: true });
}

/** The pid in the file if that process lives and carries the mark, else undefined. */
export async function livePid(file: string, mark: ProcessMark): Promise<number | undefined> {
  const pid = Number((await readText(file))?.trim());
  if (!Number.isSafeInteger(pid) || pid <= 1) return undefined;
  // A zombie has an empty command line: it runs no more.
  const argv = (await readText(`/proc/${pid}/cmdline`))?.split('\0') ?? [];
  const marked = argv.includes(mark.role) && argv.some((arg) => arg.includes(mark.contains));
  return marked ? pid : undefined;
}

/** Ends a process that is not our child: SIGTERM, and SIGKILL after the deadline. Resolves when it
 *  is gone. */
export async function endProcess(
  target: { file: string; mark: ProcessMark },
  options: { clock: Clock; deadlineMs: number },
): Promise<void> {
  const { clock, deadlineMs } = options;
  const startMs = clock.nowMs();
  let signal: NodeJS.Signals | undefined = 'SIGTERM';
  for (;;) {
    const pid = await livePid(target.file, target.mark);
    if (pid === undefined) break;
    const late = clock.nowMs() - startMs > deadlineMs;
    if (signal !== undefined) kill(pid, signal);
    signal = late ? 'SIGKILL' : undefined;
    await sleep(clock, POLL_MS);
  }
  await removePidFile(target.file);
}

function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (!isErrno(error, 'ESRCH')) throw error;
  }
}

async function readText(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    // ESRCH: the process ended between open and read.
    if (isErrno(error, 'ENOENT') || isErrno(error, 'ESRCH')) return undefined;
    throw error;
  }
}

export function isErrno(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}
