/** Makes the faults of a plan happen in a cluster, and takes them away again. */
import type { SimHost } from '../kernel/sim-process.js';
import type { LinkQuality } from '../network/link.js';
import type { Cluster } from '../world/cluster.js';
import type { ReplicaNode } from '../world/replica-node.js';
import { type Fault, type FaultAct, faultText } from './fault.js';
import { injectDiskFault } from './inject-disk-fault.js';
import { Replacement } from './replacement.js';

type BadLink = Extract<FaultAct, { kind: 'bad-link' }>;

const SOUND_LINK = {
  lossRate: 0,
  bytesPerMs: Number.POSITIVE_INFINITY,
  duplicateRate: 0,
  flipRate: 0,
};

export class Injector {
  readonly #cluster: Cluster;
  readonly #faults: Fault[];
  /** what takes a fault away that lasts */
  readonly #undo = new Set<() => void>();
  #ended = false;
  injected = 0;

  constructor(cluster: Cluster, faults: readonly Fault[]) {
    this.#cluster = cluster;
    this.#faults = [...faults].sort((a, b) => a.afterOperations - b.afterOperations);
  }

  /** The operation at this place of the plan begins. */
  reached(place: number): void {
    for (let next = this.#faults[0]; next !== undefined; next = this.#faults[0]) {
      if (next.afterOperations > place) return;
      const fault = next;
      this.#faults.shift();
      this.#cluster.scheduler.after(fault.delayMs, () => this.#inject(fault));
    }
  }

  /** No further fault, and none that is left. */
  end(): void {
    this.#ended = true;
    this.#faults.length = 0;
    for (const undo of [...this.#undo]) undo();
  }

  #inject(fault: Fault): void {
    if (this.#ended) return;
    const { cluster } = this;
    this.injected += 1;
    cluster.story.add('fault', faultText(fault));
    cluster.scheduler.note(this.injected);
    this.#act(fault.act);
  }

  get ended(): boolean {
    return this.#ended;
  }

  get cluster(): Cluster {
    return this.#cluster;
  }

  replica(number: number): ReplicaNode {
    const { replicas } = this.#cluster;
    return replicas[number % replicas.length] as ReplicaNode;
  }

  /** Calls back after a while, or at the end of all faults. */
  lasting(forMs: number, undo: () => void): void {
    const once = (): void => {
      if (!this.#undo.delete(once)) return;
      undo();
    };
    this.#undo.add(once);
    this.#cluster.scheduler.after(forMs, once);
  }

  /** Repeats something while faults go on. */
  #times(times: number, everyMs: number, act: () => void): void {
    if (times <= 0 || this.#ended) return;
    act();
    this.#cluster.scheduler.after(everyMs, () => this.#times(times - 1, everyMs, act));
  }

  #act(act: FaultAct): void {
    const { engines } = this.#cluster;
    const engine = engines.at(-1);
    switch (act.kind) {
      case 'engine-kill':
        this.#cluster.engineDownMs = act.downMs;
        engine?.kill();
        return;
      case 'engine-stop':
        this.#cluster.engineDownMs = act.downMs;
        engine?.stop();
        return;
      case 'engine-pause':
        if (engine === undefined) return;
        engine.process.stop();
        this.lasting(act.forMs, () => engine.process.continue());
        return;
      case 'engine-zombie':
        this.#zombie(act.forMs, act.startMs);
        return;
      case 'engine-kill-again':
        this.#times(act.times, act.everyMs, () => {
          this.#cluster.engineDownMs = 1;
          this.#cluster.engines.at(-1)?.kill();
        });
        return;
      case 'engine-kill-uneven':
        this.#killUneven(act);
        return;
      case 'all-kill':
        this.#cluster.engineDownMs = act.downMs;
        for (const node of [...engines]) node.kill();
        for (const node of this.#cluster.replicas) this.#kill(node, act.downMs);
        return;
      case 'all-power':
        this.#allPower(act);
        return;
      case 'clock-jump':
        this.#clockJump(act.host, act.byMs);
        return;
      default:
        this.#actOnReplica(act);
    }
  }

  /** The engine is stopped, another one takes over elsewhere, the first one goes on later. */
  #zombie(forMs: number, startMs: number): void {
    const cluster = this.#cluster;
    const old = cluster.engines.at(-1);
    if (old === undefined) return;
    cluster.story.add(old.name, 'is stopped, another engine takes over');
    old.process.stop();
    cluster.engineHost += 1;
    cluster.scheduler.after(startMs, () => {
      if (cluster.supervised && cluster.engines.at(-1) === old) cluster.startEngine();
    });
    this.lasting(forMs, () => {
      if (!old.alive) return;
      cluster.story.add(old.name, 'goes on');
      old.process.continue();
    });
  }

