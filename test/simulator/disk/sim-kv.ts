/**
 * Metadata stores of simulated hosts, with the promises of Kv and no more: a batch is atomic; what
 * was not synced survives a kill, and a power cut takes any end of it.
 */
import { StorageError } from '../../../common/errors.js';
import type { DiskNote, MetaHome } from '../../../replica/disk/meta-home.js';
import type { Kv, KvEntry, KvOp, KvRange, OpenKv } from '../../../replica/store/kv.js';
import type { Random } from '../kernel/random.js';
import type { Scheduler } from '../kernel/scheduler.js';
import type { SimProcess } from '../kernel/sim-process.js';
import { DiskFaults } from './disk-faults.js';

type State = Map<string, Buffer>;
type Batch = ReadonlyArray<readonly [key: string, value: Buffer | undefined]>;

export interface KvTimes {
  readonly batchMs: number;
  readonly syncMs: number;
  readonly getMs: number;
}

/** One database of a host. */
export class SimKvDisk {
  readonly current: State = new Map();
  readonly #durable: State = new Map();
  /** since the last sync, oldest first */
  #unsynced: Batch[] = [];
  /** begun and not answered */
  #begun: Batch | undefined;
  openedBy: SimProcess | undefined;

  constructor(readonly random: Random) {}

  begin(batch: Batch): void {
    this.#begun = batch;
  }

