/**
 * The metadata store over LevelDB.
 *
 * LevelDB starts a new log file when its memory table is full and closes the old one without a
 * sync. A synced batch in the new log would then be durable before older batches in the old one. So
 * after a synced batch every older log that may still hold such batches is synced too, by name; one
 * that is gone has been compacted into synced tables.
 */
import { open, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Level } from 'level';
import { StorageError } from '../../common/errors.js';
import type { Kv, KvEntry, KvOp, KvRange } from './kv.js';
import { checkTables } from './level-tables.js';

/** Memory table; two may be held in memory at once. */
const WRITE_BUFFER_BYTES = 4 * 1024 * 1024;
/** The extent cache does the caching; this one serves iteration. */
const BLOCK_CACHE_BYTES = 2 * 1024 * 1024;
const OPEN_FILES_MAX = 256;
const ENTRIES_PER_STEP = 256;
/** What LevelDB adds to each entry in its memory table, at most. */
const ENTRY_OVERHEAD_BYTES = 256;

export interface LevelKvOptions {
  readonly writeBufferBytes?: number;
  /** fsync of one file by path, for tests */
  readonly syncFile?: (path: string) => Promise<void>;
}

/** @see OpenKv */
export async function openLevelKv(
  directory: string,
  options: { create: boolean } & LevelKvOptions,
): Promise<Kv> {
  if (!options.create) {
    await checkFiles(directory);
    await checkTables(directory);
  }
  const writeBufferSize = options.writeBufferBytes ?? WRITE_BUFFER_BYTES;
  const level = new Level<Buffer, Buffer>(directory, {
    keyEncoding: 'buffer',
    valueEncoding: 'buffer',
    createIfMissing: options.create,
    errorIfExists: options.create,
    compression: false,
    writeBufferSize,
    cacheSize: BLOCK_CACHE_BYTES,
    maxOpenFiles: OPEN_FILES_MAX,
  });
  try {
    await level.open();
  } catch (error) {
    throw levelError(error, `open metadata ${directory}`, options.create);
  }
  return new LevelKv(level, directory, writeBufferSize, options.syncFile ?? syncFile);
}

class LevelKv implements Kv {
  readonly #level: Level<Buffer, Buffer>;
  readonly #directory: string;
  readonly #writeBufferBytes: number;
  readonly #syncFile: (path: string) => Promise<void>;
  /** upper bound of what the memory table took since the logs were looked at */
  #bytesSinceLook = 0;
  #closing: Promise<void> | undefined;

  constructor(
    level: Level<Buffer, Buffer>,
    directory: string,
    writeBufferBytes: number,
    sync: (path: string) => Promise<void>,
  ) {
    this.#level = level;
    this.#directory = directory;
    this.#writeBufferBytes = writeBufferBytes;
    this.#syncFile = sync;
  }

  async get(key: Buffer): Promise<Buffer | undefined> {
    try {
      return await this.#level.get(key);
    } catch (error) {
      throw levelError(error, 'read metadata', false);
    }
  }

  async batch(ops: readonly KvOp[], options: { sync: boolean }): Promise<void> {
    const operations = ops.map(({ key, value }) => {
      this.#bytesSinceLook += key.length + (value?.length ?? 0) + ENTRY_OVERHEAD_BYTES;
      return value === undefined
        ? { type: 'del' as const, key }
        : { type: 'put' as const, key, value };
    });
    try {
      await this.#level.batch(operations, { sync: options.sync });
    } catch (error) {
      throw levelError(error, 'write metadata', false);
    }
    // A new log cannot have been started before half a memory table was written.
    if (options.sync && this.#bytesSinceLook * 2 >= this.#writeBufferBytes) await this.#syncLogs();
  }

  async *iterate(range: KvRange): AsyncIterable<readonly KvEntry[]> {
    const iterator = this.#level.iterator({ gte: range.from, lt: range.to, fillCache: false });
    try {
      for (;;) {
        const entries = await iterator.nextv(ENTRIES_PER_STEP);
        if (entries.length === 0) return;
        yield entries;
      }
    } catch (error) {
      throw levelError(error, 'scan metadata', false);
    } finally {
      await iterator.close();
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#level.close();
    return this.#closing;
  }

  async #syncLogs(): Promise<void> {
    const logs = (await readdir(this.#directory)).filter((name) => /^[0-9]+\.log$/.test(name));
    logs.sort((a, b) => Number.parseInt(a, 10) - Number.parseInt(b, 10));
    for (const name of logs.slice(0, -1)) {
      try {
        await this.#syncFile(join(this.#directory, name));
      } catch (error) {
        if (errnoOf(error) !== 'ENOENT') {
          throw new StorageError('IO_ERROR', `sync metadata log ${name}`, {}, { cause: error });
        }
      }
    }
    this.#bytesSinceLook = 0;
  }
}

/** LevelDB makes a good database out of a damaged directory too easily; what must be there is
 *  looked for first. */
async function checkFiles(directory: string): Promise<void> {
  let names: string[];
  try {
    names = await readdir(directory);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') {
      throw new StorageError('IO_ERROR', `read directory ${directory}`, {}, { cause: error });
    }
    names = [];
  }
  if (names.length === 0) {
    throw new StorageError('DISK_MISMATCH', `metadata ${directory} is missing`);
  }
  const need: ReadonlyArray<readonly [string, RegExp]> = [
    ['CURRENT', /^CURRENT$/],
    ['MANIFEST', /^MANIFEST-[0-9]+$/],
    ['log', /^[0-9]+\.log$/],
  ];
  for (const [what, pattern] of need) {
    if (names.some((name) => pattern.test(name))) continue;
    throw new StorageError('CORRUPT_METADATA', `metadata ${directory} has no ${what} file`);
  }
}

async function syncFile(path: string): Promise<void> {
  const file = await open(path, 'r');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

function levelError(error: unknown, doing: string, creating: boolean): StorageError {
  const inner = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const text = inner instanceof Error ? inner.message : String(inner);
  switch (errnoOf(inner)) {
    case 'LEVEL_LOCKED':
      return new StorageError('DISK_LOCKED', `${doing}: in use`, {}, { cause: error });
    case 'LEVEL_CORRUPTION':
      return new StorageError('CORRUPT_METADATA', `${doing}: ${text}`, {}, { cause: error });
    default:
      return new StorageError(
        creating ? 'ALREADY_EXISTS' : 'IO_ERROR',
        `${doing}: ${text}`,
        {},
        {
          cause: error,
        },
      );
  }
}
