/** The control calls of a replica daemon (ReplicaControl in proto/replica.proto). Requests were
 *  checked in form before. */
import assert from 'node:assert';
import type { Clock } from '../../common/clock.js';
import { StorageError } from '../../common/errors.js';
import type { Logger } from '../../common/log.js';
import { Semaphore } from '../../common/semaphore.js';
import { BLOCK_SIZE, VOLUME_SIZE_MAX } from '../../common/units.js';
import type {
  CleanRegionReply,
  CleanRegionRequest,
  CreateReplicaRequest,
  DeleteReplicaReply,
  DeleteReplicaRequest,
  IdentifyReply,
  IdentifyRequest,
  ListExtentsReply,
  ListExtentsRequest,
  ListRegionsReply,
  ListRegionsRequest,
  NoteCompleteReply,
  NoteCompleteRequest,
  OpenReplicaReply,
  OpenReplicaRequest,
  ReplicaControlHandlers,
  ReplicaInfo,
  SetMembershipReply,
  SetMembershipRequest,
} from '../../proto/control.js';
import type { ReplicaSummary } from '../disk/disk.js';
import type { ReplicaStore } from '../replica-store.js';
import type { DaemonIdentity } from './daemon-identity.js';
import type { DiskSet } from './disk-set.js';
import type { ReplicaDirectory } from './replica-directory.js';
import { ReplicaSession, replicaInfo } from './replica-session.js';

export interface ControlServiceOptions {
  readonly identity: DaemonIdentity;
  readonly disks: DiskSet;
  readonly replicas: ReplicaDirectory;
  readonly clock: Clock;
  /** when the daemon started, on `clock` */
  readonly startedMs: number;
  readonly log: Logger;
}

/** Creations and deletions that may wait. */
const CHANGES_WAITING_MAX = 64;

export class ControlService implements ReplicaControlHandlers {
  readonly #options: ControlServiceOptions;
  /** one creation or deletion at a time: two of the same volume must see each other */
  readonly #turn = new Semaphore('replica creation', 1, CHANGES_WAITING_MAX);
  #stopping = false;

  constructor(options: ControlServiceOptions) {
    this.#options = options;
  }

  /** Refuses every later change with CLOSED, and resolves when running creations and deletions have
   *  ended. */
  async stop(): Promise<void> {
    if (this.#stopping) return;
    this.#stopping = true;
    await this.#turn.acquire(1);
    this.#turn.break(closedError());
  }

  async identify(request: IdentifyRequest): Promise<IdentifyReply> {
    const { identity, disks } = this.#options;
    return {
      daemonId: identity.daemonId,
      incarnation: identity.incarnation,
      bootId: identity.bootId,
      clusterId: identity.clusterId,
      disks: disks.info(),
      replicas: disks
        .places()
        .flatMap(({ disk }) =>
          disk.replicas().map((summary) => replicaInfo(disk.id, this.#asClaimed(summary))),
        )
        .filter((info) => request.volume === '' || info.volume === request.volume),
    };
  }

  /** An engine draws its epoch above what it is told here: one that a failing disk did not take is
   *  told, too, for it is refused from now on. */
  #asClaimed(summary: ReplicaSummary): ReplicaSummary {
    const { replicas } = this.#options;
    const { volume, replicaId, epoch } = summary;
    if (!replicas.has(volume, replicaId)) return summary;
    const { claimedEpoch } = replicas.get(volume, replicaId);
    return { ...summary, epoch: Math.max(epoch, claimedEpoch) };
  }

  /** Idempotent for the same replica and size; the disk is the one with the most free space.
   *  @throws StorageError CONFLICT | INVALID_ARGUMENT | LIMIT_EXCEEDED | UNAVAILABLE (no disk
   *    serves) | IO_ERROR */
  async createReplica(request: CreateReplicaRequest): Promise<ReplicaInfo> {
    checkSize(request.sizeBytes);
    return this.#inTurn(async () => {
      const { disks, replicas, clock, startedMs, log } = this.#options;
      const { volume, replicaId, sizeBytes } = request;
      const existing = replicas.ofVolume(volume)[0];
      if (existing !== undefined && !isSame(existing, request)) {
        throw new StorageError(
          'CONFLICT',
          `volume ${volume} has replica ${existing.replicaId} of ${existing.sizeBytes} bytes here`,
          { volume, replica: replicaId },
        );
      }
      const place = existing?.place ?? disks.mostFree();
      const { disk } = place;
      if (existing === undefined) await disk.createReplica(request);
      const summary = disk.replicas().find((replica) => replica.volume === volume);
      assert(summary !== undefined, `disk ${disk.id} lost replica ${replicaId} it just made`);
      if (existing === undefined) {
        replicas.add(new ReplicaSession({ place, summary, clock, startedMs, log }));
        log.info({ volume, replica: replicaId, sizeBytes, disk: disk.id }, 'replica created');
      }
      return replicaInfo(disk.id, summary);
    });
  }

