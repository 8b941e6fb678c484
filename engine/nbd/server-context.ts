/** What all connections of one server share. */
import type { Clock } from '../../common/clock.js';
import { toStorageError } from '../../common/errors.js';
import type { Logger } from '../../common/log.js';
import { Semaphore } from '../../common/semaphore.js';
import type { ExportBook } from './export-book.js';
import type { NbdLimits } from './limits.js';
import { RequestPool } from './pending-request.js';
import { QuietLog } from './quiet-log.js';
import { OutBufferPool } from './reply-queue.js';
import type { RequestHeader } from './request.js';

const REQUESTS_KEPT = 1024;
const OUT_BUFFERS_KEPT = 64;
/** Warnings per ten seconds: peers and faults must not fill the log (correctness 3.3). */
const LINES_PER_WINDOW = 20;

export class ServerContext {
  readonly requests = new RequestPool(REQUESTS_KEPT);
  readonly outBuffers = new OutBufferPool(OUT_BUFFERS_KEPT);
  /** Bytes of large payloads that are on their way in: a peer that sends a header and no body holds
   *  this, and not the admission of the volume that others need. */
  readonly payloadBudget: Semaphore;
  /** The clock as of the last sweep or accept: good to a second, free to read. */
  nowMs: number;
  readonly #log: QuietLog;

  constructor(
    readonly book: ExportBook,
    readonly limits: NbdLimits,
    readonly tools: { readonly clock: Clock; readonly log: Logger },
  ) {
    const { incompletePayloadBytesMax, connectionsMax } = limits;
    this.payloadBudget = new Semaphore('NBD payload', incompletePayloadBytesMax, connectionsMax);
    this.nowMs = tools.clock.nowMs();
    this.#log = new QuietLog(tools.log, LINES_PER_WINDOW);
  }

  /** A request that the volume failed. */
  noteFailure(error: unknown, name: string, request: RequestHeader): void {
    const { code, message } = toStorageError(error, 'NBD request');
    const { type, offsetBytes, lengthBytes } = request;
    this.#log.warn({ export: name, code, message, type, offsetBytes, lengthBytes }, 'failed');
  }

  /** A connection that was closed for what its peer did or failed to do. */
  noteDrop(peer: string, reason: string): void {
    this.#log.warn({ peer, reason }, 'connection dropped');
  }

  /** Once per sweep. */
  tick(): void {
    this.nowMs = this.tools.clock.nowMs();
    this.#log.tick(this.nowMs);
  }
}
