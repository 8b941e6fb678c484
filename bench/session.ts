/**
 * One benchmark session: starts the targets, fills their volumes, and takes turns over them.
 *
 * Within each repetition of a case every target runs once, starting with another one each time, so
 * that a machine that gets slower or faster does so for all. A target that fails is left out.
 */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type Clock, sleep } from '../common/clock.js';
import type { BenchCase } from './cases.js';
import type { ChildRegistry } from './child-registry.js';
import { type FioResult, runFio } from './fio.js';
import type { BenchOptions } from './options.js';
import { cpuSecondsOf, peakRssOf, processTree } from './process-usage.js';
import { rotated } from './statistics.js';
import { type IdleUse, type MemoryPeak, perClient, type Sample } from './summary.js';
import type { RunningTarget, Target } from './targets/target.js';

const PRECONDITION: BenchCase = {
  name: 'precondition',
  direction: 'write',
  pattern: 'sequential',
  blockBytes: 1024 * 1024,
  queueDepth: 4,
  flushEach: false,
  quick: true,
};
/** Until the compiler has seen the paths of a JavaScript target: shorter, and its first case runs
 *  at half speed. */
const WARM_UP_MS = 4000;

export interface SessionContext {
  readonly options: BenchOptions;
  readonly children: ChildRegistry;
  /** removed by the caller */
  readonly directory: string;
  readonly root: string;
  readonly clock: Clock;
  progress(text: string): void;
}

interface Started {
  readonly target: Target;
  readonly running: RunningTarget;
  /** every process that works for a role, looked up once */
  readonly pids: ReadonlyMap<string, readonly number[]>;
}

export interface Failure {
  readonly target: string;
  /** start, or the name of the case */
  readonly during: string;
  readonly reason: string;
}

export class Session {
  readonly samples: Sample[] = [];
  readonly failures: Failure[] = [];
  #started: Started[] = [];

  constructor(readonly context: SessionContext) {}

  get targetNames(): string[] {
    return this.#started.map((started) => started.target.name);
  }

  /** Starts, fills and warms up one target; a failure is recorded and it is left out. */
  async start(target: Target): Promise<void> {
    const { children, root, options, progress } = this.context;
    progress(`${target.name}: start and fill`);
    try {
      const directory = join(this.context.directory, target.name);
      await mkdir(directory);
      const running = await target.start({
        children,
        directory,
        sizeBytes: options.sizeBytes,
        root,
      });
      const pids = new Map<string, readonly number[]>();
      for (const { role, pid } of running.processes) pids.set(role, await processTree(pid));
      const started = { target, running, pids };
      await this.#fio(started, { benchCase: PRECONDITION, runMs: undefined, seed: 1 });
      for (const direction of ['write', 'read'] as const) {
        const benchCase: BenchCase = {
          ...PRECONDITION,
          direction,
          pattern: 'random',
          blockBytes: 4096,
          queueDepth: 32,
        };
        await this.#fio(started, {
          benchCase,
          runMs: options.quick ? WARM_UP_MS / 2 : WARM_UP_MS,
          seed: 2,
        });
      }
      await running.settle?.();
      this.#started.push(started);
    } catch (error) {
      this.#fail(target.name, 'start', error);
    }
  }

  /** All repetitions of one case on every target that `wants` says yes to. */
  async measure(benchCase: BenchCase, wants: (target: Target) => boolean): Promise<void> {
    const { options, progress } = this.context;
    let list = this.#started.filter(({ target }) => target.measures(benchCase) && wants(target));
    for (let repetition = 0; repetition < options.runs; repetition += 1) {
      for (const started of rotated(list, repetition)) {
        const { name } = started.target;
        progress(`${benchCase.name}: run ${repetition + 1} of ${options.runs}, ${name}`);
        try {
          this.samples.push(await this.#sample(started, benchCase, repetition));
        } catch (error) {
          this.#fail(name, benchCase.name, error);
          list = list.filter((other) => other !== started);
        }
      }
    }
  }

  /** CPU use of every Aurochs and floor process while nothing asks for anything. */
  async measureIdle(): Promise<IdleUse[]> {
    const { children, clock, options, progress } = this.context;
    const watched = this.#started.flatMap(({ target, pids }) =>
      [...pids].map(([role, list]) => ({ target: target.name, role, list })),
    );
    if (watched.length === 0) return [];
    progress(`idle: settling for ${options.settleMs} ms`);
    await sleep(clock, options.settleMs, children.stopSignal);
    progress(`idle: watching for ${options.idleMs} ms`);
    const before = await Promise.all(watched.map(({ list }) => cpuSecondsOf(list)));
    const startMs = clock.nowMs();
    await sleep(clock, options.idleMs, children.stopSignal);
    const after = await Promise.all(watched.map(({ list }) => cpuSecondsOf(list)));
    const seconds = (clock.nowMs() - startMs) / 1000;
    return watched.map(({ target, role }, index) => ({
      target,
      role,
      coreShare: ((after[index] ?? 0) - (before[index] ?? 0)) / seconds,
    }));
  }

  async memoryPeaks(): Promise<MemoryPeak[]> {
    const peaks: MemoryPeak[] = [];
    for (const { target, pids } of this.#started) {
      for (const [role, list] of pids) {
        peaks.push({ target: target.name, role, bytes: await peakRssOf(list) });
      }
    }
    return peaks;
  }

  async #sample(started: Started, benchCase: BenchCase, repetition: number): Promise<Sample> {
    const { target, running, pids } = started;
    const before = await this.#cpu(pids);
    const seed = 100 + repetition;
    const result = await this.#fio(started, { benchCase, runMs: this.context.options.runMs, seed });
    const after = await this.#cpu(pids);
    await running.settle?.();
    const cpuSeconds: Record<string, number> = { fio: result.cpuSeconds };
    for (const role of pids.keys()) {
      cpuSeconds[role] = (after.get(role) ?? 0) - (before.get(role) ?? 0);
    }
    const fio = perClient(result, target.fioCopies);
    return { caseName: benchCase.name, target: target.name, repetition, fio, cpuSeconds };
  }

  #fio(
    started: Started,
    run: { benchCase: BenchCase; runMs: number | undefined; seed: number },
  ): Promise<FioResult> {
    const { children, directory, options } = this.context;
    const { endpoint } = started.running;
    return runFio({ ...run, endpoint, sizeBytes: options.sizeBytes }, { children, directory });
  }

  async #cpu(pids: Started['pids']): Promise<Map<string, number>> {
    const seconds = new Map<string, number>();
    for (const [role, list] of pids) seconds.set(role, await cpuSecondsOf(list));
    return seconds;
  }

  #fail(target: string, during: string, error: unknown): void {
    const reason = error instanceof Error ? error.message : String(error);
    this.failures.push({ target, during, reason });
  }
}
