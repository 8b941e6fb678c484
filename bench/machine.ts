/** Facts about where the numbers come from, stored with them. */
import { cpus, loadavg, release, totalmem } from 'node:os';
import type { ChildRegistry } from './child-registry.js';

export interface MachineFacts {
  readonly kernel: string;
  readonly cpuModel: string;
  readonly cpuCount: number;
  readonly memoryBytes: number;
  readonly node: string;
  readonly gitCommit: string;
  /** file system and device under the measured directory */
  readonly fileSystem: string;
  readonly fio: string;
  readonly qemuNbd: string;
  readonly nbdkit: string;
  /** load of the last minute before the run: far above 0 means that others were busy */
  readonly loadAverage: number;
}

/** Asks the tools; one that is missing gives an empty text. */
export async function machineFacts(
  children: ChildRegistry,
  options: { root: string; directory: string },
): Promise<MachineFacts> {
  const first = async (command: string, ...args: string[]): Promise<string> => {
    const { exitCode, output } = await children.run({ command, args, timeoutMs: 10_000 });
    return exitCode === 0 ? (output.trim().split('\n')[0] ?? '') : '';
  };
  const processors = cpus();
  const findmnt = ['-n', '-o', 'FSTYPE,SOURCE,OPTIONS', '-T', options.directory];
  return {
    kernel: release(),
    cpuModel: processors[0]?.model ?? 'unknown',
    cpuCount: processors.length,
    memoryBytes: totalmem(),
    node: process.version,
    gitCommit: await first('git', '-C', options.root, 'describe', '--always', '--dirty'),
    fileSystem: (await first('findmnt', ...findmnt)).replace(/\s+/g, ' '),
    fio: await first('fio', '--version'),
    qemuNbd: await first('qemu-nbd', '--version'),
    nbdkit: await first('nbdkit', '--version'),
    loadAverage: loadavg()[0] ?? 0,
  };
}
