/**
 * Runs a plan: clients against a cluster, faults beside them, a full read-back after every start of
 * an engine, and at the end everything healed, read back, stopped and compared.
 */
import type { History } from '../../support/history.js';
import { checkHistory } from '../checker/check-history.js';
import { Injector } from '../faults/injector.js';
import { type Mix, mixNamed } from '../faults/mixes.js';
import { Client } from '../world/client.js';
import { Cluster } from '../world/cluster.js';
import type { EngineNode } from '../world/engine-node.js';
import { type Ground, NO_PLANTS, type Plants } from '../world/plants.js';
import { compareCopies } from './compare-copies.js';
import type { PlannedOperation, RunPlan } from './plan.js';
import { sweepOperations } from './sweep.js';

export interface RunOptions {
  /** a fault in the system under test itself */
  readonly plant?: (ground: Ground) => Plants;
  readonly story?: boolean;
}

export type Finding =
  | { readonly kind: 'history'; readonly text: string; readonly cell: number }
  /** copies that should be equal are not, or a block of one is bad */
  | { readonly kind: 'unequal'; readonly text: string }
  /** the volume did not serve again after everything was healed */
  | { readonly kind: 'stuck'; readonly text: string }
  /** memory or work that was not given back */
  | { readonly kind: 'leak'; readonly text: string }
  /** an assertion, or a rejection that nobody took */
  | { readonly kind: 'crash'; readonly text: string }
  /** the engine counts acknowledged writes as lost, and a copy has them all */
  | { readonly kind: 'needless'; readonly text: string }
  /** a read that no fault explains failed */
  | { readonly kind: 'unreadable'; readonly text: string };

export interface RunResult {
  readonly findings: readonly Finding[];
  readonly digest: string;
  readonly history: History;
  readonly story: readonly string[];
  readonly events: number;
  readonly simulatedMs: number;
  readonly faults: number;
  readonly tenures: number;
  /** eras of cells that the checker could not decide */
  readonly undecided: number;
}

export function runPlan(plan: RunPlan, options: RunOptions = {}): Promise<RunResult> {
  return new Run(plan, options).run();
}

const NEEDLESS = 'writes are counted as lost, though a copy of the record has lost nothing';
const SWEEPER = 1_000;
const SWEEP_DEPTH = 4;
/** everything healed: the volume has to serve again within */
const HEAL_MS = 1_200_000;
/** what is under way at the end has so long to end */
const QUIET_MS = 1_000;
const QUIET_LOOKS = 120;
/** every copy is in sync again within */
const RESTORE_LOOKS = 1_800;
/** a run that has not come so far is stuck */
const RUN_MS = 7_200_000;

class Run {
  readonly #cluster: Cluster;
  readonly #mix: Mix;
  readonly #injector: Injector;
  readonly #clients: Client[];
  readonly #findings: Finding[] = [];
  #simulatedMs = 0;
  #sweeper: Client | undefined;
  #phase: 'load' | 'loaded' | 'healing' | 'last sweep' | 'stopping' | 'done' = 'load';

