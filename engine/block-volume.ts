/**
 * The seam between frontends and the data path: an attached volume as a frontend sees it.
 *
 * NBD, FUSE, ublk speak to this and nothing else of the engine. Rules N1-N5, D1, D2 hold for every
 * call.
 */

export interface ReadResult {
  /** The bytes in order; total length is the length asked for. Borrowed until `release`. */
  readonly chunks: readonly Buffer[];
  release(): void;
}

export interface StatusRun {
  readonly lengthBytes: number;
  /** true: reads back as zeroes and takes no space (NBD_STATE_HOLE | NBD_STATE_ZERO) */
  readonly hole: boolean;
}

export interface WriteOptions {
  /** D2: durable on every in-sync replica before the promise resolves */
  readonly fua: boolean;
}

/** Every offset and length is a safe integer in bytes, any alignment (edges are read, merged and
 *  widened inside). Errors of all calls: StorageError OUT_OF_RANGE (past the end; nothing was done)
 *  | READ_ONLY | NO_REPLICA | IO_ERROR | CORRUPT_BLOCK | NO_SPACE | IO_INDETERMINATE | DEADLINE |
 *  CLOSED. */
export interface BlockVolume {
  readonly name: string;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /** Admission for a request that carries or will return `lengthBytes`: resolves when it may be
   *  read from the socket or started. The units must be given back with `leave`. Bounds memory: 64
   *  MiB and 1024 requests by default. */
  enter(lengthBytes: number): Promise<void> | undefined;
  leave(lengthBytes: number): void;
  read(offsetBytes: number, lengthBytes: number): Promise<ReadResult>;
  /** @param payload pieces in order, total `lengthBytes`; borrowed until the promise settles */
  write(
    offsetBytes: number,
    lengthBytes: number,
    payload: readonly Buffer[],
    options: WriteOptions,
  ): Promise<void>;
  /** D1: covers every write whose promise resolved before this call, on any connection. */
  flush(): Promise<void>;
  /** Deterministic: reads back as zeroes (N4). */
  trim(offsetBytes: number, lengthBytes: number, options: WriteOptions): Promise<void>;
  writeZeroes(
    offsetBytes: number,
    lengthBytes: number,
    options: WriteOptions & { readonly noHole: boolean },
  ): Promise<void>;
  /** Runs from `offsetBytes`, at least one, merged, together at most `lengthBytes` and at most
   *  `runsMax` runs. */
  blockStatus(offsetBytes: number, lengthBytes: number, runsMax: number): Promise<StatusRun[]>;
  /** Calls back when the size has grown; returns the unsubscribe function. */
  onResize(listener: (sizeBytes: number) => void): () => void;
}
