/**
 * One volume in a simulated world: hosts, replica daemons, the engine and who starts it again, and
 * the history that everybody writes to.
 *
 * Which crashes are hard (F3) is found out here: when a new tenure serves, and every copy of its
 * record has lost power or a flush since it was last known to be in sync, then what no flush
 * covered may be gone.
 */
import type { MembershipRecord } from '../../../engine/core/replica-set.js';
import type { VolumeEvent } from '../../../engine/events/event-log.js';
import { CellLayout, CellStamps } from '../../support/cell-stamp.js';
import { History } from '../../support/history.js';
import { Random } from '../kernel/random.js';
import { Scheduler } from '../kernel/scheduler.js';
import { SimHost } from '../kernel/sim-process.js';
import { SimNetwork } from '../network/network.js';
import type { RunPlan } from '../run/plan.js';
import { EngineNode } from './engine-node.js';
import { LossOracle } from './loss-oracle.js';
import type { Ground, Plants } from './plants.js';
import { ReplicaNode } from './replica-node.js';
import { Story } from './story.js';

export const VOLUME = 'v1';

export interface ClusterOptions {
  readonly plan: RunPlan;
  readonly plant: (ground: Ground) => Plants;
  readonly story: boolean;
}

/** Who wants to know when a tenure serves or an engine is gone. */
export interface ClusterWatcher {
  serving(node: EngineNode): void;
  gone(node: EngineNode): void;
  /** @param found.gaveUp the engine counts acknowledged writes as lost; `hard`: they may be */
  era(found: { readonly hard: boolean; readonly gaveUp: boolean }): void;
}

const RETRY_MS = 250;

export class Cluster {
  readonly plan: RunPlan;
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly story: Story;
  readonly network: SimNetwork;
  readonly replicas: ReplicaNode[] = [];
  readonly engineHosts: SimHost[] = [];
  readonly stamps: CellStamps;
  readonly history: History;
  /** engine processes that were started and are alive, the newest last */
  readonly engines: EngineNode[] = [];
  readonly watchers: ClusterWatcher[] = [];
  /** an engine is started again when the last one is gone */
  supervised = true;
  /** for how long it stays away then; taken once */
  engineDownMs: number | undefined;
  /** where the next engine starts */
  engineHost = 0;
  tenures = 0;
  readonly #plants: Plants;
  readonly #losses = new LossOracle();
  #numbers = 0;
  #era = 0;

  constructor({ plan, plant, story }: ClusterOptions) {
    this.plan = plan;
    const { topology, seed } = plan;
    this.random = new Random(seed).fork('world');
    this.scheduler = new Scheduler({ quantumMs: topology.quantumMs });
    this.story = new Story(this.scheduler, story);
    this.#plants = plant({ random: this.random.fork('plant'), scheduler: this.scheduler });
    this.network = new SimNetwork(this.scheduler, this.random, topology.quality);
    const layout = new CellLayout(topology.windows, topology.cuts);
    this.stamps = new CellStamps(layout, seed >>> 0);
    this.history = new History({ run: seed, cells: layout.cells, multiConn: true });
    for (let n = 0; n < topology.replicas; n += 1) this.#addReplica(n);
    for (let n = 0; n < topology.engineHosts; n += 1) this.#addEngineHost(n);
  }

  get nowMs(): number {
    return this.scheduler.nowMs;
  }

  /** The newest engine that serves. */
  get serving(): EngineNode | undefined {
    return this.engines.findLast((node) => node.serving);
  }

  hosts(): SimHost[] {
    return [...new Set([...this.replicas.map(({ host }) => host), ...this.engineHosts])];
  }

  start(): void {
    for (const replica of this.replicas) replica.start();
    this.startEngine();
  }

