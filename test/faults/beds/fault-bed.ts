/** What every fault test needs: a lab, a seed that a failure names, clusters and loads in it, and
 *  the logs of the processes when it failed. */
import { readdir, readFile } from 'node:fs/promises';
import { afterEach, beforeEach, expect, type TestContext } from 'vitest';
import { parseSize } from '../../../common/units.js';
import { SeededRandom } from '../../engine/nbd/seeded-random.js';
import { Cluster, type ClusterOptions } from '../../support/cluster.js';
import { NbdLoadClient } from '../../support/load-client.js';
import { run } from '../../support/process.js';
import { type LoadOptions, StampedLoad } from '../../support/stamped-load.js';
import { Lab } from './lab.js';

const LOG_LINES = 12;
const FACTS_MAX = 200;

export class FaultBed {
  /** AUROCHS_SEED, or drawn */
  readonly seed = SeededRandom.runSeed();
  random = new SeededRandom(this.seed);
  #lab: Lab | undefined;
  #clusters = 0;

  /** To be called in a `describe`: each test gets a lab of its own, which is gone afterwards. */
  static use(): FaultBed {
    const bed = new FaultBed();
    beforeEach(async () => {
      bed.random = new SeededRandom(bed.seed);
      bed.#clusters = 0;
      bed.#lab = await Lab.open();
    });
    afterEach(async (context) => {
      await bed.#explain(context);
      await bed.#lab?.close();
      bed.#lab = undefined;
    });
    return bed;
  }

  get lab(): Lab {
    if (this.#lab === undefined) throw new Error('there is a lab only inside of a test');
    return this.#lab;
  }

  /** Nothing runs yet. */
  async makeCluster(options: ClusterOptions = {}): Promise<Cluster> {
    this.#clusters += 1;
    const dir = await this.lab.makeDir(`c${this.#clusters}`);
    const cluster = await Cluster.make({ size: '64MiB', diskSize: '256MiB', dir, ...options });
    this.lab.onClose(() => cluster.stop('SIGKILL'));
    return cluster;
  }

  /** Daemons and engine, ready. */
  async startCluster(options: ClusterOptions = {}): Promise<Cluster> {
    const cluster = await this.makeCluster(options);
    await cluster.startDaemons();
    await cluster.startEngine();
    return cluster;
  }

  /** A load on the cluster's NBD socket; not started. */
  load(cluster: Cluster, options: Partial<LoadOptions> = {}): StampedLoad {
    return new StampedLoad({
      seed: this.random.below(2 ** 31),
      bytes: parseSize(cluster.options.size ?? '64MiB'),
      connect: () => NbdLoadClient.connect(cluster.socket),
      ...options,
    });
  }

  /** Whether a process has logged such a line. @param name as in `NAME.log` */
  async logged(cluster: Cluster, name: string, line: RegExp): Promise<boolean> {
    return line.test(await readFile(`${cluster.dir}/${name}.log`, 'utf8'));
  }

  /** Milliseconds from the range, by seed, pass. */
  async someTime(fromMs: number, toMs: number): Promise<void> {
    const ms = fromMs + this.random.below(toMs - fromMs);
    await new Promise((resolve) => setTimeout(resolve, ms));
  }

  async #explain(context: TestContext): Promise<void> {
    if (context.task.result?.state !== 'fail') return;
    const lines = [`AUROCHS_SEED=${this.seed}`];
    for (const name of await readdir(this.lab.dir, { recursive: true })) {
      if (!/(replica\d|second)\.log$|events\.jsonl$/.test(name)) continue;
      const { stdout } = await run('tail', ['-n', String(LOG_LINES), this.lab.path(name)]);
      if (stdout !== '') lines.push(`--- ${name}`, ...stdout.trimEnd().split('\n').map(shorten));
    }
    process.stderr.write(`${lines.join('\n')}\n`);
  }
}

/** A line of a JSON log, or of the events of an engine, for people. */
function shorten(line: string): string {
  try {
    const { time, wallMs, msg, text, kind, replica, ...facts } = JSON.parse(line);
    const at = new Date(time ?? wallMs).toISOString().substring(14, 23);
    if (msg === undefined) return `${at} ${kind} ${replica ?? ''} ${text}`;
    for (const name of ['level', 'component', 'pid']) delete facts[name];
    return `${at} ${msg} ${JSON.stringify(facts).substring(0, FACTS_MAX)}`;
  } catch {
    return line;
  }
}

/** No rule is broken: what the load saw has one explanation. */
export function expectSound(load: StampedLoad): void {
  expect(load.problems()).toEqual([]);
}

/** Resolves when the start of the engine has made equal what it had to. */
export async function untilRecovered(cluster: Cluster, limitMs = 60_000): Promise<void> {
  await until('every copy is equal', limitMs, async () => {
    const events = await cluster.events();
    const compares = events.findLastIndex(({ text }) => text.includes('are compared'));
    return events.findLastIndex(({ text }) => text === 'all members are equal') >= compares;
  });
}

/** How many bytes of writes in flight the starts so far made equal. */
export async function recoveredBytes(cluster: Cluster): Promise<number> {
  const events = await cluster.events();
  return events
    .filter(({ kind }) => kind === 'recovered')
    .reduce((sum, { bytes }) => sum + (bytes ?? 0), 0);
}

/** Polls until the condition holds. @throws Error with what it was about after `limitMs` */
export async function until(
  what: string,
  limitMs: number,
  condition: () => Promise<boolean> | boolean,
): Promise<void> {
  const endMs = performance.now() + limitMs;
  while (!(await condition())) {
    if (performance.now() > endMs) throw new Error(`not within ${limitMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
