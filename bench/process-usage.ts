/** CPU time and peak memory of processes, as Linux counts them in /proc. */
import { readdir, readFile } from 'node:fs/promises';

/** USER_HZ: 100 on every Linux that Node runs on, whatever the kernel's own tick is. */
const TICKS_PER_SECOND = 100;

export interface ProcessStat {
  readonly pid: number;
  readonly parentPid: number;
  /** user and system time of all threads, living and ended; children are not in it */
  readonly cpuSeconds: number;
}

/** Parses one /proc/PID/stat line; undefined when it is not one. The name may hold blanks and
 *  parentheses. */
export function parseProcessStat(line: string): ProcessStat | undefined {
  const nameEnd = line.lastIndexOf(')');
  const pid = Number.parseInt(line, 10);
  if (nameEnd < 0 || !Number.isInteger(pid)) return undefined;
  const fields = line.slice(nameEnd + 2).split(' ');
  const parentPid = Number(fields[1]);
  const ticks = Number(fields[11]) + Number(fields[12]);
  if (!Number.isInteger(parentPid) || !Number.isInteger(ticks)) return undefined;
  return { pid, parentPid, cpuSeconds: ticks / TICKS_PER_SECOND };
}

/** CPU seconds of all ended and waited-for children, from a /proc/PID/stat line. */
export function parseReapedCpu(line: string): number | undefined {
  const fields = line.slice(line.lastIndexOf(')') + 2).split(' ');
  const ticks = Number(fields[13]) + Number(fields[14]);
  return Number.isInteger(ticks) ? ticks / TICKS_PER_SECOND : undefined;
}

/** Busy seconds of all processors together, from /proc/stat: all but idle and waiting for I/O. */
export function parseMachineCpu(stat: string): number | undefined {
  const match = /^cpu +(.*)$/m.exec(stat);
  if (match === null) return undefined;
  const [user, nice, system, , , irq, softirq, steal] = (match[1] ?? '').split(' ').map(Number);
  const ticks = [user, nice, system, irq, softirq, steal].reduce<number>(
    (sum, one) => sum + (one ?? 0),
    0,
  );
  return Number.isFinite(ticks) ? ticks / TICKS_PER_SECOND : undefined;
}

/** VmHWM of a /proc/PID/status text in bytes; undefined when it is not there. */
export function parsePeakRss(status: string): number | undefined {
  const match = /^VmHWM:\s+([0-9]+) kB$/m.exec(status);
  return match === null ? undefined : Number(match[1]) * 1024;
}

async function statOf(pid: number): Promise<ProcessStat | undefined> {
  const line = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
  return line === undefined ? undefined : parseProcessStat(line);
}

/** The process and all its descendants that live now, the process first. */
export async function processTree(rootPid: number): Promise<number[]> {
  const names = await readdir('/proc');
  const stats = await Promise.all(
    names.filter((name) => /^[0-9]+$/.test(name)).map((name) => statOf(Number(name))),
  );
  const tree = [rootPid];
  for (let index = 0; index < tree.length; index += 1) {
    for (const stat of stats) {
      if (stat !== undefined && stat.parentPid === tree[index]) tree.push(stat.pid);
    }
  }
  return tree;
}

/** Sum over the given processes; one that has ended counts as zero. */
export async function cpuSecondsOf(pids: readonly number[]): Promise<number> {
  const stats = await Promise.all(pids.map(statOf));
  return stats.reduce((sum, stat) => sum + (stat?.cpuSeconds ?? 0), 0);
}

/** The largest VmHWM among the given processes, in bytes; 0 when none lives. */
export async function peakRssOf(pids: readonly number[]): Promise<number> {
  const texts = await Promise.all(
    pids.map((pid) => readFile(`/proc/${pid}/status`, 'utf8').catch(() => '')),
  );
  return Math.max(0, ...texts.map((text) => parsePeakRss(text) ?? 0));
}
