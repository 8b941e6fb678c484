/** Takes the data streams of the listener and leads each to its replica. */
import type { BufferPool } from '../../common/block-device.js';
import type { Clock } from '../../common/clock.js';
import { StorageError } from '../../common/errors.js';
import type { Logger } from '../../common/log.js';
import type { Semaphore } from '../../common/semaphore.js';
import { MIB } from '../../common/units.js';
import type { IoHello } from '../../proto/io-codec.js';
import type { MessageStream, MessageStreamHandlers } from '../../proto/message-stream.js';
import { type Attachment, DataSession } from './data-session.js';
import type { ReplicaDirectory } from './replica-directory.js';
import type { EndOfTurn } from './reply-batcher.js';
import type { ServiceMetrics } from './service-metrics.js';

/** Advertised to engines: an engine fills 16 MiB with clients' writes; what a catch-up copies and
 *  repairs of single blocks come on top. */
export const WINDOW_BYTES = 24 * MIB;
export const WINDOW_REQUESTS = 4096;

export interface StreamServiceOptions {
  readonly replicas: ReplicaDirectory;
  readonly memory: Semaphore;
  readonly pool: BufferPool;
  readonly metrics: ServiceMetrics;
  readonly clock: Clock;
  readonly endOfTurn: EndOfTurn;
  readonly log: Logger;
  /** open streams; one more is refused with OVERLOADED */
  readonly streamsMax: number;
  readonly windowBytes?: number;
  readonly windowRequests?: number;
}

export class StreamService {
  readonly #options: StreamServiceOptions;
  readonly #sessions = new Set<DataSession>();
  #refusing = false;

  constructor(options: StreamServiceOptions) {
    this.#options = options;
  }

  /** Streams that are open or still have requests in a store. */
  get count(): number {
    return this.#sessions.size;
  }

  /** For `listenTransport`: the handlers of a new stream. A stream too many is closed at once. */
  accept(stream: MessageStream): MessageStreamHandlers {
    const { memory, pool, metrics, clock, endOfTurn, log } = this.#options;
    const session = new DataSession({
      stream,
      attach: (attaching, hello) => this.#attach(attaching, hello),
      onEnd: (ended) => this.#end(ended),
      windowBytes: this.#options.windowBytes ?? WINDOW_BYTES,
      windowRequests: this.#options.windowRequests ?? WINDOW_REQUESTS,
      memory,
      pool,
      metrics,
      clock,
      endOfTurn,
      log,
    });
    const full = this.#sessions.size >= this.#options.streamsMax;
    this.#sessions.add(session);
    if (this.#refusing) session.fence(new StorageError('CLOSED', 'the replica daemon stops'));
    if (full) session.fence(new StorageError('OVERLOADED', 'too many data streams are open'));
    return session;
  }

  /** Every later stream gets CLOSED. */
  refuseNew(): void {
    this.#refusing = true;
  }

  /** Ends every stream in order, after what it runs is answered. */
  async finish(): Promise<void> {
    this.#refusing = true;
    await Promise.all([...this.#sessions].map((session) => session.finish()));
  }

  async #attach(session: DataSession, hello: IoHello): Promise<Attachment> {
    const { replicas } = this.#options;
    if (!replicas.has(hello.volume, hello.replicaId)) {
      // The address was right once, or never: what answers here is another daemon or another
      // replica (R8).
      throw new StorageError(
        'IDENTITY_MISMATCH',
        `replica ${hello.replicaId} of volume ${hello.volume} is not here`,
        { volume: hello.volume, replica: hello.replicaId },
      );
    }
    return replicas.get(hello.volume, hello.replicaId).attach(session, hello);
  }

  #end(session: DataSession): void {
    this.#sessions.delete(session);
    for (const replica of this.#options.replicas.all()) replica.detach(session);
  }
}
