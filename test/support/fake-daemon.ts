/**
 * A replica daemon in memory, for engines under test: one replica of volume `v`, its control calls
 * and its data stream, with the rules of a real one (epochs, incarnations, membership, in-flight
 * windows, P4, P7, P10).
 */
import { StorageError } from '../../common/errors.js';
import { crc32cBlocks } from '../../native/index.js';
import type {
  CreateReplicaRequest,
  IdentifyReply,
  Membership,
  OpenReplicaReply,
  OpenReplicaRequest,
  ReplicaControl,
  ReplicaInfo,
} from '../../proto/control.js';
import { IO_OP, type IoHello } from '../../proto/io-codec.js';
import type { MessageStream, MessageStreamHandlers } from '../../proto/message-stream.js';
import { FakeReplica, type SeenRequest } from './fake-replica.js';

/** Calls without their connection. */
export type DaemonCalls = {
  readonly [K in keyof Omit<ReplicaControl, 'close'>]: ReplicaControl[K];
};

interface Held {
  readonly replica: FakeReplica;
  epoch: number;
  engineId: string;
  previousEngineId: string;
  membership: Membership;
  lossy: boolean;
  restartedDirty: boolean;
  failed: boolean;
  loads: number;
}

interface Tenure {
  readonly epoch: number;
  readonly engineId: string;
}

const CHANGES: ReadonlySet<number> = new Set<number>([
  ...[IO_OP.WRITE, IO_OP.TRIM, IO_OP.WRITE_ZEROES, IO_OP.REPLACE],
]);

export class FakeDaemon {
  up = true;
  /** since anything was sent or received on a data stream, as OpenReplica tells it */
  silentMs = 0;
  #starts = 1;
  #boots = 1;
  #held: Held | undefined;
  #opened: Tenure | undefined;
  /** changes of the opened epoch, and ranges of older ones */
  #current: SeenRequest[] = [];
  #inherited: Array<{ offsetBytes: number; lengthBytes: number }> = [];

  constructor(
    readonly name: string,
    readonly sizeBytes: number,
  ) {}

  /** The replica on this daemon. */
  get replica(): FakeReplica {
    return this.#here.replica;
  }

  get membership(): Membership {
    return this.#here.membership;
  }

  get epoch(): number {
    return this.#here.epoch;
  }

  get #here(): Held {
    if (this.#held === undefined) throw new Error(`daemon ${this.name} has no replica`);
    return this.#held;
  }

  /** kill -9: memory is gone, the kernel and the disk live. */
  kill(): void {
    this.up = false;
    this.#opened = undefined;
    this.#current = [];
    this.#inherited = [];
    this.#held?.replica.cut();
  }

  /** The host loses power. @param keeps  which blocks that were not flushed are there all the
   *  same */
  losePower(keeps: (offsetBytes: number) => boolean = () => false): void {
    this.kill();
    this.#boots += 1;
    if (this.#held === undefined) return;
    this.#held.lossy = this.#held.replica.copy.dirtyRegions().length > 0;
    this.#held.replica.copy.losePower(keeps);
  }

  /** Comes up again after `kill` or `losePower`. */
  start(): void {
    this.up = true;
    this.#starts += 1;
    if (this.#held !== undefined) this.#restarted(this.#held);
  }

  /** P8: a flush or a metadata write failed. Nobody is served until it is opened again. */
  fail(): void {
    this.#here.failed = true;
    this.#opened = undefined;
    this.#here.replica.cut(new StorageError('REPLICA_FAILED', 'the replica has failed'));
  }

  /** An image of the disk. @returns puts it back, while the daemon does not run */
  save(): () => void {
    const held = this.#here;
    const { epoch, engineId, previousEngineId, membership } = held;
    const restoreCopy = held.replica.copy.save();
    return () => {
      this.kill();
      restoreCopy();
      Object.assign(held, { epoch, engineId, previousEngineId, membership });
      this.start();
    };
  }

  #restarted(held: Held): void {
    held.restartedDirty = held.replica.copy.dirtyRegions().length > 0;
    held.replica.copy.restart();
    held.replica.incarnation = this.#incarnation(held);
  }

  #incarnation(held: Held): string {
    return `${this.name}.${this.#starts}.${held.loads}`;
  }

  connectIo(handlers: MessageStreamHandlers): MessageStream {
    return this.#here.replica.connect(handlers);
  }

