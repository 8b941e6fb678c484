/**
 * The ordered store of metadata, as little of it as the replica needs: LevelDB in production,
 * memory in tests.
 *
 * Contract beyond the obvious:
 * - A batch is atomic. Callers keep one batch in flight, so batches are applied in the order of the
 *   calls.
 * - A batch that resolved without `sync` survives the death of the process, not the loss of power.
 * - When a batch with `sync` resolves, it *and every earlier batch* are on stable storage.
 * - After a power cut any of the unsynced batches may be gone.
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

export type KvEntry = readonly [key: Buffer, value: Buffer];

/** Keys and values are borrowed until the promise settles and not changed meanwhile. Errors:
 *  StorageError IO_ERROR | CORRUPT_METADATA | NO_SPACE. */
export interface Kv {
  get(key: Buffer): Promise<Buffer | undefined>;
  batch(ops: readonly KvOp[], options: { sync: boolean }): Promise<void>;
  /** Ascending, from one consistent state, in groups of a few hundred. */
  iterate(range: KvRange): AsyncIterable<readonly KvEntry[]>;
  /** Waits for what is in flight. Idempotent. */
  close(): Promise<void>;
}

/** Opens what is at `directory`; with `create` it makes it new, and fails if something is there.
 *  @throws StorageError DISK_MISMATCH (nothing is there) | CORRUPT_METADATA | DISK_LOCKED |
 *    ALREADY_EXISTS | IO_ERROR */
export type OpenKv = (directory: string, options: { create: boolean }) => Promise<Kv>;
