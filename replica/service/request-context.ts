/** What the requests of one data stream share. */
import type { BufferPool } from '../../common/block-device.js';
import type { Clock } from '../../common/clock.js';
import type { StorageError } from '../../common/errors.js';
import type { ReplicaStore } from '../replica-store.js';
import type { InFlightWindow } from './in-flight-window.js';
import type { ReplyBatcher } from './reply-batcher.js';
import type { RunningRequest } from './running-request.js';
import type { ServiceMetrics } from './service-metrics.js';

export interface RequestContext {
  readonly store: ReplicaStore;
  readonly window: InFlightWindow;
  /** of the stream's tenure: part of every tag it gives (P2) */
  readonly epoch: number;
  readonly replies: ReplyBatcher;
  readonly metrics: ServiceMetrics;
  readonly pool: BufferPool;
  readonly clock: Clock;
  /** most that one read may ask for */
  readonly readBytesMax: number;
  /** The request no longer touches the store: it leaves the window, and fencing need not wait for
   *  it. */
  finished(request: RunningRequest): void;
  /** The request's memory is free: takes back admission units and the object. */
  recycle(request: RunningRequest, units: number): void;
  onError(request: RunningRequest, error: StorageError): void;
}
