/** How much of the machine others used during the run: the measure of how far the numbers can be
 *  trusted. */
import { readFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import type { Clock } from '../common/clock.js';
import { cpuSecondsOf, parseMachineCpu, parseReapedCpu } from './process-usage.js';

interface Reading {
  readonly timeMs: number;
  readonly machineSeconds: number;
  readonly ownSeconds: number;
}

export class ForeignLoad {
  #start: Reading | undefined;

  /** @param livePids the processes of the benchmark that run now; ended ones count through their
   *  parent */
  constructor(
    readonly clock: Clock,
    readonly livePids: () => readonly number[],
  ) {}

  async begin(): Promise<void> {
    this.#start = await this.#read();
  }

  /** Share of all processors that was busy since `begin` and not with the benchmark: 0 to 1,
   *  roughly
   *  (work in interrupts counts as foreign). */
  async end(): Promise<number> {
    const start = this.#start ?? (await this.#read());
    const now = await this.#read();
    const seconds = ((now.timeMs - start.timeMs) / 1000) * cpus().length;
    const busy = now.machineSeconds - start.machineSeconds;
    const own = now.ownSeconds - start.ownSeconds;
    return seconds === 0 ? 0 : Math.min(1, Math.max(0, (busy - own) / seconds));
  }

  async #read(): Promise<Reading> {
    const [machine, self, live] = await Promise.all([
      readFile('/proc/stat', 'utf8'),
      readFile('/proc/self/stat', 'utf8'),
      cpuSecondsOf([process.pid, ...this.livePids()]),
    ]);
    return {
      timeMs: this.clock.nowMs(),
      machineSeconds: parseMachineCpu(machine) ?? 0,
      ownSeconds: live + (parseReapedCpu(self) ?? 0),
    };
  }
}
