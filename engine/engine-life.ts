/**
 * Tells whether an engine that held the volume before is dead, from its id alone (R5).
 *
 * The id of an engine says which process it is: the kernel's boot, the PID namespace, the process
 * and when it started. On the same boot and in the same namespace the kernel can be asked whether
 * that very process still runs. Everywhere else nothing is proved, and the new engine waits one
 * read lease.
 */
import { readFileSync, readlinkSync } from 'node:fs';

export interface ProcessFacts {
  /** of the running kernel, 32 hexadecimal digits */
  readonly boot: string;
  /** inode of the PID namespace */
  readonly namespace: string;
  readonly pid: number;
  /** clock ticks from the boot to the start of the process */
  readonly startTicks: string;
}

/** Where the facts come from; undefined: not to be had. */
export interface ProcessTable {
  self(): ProcessFacts | undefined;
  /** When the process with this number started; `gone`: there is none; undefined: not to be had. */
  startTicks(pid: number): string | 'gone' | undefined;
}

const ID = /^([a-z0-9-]{1,40})\.([0-9a-f]{32})\.([0-9]{1,20})\.([0-9]{1,10})\.([0-9]{1,20})$/;

/** The id of this engine: `name`, and which process it is. */
export function engineIdOf(name: string, table: ProcessTable): string {
  const self = table.self();
  if (self === undefined) return name;
  return [name, self.boot, self.namespace, self.pid, self.startTicks].join('.');
}

/** True only if the process that drew this id is proved to be gone. */
export function isProvedDead(engineId: string, table: ProcessTable): boolean {
  const match = ID.exec(engineId);
  const self = table.self();
  if (match === null || self === undefined) return false;
  const [, , boot, namespace, pid, startTicks] = match;
  if (boot !== self.boot || namespace !== self.namespace) return false;
  const found = table.startTicks(Number(pid));
  return found !== undefined && found !== startTicks;
}

/** The process table of Linux. */
export const PROC: ProcessTable = {
  self() {
    try {
      const bootText = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8');
      const boot = bootText.trim().replaceAll('-', '');
      const namespace = /\[([0-9]+)\]/.exec(readlinkSync('/proc/self/ns/pid'))?.[1];
      const startTicks = readStartTicks('self');
      if (namespace === undefined || startTicks === undefined) return undefined;
      return { boot, namespace, pid: process.pid, startTicks };
    } catch {
      return undefined;
    }
  },
  startTicks(pid) {
    // Asked first: /proc may be mounted so that it hides the processes of others (hidepid).
    try {
      process.kill(pid, 0);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ESRCH') return 'gone';
    }
    try {
      return readStartTicks(String(pid));
    } catch {
      return undefined;
    }
  },
};

/** Field 22 of /proc/PID/stat (proc(5)); the name in field 2 may hold anything, so counted from its
 *  closing bracket. A zombie has released its sockets and counts as gone. */
function readStartTicks(pid: string): string | 'gone' | undefined {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields[0] === 'Z' || fields[0] === 'X' ? 'gone' : fields[19];
}
