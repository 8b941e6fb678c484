/**
 * The replica service: everything of a daemon between its disks and its listener. It needs neither
 * network nor files, so that a simulator can run it as it is.
 */
import assert from 'node:assert';
import type { BufferPool } from '../../common/block-device.js';
import type { Clock } from '../../common/clock.js';
import type { Logger } from '../../common/log.js';
import type { Registry } from '../../common/metrics.js';
import { Semaphore } from '../../common/semaphore.js';
import { MIB } from '../../common/units.js';
import type { MessageStream, MessageStreamHandlers } from '../../proto/message-stream.js';
import { ControlService } from './control-service.js';
import type { DaemonIdentity } from './daemon-identity.js';
import type { DiskSet } from './disk-set.js';
import type { DiskPlace } from './disk-slot.js';
import { ReplicaDirectory } from './replica-directory.js';
import { ReplicaSession } from './replica-session.js';
import type { EndOfTurn } from './reply-batcher.js';
import { ServiceMetrics } from './service-metrics.js';
import { StreamService, WINDOW_BYTES } from './stream-service.js';

export interface ReplicaServiceOptions {
  readonly identity: DaemonIdentity;
  /** opened; closed by who opened them, after `stop` */
  readonly disks: DiskSet;
  /** Has room for half as much again as is admitted, and for what the store reads for itself:
   *  POOL_BYTES_MIN at least. */
  readonly pool: BufferPool;
  /** gets the metrics of the service */
  readonly registry: Registry;
  readonly clock: Clock;
  readonly endOfTurn: EndOfTurn;
  readonly log: Logger;
}

// What requests hold is admitted first, so that an admitted request always finds its buffer: slots
// of the pool are up to half larger than asked.
const ADMISSION_BYTES = 32 * MIB;
export const POOL_BYTES_MIN = 64 * MIB;
assert(ADMISSION_BYTES * 1.5 < POOL_BYTES_MIN && WINDOW_BYTES <= ADMISSION_BYTES);
const STREAMS_MAX = 256;

export class ReplicaService {
  /** the control calls; requests were checked in form before */
  readonly control: ControlService;
  readonly #options: ReplicaServiceOptions;
  readonly #replicas = new ReplicaDirectory();
  readonly #streams: StreamService;
  readonly #startedMs: number;
  #stopping = false;

  /** Serves what is on the disks, and from now on what comes with disks that are opened later. */
  constructor(options: ReplicaServiceOptions) {
    const { disks, identity, clock, log } = options;
    const replicas = this.#replicas;
    this.#options = options;
    this.#startedMs = clock.nowMs();
    const startedMs = this.#startedMs;
    this.control = new ControlService({ identity, disks, replicas, clock, startedMs, log });
    this.#streams = this.#makeStreams();
    for (const place of disks.places()) this.#addReplicas(place);
    disks.retry((place) => this.#diskOpened(place));
  }

  /** For the listener: the handlers of a new data stream. */
  accept(stream: MessageStream): MessageStreamHandlers {
    return this.#streams.accept(stream);
  }

  /** Takes nothing new, answers what runs, makes everything durable, closes the replicas. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#streams.refuseNew();
    await this.control.stop();
    await Promise.all(this.#replicas.all().map((replica) => replica.stop()));
    await this.#streams.finish();
  }

  #makeStreams(): StreamService {
    const { disks, pool, registry, clock, endOfTurn, log } = this.#options;
    const replicas = this.#replicas;
    const metrics = new ServiceMetrics(registry, {
      disks: () => disks.samples(),
      dirtyRegions: () => disks.dirtyRegions(),
      replicas: () => replicas.size,
      streams: () => this.#streams.count,
      requestsInFlight: () => replicas.all().reduce((sum, r) => sum + r.running, 0),
    });
    return new StreamService({
      ...{ replicas, pool, metrics, clock, endOfTurn, log },
      memory: new Semaphore('replica memory', ADMISSION_BYTES, STREAMS_MAX),
      streamsMax: STREAMS_MAX,
    });
  }

  #addReplicas(place: DiskPlace): void {
    const { clock, log } = this.#options;
    const startedMs = this.#startedMs;
    for (const summary of place.disk.replicas()) {
      const { volume, replicaId } = summary;
      if (!this.#replicas.has(volume, replicaId)) {
        this.#replicas.add(new ReplicaSession({ place, summary, clock, startedMs, log }));
      } else if (this.#replicas.get(volume, replicaId).place !== place) {
        // A disk that was copied block by block: of two replicas with one identity only one can be
        // served (scenario 56).
        log.error({ volume, replica: replicaId }, 'replica found twice');
      }
    }
  }

  /** A disk that had failed or was refused serves: its replicas can be opened again (P7). */
  #diskOpened(place: DiskPlace): void {
    if (this.#stopping) return;
    const there = new Set(place.disk.replicas().map(({ volume }) => volume));
    for (const session of this.#replicas.all()) {
      if (session.place !== place) continue;
      const gone = !there.has(session.volume);
      // A deletion that the failure interrupted was finished when the disk was opened.
      session.diskOpened({ gone });
      if (gone) this.#replicas.remove(session);
    }
    this.#addReplicas(place);
  }
}