  #kill(node: ReplicaNode, downMs: number): void {
    node.restartMs = downMs;
    node.kill();
  }

  #allPower(act: Extract<FaultAct, { kind: 'all-power' }>): void {
    const cluster = this.#cluster;
    const hosts = cluster.hosts();
    cluster.story.add('world', 'all hosts lose power');
    for (const [n, host] of hosts.entries()) {
      cluster.losePower(host, act.fates[n % act.fates.length] ?? 'subset');
    }
    for (const [n, host] of hosts.entries()) {
      const laterMs = hosts.length > 1 ? (act.spreadMs * n) / (hosts.length - 1) : 0;
      this.lasting(act.downMs + laterMs, () => cluster.boot(host));
    }
    if (act.again <= 0) return;
    cluster.scheduler.after(act.downMs + act.spreadMs + act.againMs, () => {
      if (!this.#ended) this.#allPower({ ...act, again: act.again - 1 });
    });
  }

  #clockJump(number: number, byMs: number): void {
    const hosts: SimHost[] = this.#cluster.hosts();
    const host = hosts[number % hosts.length];
    if (host !== undefined) host.wallOffsetMs += byMs;
  }

  #actOnReplica(act: FaultAct): void {
    if (!('replica' in act)) return;
    switch (act.kind) {
      case 'replica-kill':
        this.#kill(this.replica(act.replica), act.downMs);
        return;
      case 'replace':
        new Replacement(this, this.replica(act.replica), act.downMs).begin();
        return;
      case 'replica-stop': {
        const node = this.replica(act.replica);
        node.restartMs = act.downMs;
        void node.stop();
        return;
      }
      case 'replica-pause': {
        const { process } = this.replica(act.replica);
        process?.stop();
        this.lasting(act.forMs, () => process?.continue());
        return;
      }
      case 'replica-crash-loop':
        this.#times(act.times, act.everyMs, () => this.#kill(this.replica(act.replica), 1));
        return;
      case 'power': {
        const node = this.replica(act.replica);
        this.#cluster.losePower(node.host, act.fate);
        this.lasting(act.downMs, () => node.boot());
        return;
      }
      case 'cut':
        this.#cut(act);
        return;
      case 'flap':
        this.#times(act.times, 2 * act.everyMs, () =>
          this.#cut({ replica: act.replica, way: 'both', forMs: act.everyMs }),
        );
        return;
      case 'reset':
        this.#reset(act.replica, act.way);
        return;
      case 'bad-link':
        this.#badLink(act);
        return;
      default:
        injectDiskFault(this, act);
    }
  }

  #cut(act: {
    readonly replica: number | undefined;
    readonly way: 'both' | 'requests' | 'replies';
    readonly forMs: number;
  }): void {
    const { network, replicas } = this.#cluster;
    const nodes = act.replica === undefined ? replicas : [this.replica(act.replica)];
    for (const { host } of nodes) {
      for (const other of this.#cluster.hosts()) {
        if (other === host) continue;
        const links = [
          ...(act.way === 'replies' ? [] : [network.link(other, host)]),
          ...(act.way === 'requests' ? [] : [network.link(host, other)]),
        ];
        for (const link of links) {
          link.cut();
          this.lasting(act.forMs, () => link.heal());
        }
      }
    }
  }

  /** One way or the other, at a random place of what is on its way. */
  #reset(number: number, way: 'requests' | 'replies'): void {
    const { host } = this.replica(number);
    for (const end of this.#cluster.network.clientEnds()) {
      if (end.other.process.host !== host) continue;
      const [first, second] = way === 'requests' ? [end, end.other] : [end.other, end];
      first.reset('reset on the way');
      second.reset('reset on the way');
    }
  }

  #killUneven(act: Extract<FaultAct, { kind: 'engine-kill-uneven' }>): void {
    const { behindMs: extraMs, afterMs, downMs, replica } = act;
    this.#badLink({ ...SOUND_LINK, replica, extraMs, forMs: afterMs + extraMs });
    this.#cluster.scheduler.after(afterMs, () => {
      if (this.#ended) return;
      this.#cluster.engineDownMs = downMs;
      this.#cluster.engines.at(-1)?.kill();
    });
  }

  #badLink(act: Omit<BadLink, 'kind'>): void {
    const { network } = this.#cluster;
    const { host } = this.replica(act.replica);
    for (const other of this.#cluster.hosts()) {
      if (other === host) continue;
      for (const link of [network.link(other, host), network.link(host, other)]) {
        const before: LinkQuality = { ...link.quality };
        link.quality = {
          delayMs: before.delayMs + act.extraMs,
          jitterMs: before.jitterMs + act.extraMs / 4,
          lossRate: act.lossRate,
          bytesPerMs: act.bytesPerMs,
          duplicateRate: act.duplicateRate,
          flipRate: act.flipRate,
        };
        this.lasting(act.forMs, () => {
          link.quality = { ...this.#cluster.plan.topology.quality };
        });
      }
    }
  }
}