  finish(batch: Batch, sync: boolean): void {
    this.#begun = undefined;
    apply(this.current, batch);
    this.#unsynced.push(batch);
    if (!sync) return;
    for (const synced of this.#unsynced) apply(this.#durable, synced);
    this.#unsynced = [];
  }

  /** The batch under way failed: nobody knows whether it is there. */
  finishFailed(batch: Batch): void {
    this.#begun = undefined;
    if (this.random.chance(0.5)) this.finish(batch, false);
  }

  /** The process died: the batch under way is there, or not. */
  kill(): void {
    this.openedBy = undefined;
    if (this.#begun !== undefined && this.random.chance(0.5)) this.finish(this.#begun, false);
    this.#begun = undefined;
  }

  powerCut(): void {
    this.kill();
    const kept = this.random.int(this.#unsynced.length + 1);
    for (const batch of this.#unsynced.slice(0, kept)) apply(this.#durable, batch);
    this.#unsynced = [];
    this.current.clear();
    for (const [key, value] of this.#durable) this.current.set(key, value);
  }
}

/** The data directory of a host: databases, notes, locks. All of it lasts; locks go with their
 *  process. */
export class SimKvHome {
  readonly faults: DiskFaults;
  readonly databases = new Map<string, SimKvDisk>();
  /** D3: nobody knows what became of what was to be synced */
  onSyncFailed: () => void = () => undefined;
  readonly #random: Random;
  readonly #notes = new Map<string, DiskNote>();
  readonly #locks = new Map<string, SimProcess>();

  constructor(
    readonly scheduler: Scheduler,
    readonly times: KvTimes,
    random: Random,
  ) {
    this.#random = random.fork('metadata');
    this.faults = new DiskFaults(this.#random);
  }

  /** Everything is gone; nobody has it open. */
  blank(): void {
    this.databases.clear();
    this.#notes.clear();
    this.#locks.clear();
  }

  powerCut(): void {
    for (const database of this.databases.values()) database.powerCut();
  }

  openKv(process: SimProcess): OpenKv {
    return async (directory, { create }) => {
      let database = this.databases.get(directory);
      if (create) {
        if (database !== undefined) throw new StorageError('ALREADY_EXISTS', directory);
        database = new SimKvDisk(this.#random.fork(directory));
        this.databases.set(directory, database);
      }
      if (database === undefined) throw new StorageError('DISK_MISMATCH', `${directory}: missing`);
      if (database.openedBy !== undefined) throw new StorageError('DISK_LOCKED', directory);
      return new SimKv(this, database, process);
    };
  }

  /** The files as a process sees them. */
  files(process: SimProcess): MetaHome {
    return {
      notes: async () => [...this.#notes.values()],
      put: async (note) => {
        this.#notes.set(note.diskId, note);
      },
      remove: async (diskId) => {
        this.#notes.delete(diskId);
        this.databases.delete(directoryOf(diskId));
      },
      lock: async (diskId) => this.#lock(diskId, process),
      kvDirectory: directoryOf,
      diskState: async () => 'present',
      makeDisk: async () => undefined,
    };
  }

  #lock(diskId: string, process: SimProcess): { release(): void } {
    if (this.#locks.get(diskId)?.alive) throw new StorageError('DISK_LOCKED', diskId);
    this.#locks.set(diskId, process);
    return { release: () => this.#locks.delete(diskId) };
  }
}

const directoryOf = (diskId: string): string => `/meta/${diskId}/level`;

class SimKv implements Kv {
  readonly #home: SimKvHome;
  readonly #database: SimKvDisk;
  readonly #process: SimProcess;
  #closed = false;

  constructor(home: SimKvHome, database: SimKvDisk, process: SimProcess) {
    this.#home = home;
    this.#database = database;
    this.#process = process;
    database.openedBy = process;
    process.onDeath((how) => {
      if (how !== 'power' && database.openedBy === process) database.kill();
    });
  }

  async get(key: Buffer): Promise<Buffer | undefined> {
    this.#check();
    const name = key.toString('latin1');
    await this.#wait('read', this.#home.times.getMs, () => undefined);
    const value = this.#database.current.get(name);
    return value === undefined ? undefined : Buffer.from(value);
  }

  async batch(ops: readonly KvOp[], options: { sync: boolean }): Promise<void> {
    this.#check();
    const batch = ops.map(({ key, value }): Batch[number] => [
      key.toString('latin1'),
      value === undefined ? undefined : Buffer.from(value),
    ]);
    const { batchMs, syncMs } = this.#home.times;
    this.#database.begin(batch);
    const usualMs = options.sync ? syncMs : batchMs;
    const database = this.#database;
    try {
      await this.#wait(options.sync ? 'flush' : 'write', usualMs, () => {
        database.finish(batch, options.sync);
      });
    } catch (error) {
      database.finishFailed(batch);
      if (options.sync) this.#home.onSyncFailed();
      throw error;
    }
  }

  async *iterate(range: KvRange): AsyncIterable<readonly KvEntry[]> {
    this.#check();
    const [from, to] = [range.from.toString('latin1'), range.to.toString('latin1')];
    const { current } = this.#database;
    const keys = [...current.keys()].filter((key) => key >= from && key < to).sort();
    const entries = keys.map((key): KvEntry => {
      return [Buffer.from(key, 'latin1'), Buffer.from(current.get(key) ?? Buffer.alloc(0))];
    });
    for (let at = 0; at < entries.length; at += 256) yield entries.slice(at, at + 256);
  }

  async close(): Promise<void> {
    this.#closed = true;
    if (this.#database.openedBy === this.#process) this.#database.openedBy = undefined;
  }

  /** `act` and the answer are one turn of the process. */
  #wait(op: 'read' | 'write' | 'flush', usualMs: number, act: () => void): Promise<void> {
    const { faults, scheduler } = this.#home;
    const effect = faults.effectOn(op);
    const latency = faults.latencyMs(scheduler.nowMs, op, usualMs);
    return new Promise((resolve, reject) => {
      this.#process.post(scheduler.nowMs + latency, () => {
        if (effect?.kind !== 'error') {
          act();
          resolve();
          return;
        }
        const code = effect.errno === 'ENOSPC' ? 'NO_SPACE' : 'IO_ERROR';
        reject(new StorageError(code, `metadata: ${effect.errno}`, { errno: effect.errno }));
      });
    });
  }

  #check(): void {
    if (this.#closed) throw new StorageError('CLOSED', 'the database is closed');
  }
}

function apply(state: State, batch: Batch): void {
  for (const [key, value] of batch) {
    if (value === undefined) state.delete(key);
    else state.set(key, value);
  }
}
