/** A Kv in memory that can lose power: what was synced stays, what was not goes, as a whole or in
 *  part. */
import { StorageError } from '../../common/errors.js';
import type { Kv, KvEntry, KvOp, KvRange, OpenKv } from '../../replica/store/kv.js';

type State = Map<string, Buffer>;

/** What a directory holds while nobody has it open. */
export class MemoryKvDisk {
  #durable: State = new Map();
  /** batches since the last sync, oldest first */
  #pending: KvOp[][] = [];
  current: State = new Map();
  open: MemoryKv | undefined;
  /** called before each batch; may throw or wait */
  beforeBatch: ((sync: boolean) => Promise<void> | undefined) | undefined;
  batches = 0;
  syncs = 0;
  gets = 0;

  apply(ops: readonly KvOp[], sync: boolean): void {
    this.batches += 1;
    applyTo(this.current, ops);
    this.#pending.push(ops.map((op) => ({ key: Buffer.from(op.key), value: copyOf(op.value) })));
    if (!sync) return;
    this.syncs += 1;
    this.#durable = new Map(this.current);
    this.#pending = [];
  }

  get unsyncedBatches(): number {
    return this.#pending.length;
  }

  /** The machine lost power: keeps the first `keep` unsynced batches. The open database, if any, is
   *  dead. */
  powerCut(keep = 0): void {
    this.kill();
    const state = new Map(this.#durable);
    for (const ops of this.#pending.slice(0, keep)) applyTo(state, ops);
    this.current = state;
    this.#durable = new Map(state);
    this.#pending = [];
  }

  /** The process died: everything that resolved stays. */
  kill(): void {
    this.open?.die();
    this.open = undefined;
  }

  snapshot(): State {
    return new Map(this.current);
  }

  restore(state: State): void {
    this.current = new Map(state);
    this.#durable = new Map(state);
    this.#pending = [];
  }
}

/** Directories by path, and the OpenKv that opens them. */
export class MemoryKvHome {
  readonly disks = new Map<string, MemoryKvDisk>();
  /** given to databases that are made from now on */
  beforeBatch: MemoryKvDisk['beforeBatch'];

  readonly openKv: OpenKv = async (directory, { create }) => {
    let disk = this.disks.get(directory);
    if (create) {
      if (disk !== undefined) throw new StorageError('ALREADY_EXISTS', directory);
      disk = new MemoryKvDisk();
      disk.beforeBatch = this.beforeBatch;
      this.disks.set(directory, disk);
    }
    if (disk === undefined) throw new StorageError('DISK_MISMATCH', `${directory} is missing`);
    if (disk.open !== undefined) throw new StorageError('DISK_LOCKED', directory);
    disk.open = new MemoryKv(disk);
    return disk.open;
  };

  /** The only one; most tests have one disk. */
  get only(): MemoryKvDisk {
    const [disk, ...others] = this.disks.values();
    if (disk === undefined || others.length > 0) throw new Error(`${this.disks.size} databases`);
    return disk;
  }
}

export class MemoryKv implements Kv {
  readonly #disk: MemoryKvDisk;
  #dead = false;

  constructor(disk: MemoryKvDisk) {
    this.#disk = disk;
  }

  async get(key: Buffer): Promise<Buffer | undefined> {
    this.#check();
    this.#disk.gets += 1;
    return copyOf(this.#disk.current.get(key.toString('latin1')));
  }

  async batch(ops: readonly KvOp[], options: { sync: boolean }): Promise<void> {
    this.#check();
    await this.#disk.beforeBatch?.(options.sync);
    this.#check();
    this.#disk.apply(ops, options.sync);
    await Promise.resolve();
    this.#check();
  }

  async *iterate(range: KvRange): AsyncIterable<readonly KvEntry[]> {
    this.#check();
    const [from, to] = [range.from.toString('latin1'), range.to.toString('latin1')];
    const keys = [...this.#disk.current.keys()].filter((key) => key >= from && key < to).sort();
    const entries = keys.map((key): KvEntry => {
      const value = this.#disk.current.get(key) ?? Buffer.alloc(0);
      return [Buffer.from(key, 'latin1'), Buffer.from(value)];
    });
    for (let at = 0; at < entries.length; at += 256) yield entries.slice(at, at + 256);
  }

  async close(): Promise<void> {
    if (this.#disk.open === this) this.#disk.open = undefined;
  }

  die(): void {
    this.#dead = true;
  }

  #check(): void {
    if (this.#dead) throw new StorageError('CLOSED', 'the process of this database is dead');
  }
}

function copyOf(value: Buffer | undefined): Buffer | undefined {
  return value === undefined ? undefined : Buffer.from(value);
}

function applyTo(state: State, ops: readonly KvOp[]): void {
  for (const { key, value } of ops) {
    const name = key.toString('latin1');
    if (value === undefined) state.delete(name);
    else state.set(name, Buffer.from(value));
  }
}
