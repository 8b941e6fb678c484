/** Group commit of device flushes: at most one in flight and one queued, shared by every replica on
 *  the disk. */
import type { BlockDevice } from '../../common/block-device.js';
import { toStorageError } from '../../common/errors.js';
import type { StoreCounters } from '../store/store-counters.js';

export class FlushGroup {
  readonly #device: BlockDevice;
  readonly #counters: StoreCounters;
  readonly #onFailure: (error: Error) => void;
  #running: Promise<void> | undefined;
  #queued: Promise<void> | undefined;
  #failure: Error | undefined;

  /** @param onFailure called once, before any caller hears of it */
  constructor(device: BlockDevice, counters: StoreCounters, onFailure: (error: Error) => void) {
    this.#device = device;
    this.#counters = counters;
    this.#onFailure = onFailure;
  }

  /** D1: covers every device operation that resolved before this call. A flush that already runs
   *  does not; the caller shares the next one. After one failure the device is never asked again
   *  (D3): nothing it says would mean anything.
   *  @throws StorageError of the device */
  flush(): Promise<void> {
    if (this.#queued !== undefined) return this.#queued;
    const running = this.#running;
    if (running === undefined) return this.#start();
    this.#queued = running
      .catch(() => undefined)
      .then(() => {
        this.#queued = undefined;
        return this.#start();
      });
    return this.#queued;
  }

  #start(): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    this.#counters.deviceFlushes += 1;
    const run = this.#device.flush().then(
      () => {
        this.#running = undefined;
      },
      (error: unknown) => {
        this.#running = undefined;
        const failure = toStorageError(error, 'device flush');
        if (this.#failure === undefined) {
          this.#failure = failure;
          this.#onFailure(failure);
        }
        throw failure;
      },
    );
    this.#running = run;
    return run;
  }
}