  constructor(plan: RunPlan, options: RunOptions) {
    const plant = options.plant ?? ((): Plants => NO_PLANTS);
    this.#mix = mixNamed(plan.mix);
    this.#cluster = new Cluster({ plan, plant, story: options.story ?? false });
    this.#injector = new Injector(this.#cluster, plan.faults);
    const { clients, depth } = plan.topology;
    this.#clients = Array.from({ length: clients }, (_, number) => {
      const operations = plan.operations.filter(({ client }) => client === number);
      return this.#client(number, operations, depth);
    });
    this.#cluster.watchers.push({
      serving: (node) => this.#serving(node),
      gone: (node) => this.#gone(node),
      era: ({ hard, gaveUp }) => {
        if (gaveUp && !hard) this.#findings.push({ kind: 'needless', text: NEEDLESS });
      },
    });
  }

  async run(): Promise<RunResult> {
    const cluster = this.#cluster;
    const onRejection = (reason: unknown): void => cluster.scheduler.fail(reason);
    process.on('unhandledRejection', onRejection);
    try {
      cluster.start();
      cluster.scheduler.at(RUN_MS, () => this.#stuck(`in phase ${this.#phase}`));
      await cluster.scheduler.run();
      this.#simulatedMs = cluster.nowMs;
      await this.#compare();
    } catch (error) {
      this.#findings.push({ kind: 'crash', text: textOf(error) });
    } finally {
      process.removeListener('unhandledRejection', onRejection);
    }
    const report = checkHistory(cluster.history);
    for (const { text, cell, kind } of report.violations) {
      this.#findings.push({ kind: 'history', text: `${kind}: ${text}`, cell });
    }
    return {
      findings: this.#findings,
      digest: cluster.scheduler.digest,
      history: cluster.history,
      story: cluster.story.lines(),
      events: cluster.scheduler.events,
      simulatedMs: this.#simulatedMs,
      faults: this.#injector.injected,
      tenures: cluster.tenures,
      undecided: report.undecided,
    };
  }

  #client(number: number, operations: readonly PlannedOperation[], depth: number): Client {
    return new Client({
      ...{ cluster: this.#cluster, number, operations, depth },
      onStart: ({ place }) => {
        if (number !== SWEEPER) this.#injector.reached(place);
      },
      onIdle: () => this.#idle(),
      onFailure: (code, operation) => this.#failed(code, operation),
    });
  }

  /** Everything is read back before the clients go on (unread loss is invisible). */
  #serving(node: EngineNode): void {
    if (this.#phase === 'done' || (this.#phase === 'stopping' && !this.#cluster.supervised)) return;
    if (this.#phase === 'healing') this.#phase = 'last sweep';
    for (const client of this.#clients) {
      client.hold();
      // Some clients stay with an older engine that is still there.
      if (this.#cluster.random.chance(0.5)) client.reconnect();
    }
    this.#cluster.story.add('world', `everything is read back from ${node.name}`);
    this.#sweep();
  }

  #sweep(): void {
    this.#sweeper?.reconnect();
    this.#sweeper = this.#client(
      SWEEPER,
      sweepOperations(this.#cluster.stamps.layout),
      SWEEP_DEPTH,
    );
    this.#sweeper.release();
  }

  #gone(node: EngineNode): void {
    this.#sweeper?.gone(node);
    for (const client of this.#clients) client.gone(node);
  }

  #idle(): void {
    if (this.#sweeper?.idle === true) {
      this.#sweeper = undefined;
      if (this.#phase === 'last sweep') this.#stop();
      // A client that still waits for an older engine turns to the new one.
      else for (const client of this.#clients) client.release();
      return;
    }
    if (this.#phase !== 'load' || !this.#clients.every((client) => client.idle)) return;
    this.#phase = 'loaded';
    // Not in the middle of the power cut that made the last client idle.
    this.#cluster.scheduler.after(0, () => this.#heal());
  }

  #failed(code: string, operation: PlannedOperation): void {
    const damaged = code === 'CORRUPT_BLOCK' || code === 'IO_ERROR';
    if (operation.kind !== 'R' || !damaged || this.#mix.readsMayFail === true) return;
    if (this.#cluster.plan.faults.some(({ act }) => act.kind.startsWith('disk'))) return;
    this.#findings.push({ kind: 'unreadable', text: `a read failed with ${code}` });
  }

  /** All faults end, everything is up; a fresh engine serves and shows all that is there. */
  #heal(): void {
    const cluster = this.#cluster;
    this.#phase = 'healing';
    cluster.story.add('world', 'all operations are done: everything is healed');
    this.#injector.end();
    for (const host of cluster.hosts()) cluster.boot(host);
    for (const replica of cluster.replicas) {
      replica.restartMs = 200;
      replica.start();
    }
    for (const node of [...cluster.engines]) node.kill();
    if (cluster.engines.length === 0) cluster.startEngine();
    cluster.scheduler.after(HEAL_MS, () => {
      if (this.#phase === 'healing') this.#stuck('everything was healed');
    });
  }

  /** Waits until every copy is in sync again and nothing moves any more, then stops everything in
   *  order. */
  #stop(): void {
    this.#phase = 'stopping';
    this.#whenRestored(RESTORE_LOOKS, () => {
      this.#cluster.supervised = false;
      this.#whenQuiet(QUIET_LOOKS, () => {
        this.#stopAll().catch((error: unknown) => this.#cluster.scheduler.fail(error));
      });
    });
  }

  #whenRestored(looks: number, then: () => void): void {
    const { replicas, plan } = this.#cluster;
    const record = this.#cluster.newestRecord();
    const inSync = record === undefined ? 0 : this.#cluster.membersOf(record).length;
    // Damage and want of space may be for good.
    const may = this.#mix.readsMayFail === true || plan.topology.tooSmall;
    if (inSync === replicas.length || may) then();
    else if (looks <= 0) {
      this.#stuck(`${inSync} of ${replicas.length} copies are in sync, long after all was healed`);
    } else this.#cluster.scheduler.after(QUIET_MS, () => this.#whenRestored(looks - 1, then));
  }

  #whenQuiet(looks: number, then: () => void): void {
    this.#cluster.scheduler.after(QUIET_MS, () => {
      const left = this.#leaks();
      if (left.length > 0 && looks > 0) {
        this.#whenQuiet(looks - 1, then);
        return;
      }
      for (const text of left) this.#findings.push({ kind: 'leak', text });
      then();
    });
  }

  #leaks(): string[] {
    const { replicas, serving } = this.#cluster;
    const inFlight = this.#clients.reduce((sum, client) => sum + client.inFlight, 0);
    return [
      ...(inFlight > 0 ? [`${inFlight} operations are not answered`] : []),
      ...(serving === undefined ? ['no engine is left'] : []),
      ...replicas
        .filter(({ pool }) => pool.usedBytes > 0)
        .map(({ name, pool }) => `${name} holds ${pool.usedBytes} bytes`),
    ];
  }

  async #stopAll(): Promise<void> {
    const cluster = this.#cluster;
    for (const node of [...cluster.engines]) {
      await new Promise<void>((resolve) => {
        node.process.onDeath(() => resolve());
        node.stop();
      });
    }
    for (const replica of cluster.replicas) {
      replica.restartMs = undefined;
      await replica.stop();
      replica.process?.die('exit');
    }
    this.#phase = 'done';
    cluster.scheduler.stop();
  }

  #stuck(text: string): void {
    if (this.#phase === 'done') return;
    this.#findings.push({ kind: 'stuck', text });
    this.#phase = 'done';
    this.#cluster.scheduler.stop();
  }

  /** Every copy that the record names in sync, block by block, from what its disk holds. */
  async #compare(): Promise<void> {
    const cluster = this.#cluster;
    const record = cluster.newestRecord();
    if (this.#phase !== 'done' || record === undefined || this.#findings.length > 0) return;
    const report = compareCopies(cluster, cluster.membersOf(record));
    const work = report.then(
      ({ differences, badBlocks }) => {
        // Damage that nobody has read yet is no difference that recovery left.
        const damaged = this.#mix.readsMayFail === true;
        const known = new Set(damaged ? badBlocks.map((bad) => bad.offsetBytes) : []);
        const wrong = [...differences, ...(damaged ? [] : badBlocks)];
        const places = wrong.filter((one) => !known.has(one.offsetBytes)).slice(0, 5);
        if (places.length === 0) return;
        this.#findings.push({ kind: 'unequal', text: JSON.stringify(places) });
      },
      (error: unknown) => this.#findings.push({ kind: 'unequal', text: textOf(error) }),
    );
    while (await isOpen(work)) await cluster.scheduler.run();
  }
}

async function isOpen(work: Promise<unknown>): Promise<boolean> {
  const open = Symbol('open');
  const later = new Promise((resolve) => setImmediate(() => resolve(open)));
  return (await Promise.race([work.then(() => undefined), later])) === open;
}

function textOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