  #admit(hello: IoHello): StorageError | undefined {
    const { epoch } = this.#here;
    if (hello.volume !== 'v' || hello.replicaId !== this.#here.replica.replicaId) {
      return new StorageError('IDENTITY_MISMATCH', `this is ${this.#here.replica.replicaId}`);
    }
    const { epoch: own, engineId } = this.#opened ?? { epoch: 0, engineId: '' };
    if (own === hello.epoch && engineId === hello.engineId) return undefined;
    const text = own === 0 ? 'not open' : `open with ${own}`;
    return new StorageError('STALE_EPOCH', `stream with ${hello.epoch}: ${text}`, { epoch });
  }

  #onRequest(request: SeenRequest): void {
    if (CHANGES.has(request.op)) this.#current.push(request);
  }

  readonly calls: DaemonCalls = {
    identify: async ({ volume }) => this.#identify(volume),
    createReplica: async (request) => this.#create(request),
    openReplica: async (request) => this.#open(request),
    setMembership: async ({ membership }) => {
      this.#checkEpoch(membership.epoch);
      const before = this.#here.membership;
      if (before.epoch === membership.epoch && before.generation > membership.generation) {
        throw new StorageError('CONFLICT', `generation ${before.generation} is stored`);
      }
      this.#here.membership = membership;
      this.#inherited = [];
      return {};
    },
    deleteReplica: async () => {
      this.#held = undefined;
      return {};
    },
    listRegions: async ({ epoch, firstRegion, count }) => {
      this.#checkEpoch(epoch);
      return { regions: this.#here.replica.copy.regions(firstRegion, count) };
    },
    listExtents: async ({ epoch, region }) => {
      this.#checkEpoch(epoch);
      return { extents: this.#here.replica.copy.extents(region) };
    },
    cleanRegion: async ({ epoch, region, tag, extentTags }) => {
      this.#checkEpoch(epoch);
      this.#here.replica.copy.cleanAs(region, tag, extentTags);
      return {};
    },
    noteComplete: async ({ epoch, incarnation }) => {
      this.#checkEpoch(epoch);
      if (incarnation !== this.#here.replica.incarnation) {
        throw new StorageError('STALE_EPOCH', 'another incarnation', { epoch });
      }
      this.#here.lossy = false;
      return {};
    },
  };

  #checkEpoch(epoch: number): void {
    const floor = this.#here.epoch;
    if (this.#opened?.epoch === epoch) return;
    throw new StorageError('STALE_EPOCH', `call with ${epoch}, ${floor} known`, { epoch: floor });
  }

  #identify(volume: string): IdentifyReply {
    const wanted = volume === '' || volume === 'v';
    return {
      ...{ daemonId: this.name, incarnation: `${this.name}.${this.#starts}`, clusterId: '' },
      bootId: `${this.#boots}`,
      disks: [],
      replicas: this.#held === undefined || !wanted ? [] : [this.#info(this.#held)],
    };
  }

  #info(held: Held): ReplicaInfo {
    const { replica, epoch, membership, lossy, restartedDirty, failed } = held;
    return {
      ...{ volume: 'v', replicaId: replica.replicaId, diskId: this.name, epoch, membership },
      ...{ sizeBytes: this.sizeBytes, lossy, restartedDirty, failed },
      allocatedBytes: replica.copy.allocatedBytes,
      dirtyRegions: replica.copy.dirtyRegions().length,
      failedReason: failed ? 'a flush failed' : '',
      incarnation: replica.incarnation,
    };
  }

  #create({ replicaId, membership }: CreateReplicaRequest): ReplicaInfo {
    if (this.#held !== undefined && this.#held.replica.replicaId !== replicaId) {
      throw new StorageError('CONFLICT', `replica ${this.#held.replica.replicaId} is here`);
    }
    this.#held ??= this.#make(replicaId, membership);
    return this.#info(this.#held);
  }

  #make(replicaId: string, membership: Membership): Held {
    const replica = new FakeReplica(replicaId, this.sizeBytes, crc32cBlocks);
    replica.admit = (hello) => this.#admit(hello);
    replica.onRequest = (request) => this.#onRequest(request);
    const held: Held = {
      ...{ replica, epoch: 0, engineId: '', previousEngineId: '', membership },
      ...{ lossy: false, restartedDirty: false, failed: false, loads: 1 },
    };
    replica.incarnation = this.#incarnation(held);
    return held;
  }

  /** P4: older streams are fenced before the answer; a replica that has failed is loaded anew. */
  #open({ replicaId, epoch, engineId }: OpenReplicaRequest): OpenReplicaReply {
    const held = this.#here;
    if (held.replica.replicaId !== replicaId) {
      throw new StorageError('IDENTITY_MISMATCH', `this is ${held.replica.replicaId}`);
    }
    const taken = epoch === held.epoch && held.engineId !== '' && held.engineId !== engineId;
    if (epoch < held.epoch || taken) {
      const text = `epoch ${held.epoch} is held by ${held.engineId}`;
      throw new StorageError('STALE_EPOCH', text, { epoch: held.epoch });
    }
    if (held.failed) {
      held.failed = false;
      held.loads += 1;
      this.#restarted(held);
    }
    if (epoch > held.epoch) this.#beginEpoch(held, epoch, engineId);
    this.#opened = { epoch, engineId };
    return this.#openReply(held);
  }

  #beginEpoch(held: Held, epoch: number, engineId: string): void {
    held.replica.cut(new StorageError('STALE_EPOCH', `opened with epoch ${epoch}`, { epoch }));
    held.previousEngineId = held.engineId;
    held.epoch = epoch;
    held.engineId = engineId;
    this.#inherited = this.#window();
    this.#current = [];
    held.replica.ackedThrough = 0;
  }

  #window(): Array<{ offsetBytes: number; lengthBytes: number }> {
    const { ackedThrough } = this.#here.replica;
    const open = this.#current.filter((request) => request.id > ackedThrough);
    return [...this.#inherited, ...open].map(({ offsetBytes, lengthBytes }) => {
      return { offsetBytes, lengthBytes };
    });
  }

  #openReply(held: Held): OpenReplicaReply {
    return {
      info: this.#info(held),
      incarnation: held.replica.incarnation,
      ...{ lossy: held.lossy, restartedDirty: held.restartedDirty },
      dirtyRegions: held.replica.copy.dirtyRegions(),
      window: this.#window(),
      silentMs: this.silentMs,
      previousEngineId: held.previousEngineId,
    };
  }
}
