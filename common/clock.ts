/** Time, injected: the simulator turns it by hand. The only place that may name setTimeout. */

export interface Timer {
  cancel(): void;
}

export interface Clock {
  /** Monotonic milliseconds with fraction; the origin means nothing. Never wall time (scenario
   *  75). */
  nowMs(): number;
  /** Calls back once, not before `delayMs`. A pending timer does not keep the process alive if
   *  `background`. */
  after(delayMs: number, callback: () => void, options?: { background?: boolean }): Timer;
  /** Wall time, for people only (logs, labels). No decision may use it. */
  wallMs(): number;
}

export class SystemClock implements Clock {
  nowMs(): number {
    return performance.now();
  }

  after(delayMs: number, callback: () => void, options: { background?: boolean } = {}): Timer {
    const handle = setTimeout(callback, delayMs);
    if (options.background === true) handle.unref();
    return { cancel: () => clearTimeout(handle) };
  }

  wallMs(): number {
    return Date.now();
  }
}

/** Resolves after `delayMs`; rejects at once with `signal.reason` when aborted. */
export function sleep(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason);
      return;
    }
    const timer = clock.after(delayMs, () => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    });
    const onAbort = (): void => {
      timer.cancel();
      reject(signal?.reason);
    };
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}
