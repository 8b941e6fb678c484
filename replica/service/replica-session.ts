/**
 * One replica as the daemon serves it: its store, who holds it, the stream that writes to it.
 *
 * Opening, membership, deletion run one after another (a queue of bounded length); streams come and
 * go beside them. Invariants:
 * - At most one stream is attached. A later hello of the same tenure replaces it, and is answered
 *   only after the replaced stream has nothing left in the store, so that requests of two streams
 *   never overlap here.
 * - When `open` of a higher epoch answers, nothing of an older one is queued or running (P4).
 */
import assert from 'node:assert';
import type { Clock } from '../../common/clock.js';
import { StorageError } from '../../common/errors.js';
import type { Logger } from '../../common/log.js';
import { Semaphore } from '../../common/semaphore.js';
import type {
  Membership,
  OpenReplicaReply,
  OpenReplicaRequest,
  ReplicaInfo,
} from '../../proto/control.js';
import type { IoHello } from '../../proto/io-codec.js';
import type { ReplicaHandle, ReplicaSummary } from '../disk/disk.js';
import type { ReplicaStore } from '../replica-store.js';
import type { Attachment, DataSession } from './data-session.js';
import type { DiskPlace } from './disk-slot.js';
import { InFlightWindow } from './in-flight-window.js';
import { ReplicaSessionState } from './replica-session-state.js';

export interface ReplicaSessionOptions {
  readonly place: DiskPlace;
  /** as the disk knew it when the daemon started, or when it was created */
  readonly summary: ReplicaSummary;
  readonly clock: Clock;
  /** when the daemon started, on `clock` */
  readonly startedMs: number;
  readonly log: Logger;
}

/** Control calls that may wait for one replica. */
const CALLS_WAITING_MAX = 16;

export class ReplicaSession {
  readonly volume: string;
  readonly replicaId: string;
  readonly sizeBytes: number;
  readonly place: DiskPlace;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #state: ReplicaSessionState;
  readonly #window: InFlightWindow;
  readonly #turn: Semaphore;
  /** loaded at the first OpenReplica: what nobody uses costs no memory */
  #handle: ReplicaHandle | undefined;
  /** the one that may start requests */
  #attached: DataSession | undefined;
  /** with something left in the store, or attached */
  readonly #streams = new Set<DataSession>();
  /** epoch whose streams were let in last; ids in the window are of this one */
  #streamsEpoch: number;
  /** when a stream of that epoch was last active, as far as it is detached */
  #activeMs: number;
  /** when a stream of an older one was, or the daemon started */
  #olderActiveMs: number;
  #gone: StorageError | undefined;

