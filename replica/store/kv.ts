/**
 * The ordered store of metadata, as little of it as the replica needs: LevelDB in production, memory in tests.
 *
 * Contract beyond the obvious:
 * - A batch is atomic. Batches are applied in the order of the calls; callers keep one batch in flight.
 * - A batch that resolved without `sync` survives the death of the process, not the loss of power.
 * - When a batch with `sync` resolves, it *and every earlier batch* are on stable storage.
 * - After a power cut the later unsynced batches may be gone. That they go in order is wished but not promised.
 */
export interface KvOp {
  readonly key: Buffer;
  /** undefined: delete */
  readonly value: Buffer | undefined;
}

export interface KvRange {
  /** first key, inclusive */
  readonly from: Buffer;
  /** end key, exclusive */
  readonly to: Buffer;
}

/** Keys and values are borrowed until the promise settles and not changed meanwhile. Errors: StorageError IO_ERROR |
 *  CORRUPT_METADATA | NO_SPACE. */
export interface Kv {
  get(key: Buffer): Promise<Buffer | undefined>;
  batch(ops: readonly KvOp[], options: { sync: boolean }): Promise<void>;
  /** Ascending, from one consistent state. */
  iterate(range: KvRange): AsyncIterable<readonly [key: Buffer, value: Buffer]>;
  close(): Promise<void>;
}

/** @param mustExist  false: make it new, and fail if something is there */
export type OpenKv = (directory: string, options: { mustExist: boolean }) => Promise<Kv>;
