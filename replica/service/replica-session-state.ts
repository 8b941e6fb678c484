/**
 * Who may write to one replica: the decisions, without I/O (rules P4, R5, R8).
 *
 * Invariants:
 * - The floor only grows. It is the highest epoch that was ever claimed here, persisted or about to
 *   be: from the moment a higher epoch claims the replica, everything older is refused, even while
 *   persisting still runs or fails.
 * - `opened` is the one tenure whose streams and records are accepted. It is set only after its
 *   epoch and engine are durable, and it is empty after a start of the daemon: a member that
 *   restarted serves nobody until it is opened again (P7).
 * - One epoch belongs to one engine. Two engines that drew the same epoch are told apart by engine
 *   id; the first wins.
 */
import assert from 'node:assert';
import { StorageError } from '../../common/errors.js';

/** One engine's hold on the volume. */
export interface Tenure {
  readonly epoch: number;
  readonly engineId: string;
}

/** What the first message of a data stream claims. */
export interface HelloClaim extends Tenure {
  readonly protocolVersion: number;
  readonly volume: string;
  readonly replicaId: string;
}

export interface RecordVersion {
  readonly epoch: number;
  readonly generation: number;
}

export const PROTOCOL_VERSION = 1;

/** Engine ids are opaque, printable and short. */
const ENGINE_ID = /^[\x21-\x7e]{1,128}$/;

export class ReplicaSessionState {
  readonly #subject: { readonly volume: string; readonly replica: string };
  #floor: number;
  /** engine that the floor belongs to; undefined: a replica created in that epoch and not opened
   *  yet */
  #floorEngine: string | undefined;
  #opened: Tenure | undefined;

  /** @param persisted what the replica's record says: highest epoch, and its engine ('': created,
   *    never opened) */
  constructor(
    readonly volume: string,
    readonly replicaId: string,
    persisted: Tenure,
  ) {
    this.#subject = { volume, replica: replicaId };
    this.#floor = persisted.epoch;
    this.#floorEngine = persisted.engineId === '' ? undefined : persisted.engineId;
  }

  get floor(): number {
    return this.#floor;
  }

  get opened(): Tenure | undefined {
    return this.#opened;
  }

