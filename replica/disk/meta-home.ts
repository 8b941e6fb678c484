/**
 * The directory in which a daemon keeps the metadata of its disks: DIR/DISKID/{note.json, lock,
 * level/}.
 *
 * The note says which path the disk had, so that a blank or missing disk where a formatted one was
 * is refused and not formatted again (scenario 54). Every change is durable, with its directory,
 * before it resolves (R7).
 */
import { mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { StorageError } from '../../common/errors.js';
import { isName } from '../../common/names.js';
import { lockFile } from '../../native/index.js';

export interface DiskNote {
  readonly diskId: string;
  readonly path: string;
  /** formatting: the disk has never held a replica */
  readonly state: 'formatting' | 'ready';
  /** D3: a flush failed, so an unknown set of un-flushed writes is gone; not yet noted with the
   *  replicas that it concerns */
  readonly lostWrites?: boolean;
}

export interface MetaHome {
  notes(): Promise<DiskNote[]>;
  /** Makes or replaces the note and its directory. */
  put(note: DiskNote): Promise<void>;
  /** Removes all metadata of a disk; only after an interrupted formatting. */
  remove(diskId: string): Promise<void>;
  /** @throws StorageError DISK_LOCKED */
  lock(diskId: string): Promise<{ release(): void }>;
  kvDirectory(diskId: string): string;
  /** What is at the path of a disk; `empty`: a file of no length. */
  diskState(path: string): Promise<'missing' | 'empty' | 'present'>;
  /** Makes a sparse file. @throws StorageError IO_ERROR */
  makeDisk(path: string, sizeBytes: number): Promise<void>;
}

export class DirectoryMetaHome implements MetaHome {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  async notes(): Promise<DiskNote[]> {
    const notes: DiskNote[] = [];
    for (const diskId of await namesIn(this.#directory)) {
      if (!isName(diskId)) continue;
      const text = await readText(join(this.#directory, diskId, 'note.json'));
      const note = text === undefined ? undefined : parseNote(text, diskId);
      if (note !== undefined) notes.push(note);
      else if ((await namesIn(join(this.#directory, diskId))).includes('level')) {
        const where = join(this.#directory, diskId);
        throw new StorageError('CORRUPT_METADATA', `${where} has no readable note.json`);
      }
    }
    return notes;
  }

  async put(note: DiskNote): Promise<void> {
    const directory = join(this.#directory, note.diskId);
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const next = join(directory, 'note.json.tmp');
    const file = await open(next, 'w', 0o600);
    try {
      await file.writeFile(`${JSON.stringify(note)}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(next, join(directory, 'note.json'));
    await syncDirectory(directory);
    await syncDirectory(this.#directory);
    await syncDirectory(dirname(this.#directory));
  }

  async remove(diskId: string): Promise<void> {
    await rm(join(this.#directory, diskId), { recursive: true, force: true });
    await syncDirectory(this.#directory);
  }

  lock(diskId: string): Promise<{ release(): void }> {
    return lockFile(join(this.#directory, diskId, 'lock'));
  }

  kvDirectory(diskId: string): string {
    return join(this.#directory, diskId, 'level');
  }

  async diskState(path: string): Promise<'missing' | 'empty' | 'present'> {
    try {
      const found = await stat(path);
      return found.isFile() && found.size === 0 ? 'empty' : 'present';
    } catch (error) {
      if (isMissing(error)) return 'missing';
      throw new StorageError('IO_ERROR', `look at disk ${path}`, {}, { cause: error });
    }
  }

  async makeDisk(path: string, sizeBytes: number): Promise<void> {
    try {
      const file = await open(path, 'a', 0o600);
      try {
        await file.truncate(sizeBytes);
        await file.sync();
      } finally {
        await file.close();
      }
      await syncDirectory(dirname(path));
    } catch (error) {
      throw new StorageError('IO_ERROR', `make disk file ${path}`, {}, { cause: error });
    }
  }
}

/** Makes the entries of a directory durable. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

function parseNote(text: string, diskId: string): DiskNote | undefined {
  try {
    const note: unknown = JSON.parse(text);
    if (typeof note !== 'object' || note === null) return undefined;
    const { path, state, lostWrites } = note as Record<string, unknown>;
    if (typeof path !== 'string' || (state !== 'formatting' && state !== 'ready')) return undefined;
    if (lostWrites !== undefined && typeof lostWrites !== 'boolean') return undefined;
    return { diskId, path, state, ...(lostWrites === true ? { lostWrites } : {}) };
  } catch {
    return undefined;
  }
}

async function namesIn(path: string): Promise<string[]> {
  try {
    return await readdir(path);
  } catch (error) {
    if (isMissing(error)) return [];
    throw new StorageError('IO_ERROR', `read directory ${path}`, {}, { cause: error });
  }
}

async function readText(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw new StorageError('IO_ERROR', `read ${path}`, {}, { cause: error });
  }
}

function isMissing(error: unknown): boolean {
  if (!(error instanceof Error) || !('code' in error)) return false;
  return error.code === 'ENOENT' || error.code === 'ENOTDIR';
}
