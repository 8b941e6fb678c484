/**
 * One client of the volume: sends its operations in order, so many at once, to the engine it is
 * connected to, and notes what it asked and what it was answered.
 *
 * It waits while no engine serves. After an error, or when its engine is gone, it turns to the
 * newest one; what it had asked the other stays unknown.
 */
import { StorageError } from '../../../common/errors.js';
import type { BlockVolume, ReadResult } from '../../../engine/block-volume.js';
import type { PlannedOperation } from '../run/plan.js';
import type { Cluster } from './cluster.js';
import type { EngineNode } from './engine-node.js';

/** From client to engine, over the socket between them. */
const HOP_MS = 0.01;
/** after an error */
const BACK_OFF_MS = 20;

export interface ClientOptions {
  readonly cluster: Cluster;
  readonly number: number;
  readonly operations: readonly PlannedOperation[];
  readonly depth: number;
  /** an operation begins */
  readonly onStart: (operation: PlannedOperation) => void;
  /** one has ended; true in `idle` of the client: nothing is left to do */
  readonly onIdle: () => void;
  /** a read failed that nobody could serve */
  readonly onFailure: (code: string, operation: PlannedOperation) => void;
}

type Result = { readonly values?: readonly number[] } | { readonly error: StorageError };

export class Client {
  readonly #options: ClientOptions;
  readonly #pending = new Map<number, EngineNode>();
  #next = 0;
  #engine: EngineNode | undefined;
  #held = true;
  #scheduled = false;
  #readyMs = 0;
  errors = 0;

  constructor(options: ClientOptions) {
    this.#options = options;
  }

  get number(): number {
    return this.#options.number;
  }

  get inFlight(): number {
    return this.#pending.size;
  }

  /** Everything was asked and answered. */
  get idle(): boolean {
    return this.#next >= this.#options.operations.length && this.#pending.size === 0;
  }

  /** May send from now on. */
  release(): void {
    this.#held = false;
    this.#pump();
  }

  /** Sends nothing more until it is released. */
  hold(): void {
    this.#held = true;
  }

  /** Gives up what it waits for and turns to the newest engine. */
  reconnect(): void {
    this.#engine = undefined;
    this.#abandon(() => true);
    this.#pump();
  }

  /** An engine is gone, with whatever was asked of it. */
  gone(node: EngineNode): void {
    if (this.#engine === node) this.#engine = undefined;
    this.#abandon((asked) => asked === node);
    this.#pump();
  }

  #abandon(which: (asked: EngineNode) => boolean): void {
    const { history, nowMs } = this.#options.cluster;
    for (const [op, asked] of [...this.#pending]) {
      if (!which(asked)) continue;
      this.#pending.delete(op);
      history.end(nowMs, op, { outcome: 'unknown' });
    }
    if (this.idle) this.#options.onIdle();
  }

  #pump(): void {
    if (this.#scheduled || this.#held) return;
    const operation = this.#options.operations[this.#next];
    if (operation === undefined || this.#pending.size >= this.#options.depth) return;
    this.#engine ??= this.#options.cluster.serving;
    if (this.#engine === undefined) return;
    const { scheduler } = this.#options.cluster;
    this.#scheduled = true;
    this.#readyMs = Math.max(this.#readyMs, scheduler.nowMs) + operation.gapMs;
    scheduler.at(this.#readyMs, () => {
      this.#scheduled = false;
      if (!this.#held && this.#engine !== undefined) {
        this.#next += 1;
        this.#send(operation, this.#engine);
      }
      this.#pump();
    });
  }

  #send(operation: PlannedOperation, node: EngineNode): void {
    const { cluster, number, onStart } = this.#options;
    const { history, scheduler, stamps } = cluster;
    const { kind, first, count, fua } = operation;
    const place = kind === 'F' ? {} : { first, count };
    const fields = { kind, connection: number, fua, tenure: node.tenure, ...place };
    const op = history.start(scheduler.nowMs, fields);
    const payload = kind === 'W' ? stamps.payload(first, count, op) : undefined;
    this.#pending.set(op, node);
    onStart(operation);
    node.process.post(scheduler.nowMs + HOP_MS, () => {
      void this.#perform(operation, node, payload).then((result) => {
        scheduler.after(HOP_MS, () => this.#answered(op, operation, result));
      });
    });
  }

  async #perform(
    operation: PlannedOperation,
    node: EngineNode,
    payload: Buffer | undefined,
  ): Promise<Result> {
    const { volume } = node;
    try {
      if (volume === undefined) throw new StorageError('CLOSED', 'no volume');
      return await this.#inside(operation, volume, payload);
    } catch (error) {
      if (error instanceof StorageError) return { error };
      throw error;
    }
  }

  async #inside(
    operation: PlannedOperation,
    volume: BlockVolume,
    payload: Buffer | undefined,
  ): Promise<Result> {
    const { kind, first, count, fua, noHole } = operation;
    if (kind === 'F') {
      await volume.flush();
      return {};
    }
    const { layout } = this.#options.cluster.stamps;
    const { offsetBytes, lengthBytes } = layout.rangeOf(first, count);
    const moved = kind === 'R' || kind === 'W' ? lengthBytes : 0;
    const admitted = volume.enter(moved);
    if (admitted !== undefined) await admitted;
    try {
      if (kind === 'W') {
        await volume.write(offsetBytes, lengthBytes, [payload ?? Buffer.alloc(0)], { fua });
      } else if (kind === 'T') await volume.trim(offsetBytes, lengthBytes, { fua });
      else if (kind === 'Z') await volume.writeZeroes(offsetBytes, lengthBytes, { fua, noHole });
      else
        return { values: this.#valuesOf(operation, await volume.read(offsetBytes, lengthBytes)) };
      return {};
    } finally {
      volume.leave(moved);
    }
  }

  #valuesOf({ first, count }: PlannedOperation, result: ReadResult): number[] {
    const [only, ...more] = result.chunks;
    const bytes = only !== undefined && more.length === 0 ? only : Buffer.concat(result.chunks);
    const values = this.#options.cluster.stamps.values(first, count, bytes);
    result.release();
    return values;
  }

  #answered(op: number, operation: PlannedOperation, result: Result): void {
    const node = this.#pending.get(op);
    if (node === undefined) return;
    this.#pending.delete(op);
    const { cluster, onFailure, onIdle } = this.#options;
    if ('error' in result) {
      const { code } = result.error;
      cluster.history.end(cluster.nowMs, op, { outcome: 'error', code });
      this.errors += 1;
      onFailure(code, operation);
      if (this.#engine === node && code !== 'NO_SPACE') this.#engine = undefined;
      this.#readyMs = Math.max(this.#readyMs, cluster.nowMs + BACK_OFF_MS);
    } else cluster.history.end(cluster.nowMs, op, { outcome: 'ok', ...result });
    this.#pump();
    if (this.idle) onIdle();
  }
}