  /** Decides on OpenReplica and, when it is a new tenure, fences every older one at once (P4:
   *  before persisting). `reopen`: the same engine asks again, nothing is persisted. `claim`:
   *  persist, drain, then call `persisted`.
   *  @throws StorageError STALE_EPOCH | INVALID_ARGUMENT */
  claim(tenure: Tenure): 'reopen' | 'claim' {
    checkTenure(tenure);
    if (tenure.epoch < this.#floor) throw this.#stale(`open with epoch ${tenure.epoch}`);
    const holder = tenure.epoch === this.#floor ? this.#floorEngine : undefined;
    if (holder !== undefined && holder !== tenure.engineId) {
      throw new StorageError(
        'STALE_EPOCH',
        `epoch ${tenure.epoch} of ${this.#name} is held by engine ${holder}`,
        { ...this.#subject, epoch: this.#floor, hint: 'start the engine with a higher epoch' },
      );
    }
    if (this.#opened?.epoch === tenure.epoch) return 'reopen';
    this.#floor = tenure.epoch;
    this.#floorEngine = tenure.engineId;
    this.#opened = undefined;
    return 'claim';
  }

  /** The claim is durable and the streams of older tenures have drained: its streams are accepted
   *  from now on. */
  persisted(tenure: Tenure): void {
    assert(tenure.epoch === this.#floor, 'claims of one replica are persisted one after another');
    assert(tenure.engineId === this.#floorEngine);
    this.#opened = tenure;
  }

  /** Nothing is accepted until the next OpenReplica (replica failed, deleted, or daemon
   *  stopping). */
  shut(): void {
    this.#opened = undefined;
  }

  /** Accepts the hello of a data stream or says why not.
   *  @throws StorageError VERSION_UNSUPPORTED | IDENTITY_MISMATCH (R8) | STALE_EPOCH */
  admitHello(hello: HelloClaim): void {
    if (hello.protocolVersion !== PROTOCOL_VERSION) {
      throw new StorageError(
        'VERSION_UNSUPPORTED',
        `data protocol ${hello.protocolVersion}, this daemon speaks ${PROTOCOL_VERSION}`,
        this.#subject,
      );
    }
    if (hello.volume !== this.volume || hello.replicaId !== this.replicaId) {
      throw new StorageError('IDENTITY_MISMATCH', `this is ${this.#name}`, this.#subject);
    }
    const opened = this.#opened;
    if (opened === undefined) {
      if (hello.epoch < this.#floor) throw this.#stale(`stream with epoch ${hello.epoch}`);
      throw new StorageError('STALE_EPOCH', `${this.#name} is not open`, {
        ...this.#subject,
        epoch: this.#floor,
        hint: 'OpenReplica first; it may have restarted since it was opened (P7)',
      });
    }
    if (hello.epoch !== opened.epoch || hello.engineId !== opened.engineId) {
      throw this.#stale(`stream with epoch ${hello.epoch}`);
    }
  }

  /** Decides on a control call of the opened tenure. @throws StorageError STALE_EPOCH (R5) */
  admitCall(epoch: number): void {
    if (this.#opened?.epoch !== epoch) throw this.#stale(`call with epoch ${epoch}`);
  }

  /** Decides on a membership record sent by an engine. `same`: already stored, nothing to do.
   *  @param equalContent whether `next` names the same members as `stored`
   *  @throws StorageError STALE_EPOCH (not of the opened tenure) | CONFLICT (older, or another
   *    record of the same version) */
  admitRecord(
    stored: RecordVersion | undefined,
    next: RecordVersion,
    equalContent: boolean,
  ): 'store' | 'same' {
    if (this.#opened === undefined || next.epoch !== this.#opened.epoch) {
      throw this.#stale(`membership record of epoch ${next.epoch}`);
    }
    if (stored === undefined || stored.epoch < next.epoch) return 'store';
    const same = stored.epoch === next.epoch && stored.generation === next.generation;
    if (same && equalContent) return 'same';
    if (stored.epoch === next.epoch && stored.generation < next.generation) return 'store';
    throw new StorageError(
      'CONFLICT',
      `membership ${versionText(next)} of ${this.#name}: ${versionText(stored)} is stored`,
      this.#subject,
    );
  }

  /** Decides on DeleteReplica: never under a stream in use, never by a tenure that is over.
   *  @throws StorageError STALE_EPOCH | CONFLICT */
  admitDelete(epoch: number, streamLive: boolean): void {
    if (epoch < this.#floor) throw this.#stale(`delete with epoch ${epoch}`);
    if (streamLive && epoch === this.#floor) {
      throw new StorageError('CONFLICT', `${this.#name} is in use by an engine`, {
        ...this.#subject,
        hint: 'stop the engine first, or delete with a higher epoch, which fences it',
      });
    }
  }

  get #name(): string {
    return `replica ${this.replicaId} of volume ${this.volume}`;
  }

  #stale(what: string): StorageError {
    const opened = this.#opened === undefined ? 'not open' : `open with ${this.#opened.epoch}`;
    return new StorageError(
      'STALE_EPOCH',
      `${what} refused by ${this.#name}: epoch ${this.#floor}, ${opened}`,
      { ...this.#subject, epoch: this.#floor },
    );
  }
}

/** @throws StorageError INVALID_ARGUMENT */
function checkTenure(tenure: Tenure): void {
  if (!Number.isSafeInteger(tenure.epoch) || tenure.epoch < 1) {
    throw new StorageError('INVALID_ARGUMENT', `epoch ${tenure.epoch} is not a positive integer`);
  }
  if (!ENGINE_ID.test(tenure.engineId)) {
    throw new StorageError('INVALID_ARGUMENT', 'engine id must be 1 to 128 printable characters');
  }
}

function versionText(version: RecordVersion): string {
  return `{epoch ${version.epoch}, generation ${version.generation}}`;
}