  /** Starts an engine on the chosen host, beside one that may be there still. */
  startEngine(): void {
    const host = this.engineHosts[this.engineHost % this.engineHosts.length];
    if (host?.up !== true) {
      this.scheduler.after(RETRY_MS, () => this.#startIfNone());
      return;
    }
    this.#numbers += 1;
    const { topology } = this.plan;
    const node = new EngineNode({
      ...{ host, number: this.#numbers, network: this.network, story: this.story },
      random: this.random.fork(`engine ${this.#numbers}`),
      plants: this.#plants,
      config: {
        volume: VOLUME,
        sizeBytes: topology.volumeBytes,
        replicas: this.replicas.map(({ address }) => address),
        salvage: false,
        tls: undefined,
        insecure: true,
        tuning: topology.tuning,
      },
      onServe: (served) => this.#served(served),
      onEvent: (told, event) => this.#event(told, event),
      onEnd: (ended) => this.#ended(ended),
    });
    this.engines.push(node);
  }

  /** A host loses power, with all that runs on it. */
  losePower(host: SimHost, fate: 'kept' | 'dropped' | 'subset' | 'torn'): void {
    const replica = this.replicas.find((node) => node.host === host);
    if (replica === undefined) host.losePower();
    else replica.losePower(fate);
  }

  boot(host: SimHost): void {
    const replica = this.replicas.find((node) => node.host === host);
    if (replica !== undefined) replica.boot();
    else if (!host.up) {
      host.boot();
      this.network.rebooted(host);
    }
  }

  /** The newest membership record that any copy has stored. */
  newestRecord(): MembershipRecord | undefined {
    let newest: MembershipRecord | undefined;
    for (const replica of this.replicas) {
      const record = replica.membership();
      if (record === undefined) continue;
      const newer =
        newest === undefined ||
        record.epoch > newest.epoch ||
        (record.epoch === newest.epoch && record.generation > newest.generation);
      if (newer) newest = record;
    }
    return newest;
  }

  /** The nodes that hold the in-sync members of a record. */
  membersOf(record: MembershipRecord): ReplicaNode[] {
    const inSync = new Set(
      record.members.filter((m) => m.state === 'in-sync').map((m) => m.replicaId),
    );
    return this.replicas.filter((node) => inSync.has(node.replicaId() ?? ''));
  }

  #served(node: EngineNode): void {
    this.tenures += 1;
    node.tenure = this.tenures;
    const record = this.newestRecord();
    const members = record === undefined ? [] : this.membersOf(record);
    const hard = this.#losses.serving(members, node.suspects);
    if (hard) {
      this.story.add(
        'world',
        'every in-sync copy had lost power: what was not flushed may be gone',
      );
      this.history.crash(this.nowMs, true);
    }
    const gaveUp = node.era > this.#era;
    this.#era = Math.max(this.#era, node.era);
    for (const watcher of this.watchers) watcher.era({ hard, gaveUp });
    this.story.add(node.name, `serves, tenure ${node.tenure}, era ${node.era}`);
    this.history.serve(this.nowMs, node.tenure);
    for (const watcher of this.watchers) watcher.serving(node);
  }

  /** An engine tells what happens to its members; an older one is not believed. */
  #event(node: EngineNode, event: VolumeEvent): void {
    if (node !== this.serving) return;
    const member = this.replicas.find((one) => one.replicaId() === event.replica);
    if (event.kind === 'recovered') this.#losses.recovered();
    else if (event.kind === 'rebuilding' && member !== undefined) this.#losses.rebuilding(member);
    else if (event.kind === 'in-sync' && member !== undefined) this.#losses.promoted(member);
    else if (event.kind === 'back') {
      // Operations that waited go on: nothing is decided by it.
      this.tenures += 1;
      node.tenure = this.tenures;
      const record = this.newestRecord();
      this.#losses.serving(record === undefined ? [] : this.membersOf(record), node.suspects);
    } else if (event.kind === 'lost') node.suspects = false;
  }

  #ended(node: EngineNode): void {
    const at = this.engines.indexOf(node);
    if (at >= 0) this.engines.splice(at, 1);
    if (node.tenure > 0) this.history.crash(this.nowMs, false);
    for (const watcher of this.watchers) watcher.gone(node);
    const downMs = this.engineDownMs ?? RETRY_MS;
    this.engineDownMs = undefined;
    this.scheduler.after(downMs, () => this.#startIfNone());
  }

  #startIfNone(): void {
    if (this.supervised && this.engines.length === 0) this.startEngine();
  }

  #addReplica(number: number): void {
    const { topology } = this.plan;
    const name = `node-${number + 1}`;
    this.replicas.push(
      new ReplicaNode({
        host: new SimHost(this.scheduler, name, this.random),
        address: `${name}:9600`,
        diskBytes: topology.diskBytes[number] ?? 0,
        times: topology.times,
        network: this.network,
        random: this.random,
        story: this.story,
        plants: this.#plants,
      }),
    );
  }

  #addEngineHost(number: number): void {
    const shared = this.plan.topology.shared ? this.replicas[number]?.host : undefined;
    this.engineHosts.push(shared ?? new SimHost(this.scheduler, `host-${number + 1}`, this.random));
  }
}