  async openReplica(request: OpenReplicaRequest): Promise<OpenReplicaReply> {
    this.#checkRunning();
    return this.#options.replicas.get(request.volume, request.replicaId).open(request);
  }

  async setMembership(request: SetMembershipRequest): Promise<SetMembershipReply> {
    this.#checkRunning();
    const session = this.#options.replicas.get(request.volume, request.replicaId);
    await session.setMembership(request.membership);
    return {};
  }

  /** @throws StorageError NOT_FOUND | IDENTITY_MISMATCH | STALE_EPOCH | CONFLICT (in use) |
   *    IO_ERROR */
  deleteReplica(request: DeleteReplicaRequest): Promise<DeleteReplicaReply> {
    return this.#inTurn(async () => {
      const { replicas } = this.#options;
      const session = replicas.get(request.volume, request.replicaId);
      await session.delete(request.epoch);
      replicas.remove(session);
      return {};
    });
  }

  async listRegions(request: ListRegionsRequest): Promise<ListRegionsReply> {
    const { firstRegion, count } = request;
    return { regions: await this.#call(request, (store) => store.regions(firstRegion, count)) };
  }

  async listExtents(request: ListExtentsRequest): Promise<ListExtentsReply> {
    return { extents: await this.#call(request, (store) => store.extents(request.region)) };
  }

  async cleanRegion(request: CleanRegionRequest): Promise<CleanRegionReply> {
    const { region, tag, extentTags } = request;
    await this.#call(request, (store) => store.cleanAs(region, tag, extentTags));
    return {};
  }

  async noteComplete(request: NoteCompleteRequest): Promise<NoteCompleteReply> {
    this.#checkRunning();
    const { volume, replicaId, epoch, incarnation } = request;
    await this.#options.replicas.get(volume, replicaId).noteComplete(epoch, incarnation);
    return {};
  }

  async #call<T>(
    subject: { readonly volume: string; readonly replicaId: string; readonly epoch: number },
    work: (store: ReplicaStore) => T | Promise<T>,
  ): Promise<T> {
    this.#checkRunning();
    const { volume, replicaId, epoch } = subject;
    return this.#options.replicas.get(volume, replicaId).call(epoch, work);
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    this.#checkRunning();
    await this.#turn.acquire(1);
    try {
      return await work();
    } finally {
      this.#turn.release(1);
    }
  }

  #checkRunning(): void {
    if (this.#stopping) throw closedError();
  }
}

function isSame(session: ReplicaSession, request: CreateReplicaRequest): boolean {
  return session.replicaId === request.replicaId && session.sizeBytes === request.sizeBytes;
}

/** @throws StorageError INVALID_ARGUMENT | LIMIT_EXCEEDED */
function checkSize(sizeBytes: number): void {
  if (sizeBytes <= 0 || sizeBytes % BLOCK_SIZE !== 0) {
    throw new StorageError(
      'INVALID_ARGUMENT',
      `volume size ${sizeBytes} is not a positive multiple of ${BLOCK_SIZE}`,
    );
  }
  if (sizeBytes > VOLUME_SIZE_MAX) {
    throw new StorageError(
      'LIMIT_EXCEEDED',
      `volume size ${sizeBytes} is above the limit of ${VOLUME_SIZE_MAX}`,
    );
  }
}

function closedError(): StorageError {
  return new StorageError('CLOSED', 'the replica daemon stops');
}