  constructor(options: ReplicaSessionOptions) {
    const { summary } = options;
    this.volume = summary.volume;
    this.replicaId = summary.replicaId;
    this.sizeBytes = summary.sizeBytes;
    this.place = options.place;
    this.#clock = options.clock;
    this.#streamsEpoch = summary.epoch;
    this.#activeMs = options.startedMs;
    this.#olderActiveMs = options.startedMs;
    this.#log = options.log.child({ volume: summary.volume, replica: summary.replicaId });
    this.#state = new ReplicaSessionState(summary.volume, summary.replicaId, {
      epoch: summary.epoch,
      engineId: summary.engineId,
    });
    this.#window = new InFlightWindow({ volumeSizeBytes: summary.sizeBytes });
    this.#turn = new Semaphore(`replica ${summary.replicaId}`, 1, CALLS_WAITING_MAX);
  }

  /** Requests in the store. */
  get running(): number {
    let running = 0;
    for (const stream of this.#streams) running += stream.running;
    return running;
  }

  /** P4: every epoch below it is refused, also if it could not be made durable. */
  get claimedEpoch(): number {
    return this.#state.floor;
  }

  /** P4, R5: when it resolves the epoch is durable and nothing of an older tenure is queued or
   *  running. A replica that had failed is loaded again from its disk (P8).
   *  @throws StorageError STALE_EPOCH | INVALID_ARGUMENT | OVERLOADED | IO_ERROR (not open; older
   *    epochs stay refused) */
  open(request: OpenReplicaRequest): Promise<OpenReplicaReply> {
    const tenure = { epoch: request.epoch, engineId: request.engineId };
    return this.#inTurn(async () => {
      const epochBefore = this.#state.floor;
      const failed = this.#handle?.store.failedReason;
      const step = this.#state.claim(tenure);
      if (step === 'reopen' && this.#handle !== undefined && failed === undefined) {
        return this.#openReply(this.#handle);
      }
      this.#state.shut();
      const text = `volume ${this.volume} was opened with epoch ${tenure.epoch}`;
      await this.#fence(new StorageError('STALE_EPOCH', text));
      const handle = await this.#load(failed !== undefined);
      await handle.setEpoch(tenure.epoch, tenure.engineId);
      if (handle !== this.#handle) throw this.#diskChanged();
      if (tenure.epoch > this.#streamsEpoch) this.#beginEpoch(tenure.epoch);
      this.#state.persisted(tenure);
      this.#log.info({ ...tenure, epochBefore, failedBefore: failed }, 'replica opened');
      return this.#openReply(handle);
    });
  }

  /** Makes `session` the stream of this replica. Resolves when the one before it has drained.
   *  @throws StorageError IDENTITY_MISMATCH | STALE_EPOCH | VERSION_UNSUPPORTED | REPLICA_FAILED |
   *    ABORTED (replaced itself meanwhile) */
  async attach(session: DataSession, hello: IoHello): Promise<Attachment> {
    this.#state.admitHello(hello);
    const replaced = this.#attached;
    this.#attached = session;
    this.#streams.add(session);
    replaced?.fence(new StorageError('ABORTED', 'replaced by a newer stream of the same engine'));
    await this.#drainedExcept(session);
    if (session.closed || this.#attached !== session) {
      throw new StorageError('ABORTED', 'the stream was replaced while it waited');
    }
    // The tenure may have ended during the wait.
    this.#state.admitHello(hello);
    const handle = this.#handle;
    assert(handle !== undefined, 'an opened replica is loaded');
    const { store, incarnation } = handle;
    return { store, incarnation, window: this.#window, epoch: hello.epoch };
  }

  /** The stream is closed and has nothing left in the store. */
  detach(session: DataSession): void {
    if (this.#streams.delete(session)) {
      this.#activeMs = Math.max(this.#activeMs, session.lastActiveMs);
    }
    if (this.#attached === session) this.#attached = undefined;
  }

  /** Durable when it resolves. The first record of the opened tenure's own epoch declares that its
   *  engine has made the ranges of older epochs equal on all members: they are forgotten (see
   *  InFlightWindow).
   *  @throws StorageError STALE_EPOCH | CONFLICT | REPLICA_FAILED | IO_ERROR */
  setMembership(next: Membership): Promise<void> {
    return this.#inTurn(async () => {
      const stored = this.#handle?.membership;
      const equal = stored !== undefined && sameContent(stored, next);
      const step = this.#state.admitRecord(stored, next, equal);
      if (step === 'store') {
        assert(this.#handle !== undefined, 'an opened replica is loaded');
        await this.#handle.setMembership(next);
        const { epoch, generation } = next;
        this.#log.info({ epoch, generation, members: next.members }, 'membership stored');
      }
      // A fence cannot have come between: it waits for its turn.
      this.#window.forgetInherited();
    });
  }

  /** Runs a call of the opened tenure on the store. A higher epoch is not opened meanwhile (P4).
   *  @throws StorageError STALE_EPOCH (R5) | what `work` throws */
  call<T>(epoch: number, work: (store: ReplicaStore) => T | Promise<T>): Promise<T> {
    return this.#inTurn(async () => {
      this.#state.admitCall(epoch);
      assert(this.#handle !== undefined, 'an opened replica is loaded');
      return await work(this.#handle.store);
    });
  }

  /** P10: the replica of this incarnation holds every acknowledged write. Durable when it resolves.
   *  @throws StorageError STALE_EPOCH | REPLICA_FAILED | IO_ERROR */
  noteComplete(epoch: number, incarnation: string): Promise<void> {
    return this.#inTurn(async () => {
      this.#state.admitCall(epoch);
      const handle = this.#handle;
      assert(handle !== undefined, 'an opened replica is loaded');
      if (handle.incarnation !== incarnation) {
        const text = `incarnation ${incarnation} of replica ${this.replicaId} is over`;
        throw new StorageError('STALE_EPOCH', text, { replica: this.replicaId, epoch });
      }
      await handle.noteComplete();
    });
  }

  /** The replica and its bytes are gone when it resolves. @throws StorageError STALE_EPOCH |
   *  CONFLICT (in use) | IO_ERROR */
  delete(epoch: number): Promise<void> {
    return this.#inTurn(async () => {
      this.#state.admitDelete(epoch, this.#attached !== undefined);
      this.#state.shut();
      const gone = new StorageError('NOT_FOUND', `volume ${this.volume} is deleted here`);
      await this.#fence(gone);
      await this.#handle?.close();
      this.#handle = undefined;
      await this.place.disk.deleteReplica(this.volume);
      this.#gone = gone;
      this.#log.info({ epoch }, 'replica deleted');
    });
  }

  /** The disk of this replica failed and was opened again: what was loaded from it is over, and
   *  nobody is served until the replica is opened (P7).
   *  @param found.gone  the replica is no longer on it */
  diskOpened(found: { readonly gone: boolean }): void {
    this.#state.shut();
    this.#handle = undefined;
    this.#attached = undefined;
    if (found.gone) this.#gone = new StorageError('NOT_FOUND', `${this.volume} is not on its disk`);
    const text = `the disk of volume ${this.volume} failed and was opened again`;
    for (const stream of [...this.#streams]) stream.fence(new StorageError('REPLICA_FAILED', text));
  }

  /** The daemon stops: running requests are answered, everything is made durable, the replica is
   *  closed. */
  async stop(): Promise<void> {
    this.#state.shut();
    await Promise.all([...this.#streams].map((stream) => stream.finish()));
    await this.#inTurn(async () => {
      this.#gone = new StorageError('CLOSED', 'the replica daemon stops');
      await this.#handle?.close();
      this.#handle = undefined;
    }).catch((error: unknown) => {
      this.#log.debug({ error: String(error) }, 'replica was gone before the stop');
    });
  }

  async #load(failed: boolean): Promise<ReplicaHandle> {
    if (this.#handle !== undefined) {
      if (failed) await this.#handle.reopen();
      return this.#handle;
    }
    const { disk } = this.place;
    const handle = await disk.openReplica(this.volume);
    if (disk !== this.place.disk) throw this.#diskChanged();
    this.#handle = handle;
    return handle;
  }

  #diskChanged(): StorageError {
    const text = `the disk of volume ${this.volume} failed meanwhile`;
    return new StorageError('UNAVAILABLE', text, { volume: this.volume });
  }

  #openReply(handle: ReplicaHandle): OpenReplicaReply {
    const { store, lossy, restartedDirty, incarnation, record } = handle;
    const dirtyRegions = store.dirtyRegions();
    return {
      info: replicaInfo(this.place.disk.id, {
        ...record,
        ...{ incarnation, restartedDirty },
        allocatedBytes: store.allocatedBytes,
        dirtyRegions: dirtyRegions.length,
        failedReason: store.failedReason,
      }),
      ...{ incarnation, lossy, restartedDirty, dirtyRegions },
      window: this.#window.ranges(),
      silentMs: Math.max(0, this.#clock.nowMs() - this.#olderActiveMs),
      previousEngineId: record.previousEngineId,
    };
  }

  /** Streams of older epochs have drained; those of this one are not yet let in. */
  #beginEpoch(epoch: number): void {
    this.#window.beginEpoch();
    this.#streamsEpoch = epoch;
    this.#olderActiveMs = this.#activeMs;
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    await this.#turn.acquire(1);
    try {
      if (this.#gone !== undefined) throw this.#gone;
      return await work();
    } finally {
      this.#turn.release(1);
    }
  }

  async #fence(error: StorageError): Promise<void> {
    this.#attached = undefined;
    const streams = [...this.#streams];
    for (const stream of streams) stream.fence(error);
    await Promise.all(streams.map((stream) => stream.drained()));
  }

  async #drainedExcept(session: DataSession): Promise<void> {
    const others = [...this.#streams].filter((stream) => stream !== session);
    await Promise.all(others.map((stream) => stream.drained()));
  }
}

/** What the control calls say of a replica. */
export function replicaInfo(diskId: string, summary: ReplicaSummary): ReplicaInfo {
  return {
    volume: summary.volume,
    replicaId: summary.replicaId,
    diskId,
    sizeBytes: summary.sizeBytes,
    epoch: summary.epoch,
    membership: summary.membership,
    allocatedBytes: summary.allocatedBytes,
    dirtyRegions: summary.dirtyRegions,
    failed: summary.failedReason !== undefined,
    failedReason: summary.failedReason ?? '',
    lossy: summary.lossy,
    restartedDirty: summary.restartedDirty,
    incarnation: summary.incarnation,
  };
}

/** Addresses are hints and do not count. */
function sameContent(a: Membership, b: Membership): boolean {
  return (
    a.engineId === b.engineId &&
    a.era === b.era &&
    a.members.length === b.members.length &&
    a.members.every((member, i) => {
      const other = b.members[i];
      return other?.replicaId === member.replicaId && other.state === member.state;
    })
  );
}
