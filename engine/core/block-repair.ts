/**
 * Heals blocks that one copy could not serve: rewritten from a good copy, in the background (design
 * section 4, scenario 49).
 *
 * Under the exclusive range lock, so that no newer write can be overwritten by the repair. Bounded:
 * a block is repaired once at a time, at most QUEUE_MAX wait; what does not fit is found again by
 * the next read. A copy that refuses the repair stays as it is: its reads go on failing over, and
 * its write errors exclude it elsewhere.
 */
import { type StorageError, toStorageError } from '../../common/errors.js';
import type { Gate } from '../../common/gate.js';
import type { Logger } from '../../common/log.js';
import { BLOCK_SIZE, roundDown } from '../../common/units.js';
import type { EqualGate } from './equal-gate.js';
import type { RangeLock } from './range-lock.js';
import type { ReadPath } from './read-path.js';
import type { ReplicaLink } from './replica-link.js';
import { UnaryOp } from './unary-op.js';

const QUEUE_MAX = 256;

export interface BlockRepairOptions {
  readonly lock: RangeLock;
  readonly reads: ReadPath;
  /** ranges in which the members may differ have no good copy yet (P5) */
  readonly equal: EqualGate;
  /** background work of the volume: repairs end before it closes */
  readonly gate: Gate;
  readonly log: Logger;
  /** the copy's region is dirty from now on: it has to be cleaned on all members again */
  readonly onTouched: (offsetBytes: number, lengthBytes: number) => void;
  readonly onRepaired: (link: ReplicaLink, offsetBytes: number) => void;
}

export class BlockRepair {
  readonly #options: BlockRepairOptions;
  readonly #queued = new Map<string, { link: ReplicaLink; offsetBytes: number }>();
  #running = false;

  constructor(options: BlockRepairOptions) {
    this.#options = options;
  }

  /** Blocks that wait for their repair. */
  get waiting(): number {
    return this.#queued.size;
  }

  /** A copy could not serve the block at `offsetBytes`. Returns at once. */
  add(link: ReplicaLink, offsetBytes: number): void {
    const block = roundDown(offsetBytes, BLOCK_SIZE);
    const key = `${link.index}:${block}`;
    if (this.#queued.has(key) || this.#queued.size >= QUEUE_MAX) return;
    this.#queued.set(key, { link, offsetBytes: block });
    if (this.#running || this.#options.gate.closed) return;
    this.#running = true;
    void this.#options.gate
      .run(() => this.#drain())
      .finally(() => {
        this.#running = false;
      });
  }

  async #drain(): Promise<void> {
    for (let next = this.#first(); next !== undefined; next = this.#first()) {
      const [key, { link, offsetBytes }] = next;
      const error = await this.#repair(link, offsetBytes);
      this.#queued.delete(key);
      const facts = { replica: link.replicaId, offsetBytes };
      if (error === undefined) this.#options.log.info(facts, 'block repaired');
      else this.#options.log.error({ ...facts, code: error.code }, `no repair: ${error.message}`);
    }
  }

  #first(): [string, { link: ReplicaLink; offsetBytes: number }] | undefined {
    const next = this.#queued.entries().next();
    return next.done ? undefined : next.value;
  }

  /** Mends one block now. @param avoid  copies that are no good either
   *  @throws StorageError why not */
  async mend(link: ReplicaLink, offsetBytes: number, avoid: readonly ReplicaLink[]): Promise<void> {
    const error = await this.#repair(link, offsetBytes, avoid);
    if (error !== undefined) throw error;
  }

  async #repair(
    link: ReplicaLink,
    offsetBytes: number,
    avoid: readonly ReplicaLink[] = [],
  ): Promise<StorageError | undefined> {
    const { lock, reads, equal: gate, onTouched, onRepaired } = this.#options;
    const hold = lock.lock(offsetBytes, BLOCK_SIZE, true);
    try {
      if (hold.ready !== undefined) await hold.ready;
      if (gate.active) await gate.pending(offsetBytes, BLOCK_SIZE);
      const good = await reads.readFromOthers([link, ...avoid], offsetBytes, BLOCK_SIZE);
      const op = new UnaryOp();
      onTouched(offsetBytes, BLOCK_SIZE);
      link.requestWrite(op, offsetBytes, Buffer.concat(good.chunks));
      good.release();
      await op.done;
      onRepaired(link, offsetBytes);
      return undefined;
    } catch (error) {
      return toStorageError(error, `repair block at ${offsetBytes}`);
    } finally {
      lock.unlock(hold);
    }
  }
}
