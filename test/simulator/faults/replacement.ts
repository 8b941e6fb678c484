/**
 * A disk is lost for good, and a person replaces the replica: a blank disk, the old member taken
 * off the record, a new one made in its place.
 *
 * The person waits until the engine has excluded the copy. If that does not happen before the
 * faults end, the disk was not lost after all.
 */
import type { Cluster } from '../world/cluster.js';
import type { ReplicaNode } from '../world/replica-node.js';
import type { Injector } from './injector.js';

const LOOK_MS = 100;
const AGAIN_MS = 1_000;

export class Replacement {
  readonly #injector: Injector;
  readonly #cluster: Cluster;
  readonly #node: ReplicaNode;
  readonly #downMs: number;

  constructor(injector: Injector, node: ReplicaNode, downMs: number) {
    this.#injector = injector;
    this.#cluster = injector.cluster;
    this.#node = node;
    this.#downMs = downMs;
  }

  begin(): void {
    const node = this.#node;
    // One at a time, and never the copy that others are made from.
    if (!node.alive || this.#others() < 1) return;
    node.restartMs = undefined;
    node.kill();
    this.#await();
  }

  /** In-sync copies beside this one. */
  #others(): number {
    const record = this.#cluster.newestRecord();
    const members = record === undefined ? [] : this.#cluster.membersOf(record);
    return members.filter((member) => member !== this.#node).length;
  }

  #await(): void {
    const { scheduler } = this.#cluster;
    const record = this.#cluster.newestRecord();
    const node = this.#node;
    if (this.#injector.ended || node.alive) return;
    if (record === undefined || this.#cluster.membersOf(record).includes(node)) {
      scheduler.after(LOOK_MS, () => this.#await());
      return;
    }
    const old = node.replicaId();
    if (old === undefined) return;
    node.replaceDisk();
    scheduler.after(this.#downMs, () => {
      node.restartMs = this.#downMs;
      node.start();
      this.#replace(old);
    });
  }

  /** Tries until the new member is on the record. */
  #replace(old: string): void {
    const { scheduler, story } = this.#cluster;
    const again = (): void => {
      scheduler.after(AGAIN_MS, () => this.#replace(old));
    };
    const record = this.#cluster.newestRecord();
    const { address } = this.#node;
    const there = record?.members.find((m) => m.address === address && m.replicaId !== old);
    if (there !== undefined) return;
    const engine = this.#cluster.serving;
    if (engine === undefined || !this.#node.serving) {
      again();
      return;
    }
    const isNamed = record?.members.some((m) => m.replicaId === old) === true;
    story.add('person', isNamed ? `takes ${old} off` : `makes a new member on ${address}`);
    engine.operate(async (running) => {
      if (isNamed) await running.members.leave({ replicaId: old, deleteData: false, address: '' });
      else await running.members.join(address);
    }, again);
  }
}
