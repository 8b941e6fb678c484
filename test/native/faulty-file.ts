/** A file with faults: see fuse-fixture.mjs. Needs root and /dev/fuse. */
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { fuseUnmount } from '../../native/index.js';

/** Words of the shared control block; the fixture has the same list. */
const WORD = {
  read: 0,
  write: 2,
  fsync: 4,
  short: 6,
  reads: 7,
  writes: 8,
  fsyncs: 9,
  skip: 10,
  length: 11,
};

/** The compiled module: worker threads and child processes run without vitest. */
export const COMPILED_NATIVE = fileURLToPath(
  new URL('../../dist/native/index.js', import.meta.url),
);

export class FaultyFile {
  private constructor(
    readonly path: string,
    readonly dir: string,
    readonly worker: Worker,
    readonly control: Int32Array,
  ) {}

  static async create(sizeBytes: number): Promise<FaultyFile> {
    const dir = await mkdtemp(path.join(tmpdir(), 'aurochs-faulty-'));
    const file = path.join(dir, 'disk');
    await writeFile(file, '');
    const control = new Int32Array(new SharedArrayBuffer(WORD.length * 4));
    const worker = new Worker(new URL('./fuse-fixture.mjs', import.meta.url), {
      workerData: { path: file, sizeBytes, native: COMPILED_NATIVE, control },
    });
    const [message] = await once(worker, 'message');
    if (message !== 'mounted') throw new Error(`fixture says ${message}`);
    return new FaultyFile(file, dir, worker, control);
  }

  /** Of the requests of the kind `skip` pass, then `count` fail. */
  fail(kind: 'read' | 'write' | 'fsync', errno: number, count = 1, skip = 0): void {
    Atomics.store(this.control, WORD.skip, skip);
    Atomics.store(this.control, WORD[kind], errno);
    Atomics.store(this.control, WORD[kind] + 1, count);
  }

  /** Transfers move at most so many bytes each. */
  shorten(lengthBytes: number): void {
    Atomics.store(this.control, WORD.short, lengthBytes);
  }

  seen(kind: 'reads' | 'writes' | 'fsyncs'): number {
    return Atomics.load(this.control, WORD[kind]);
  }

  /** Unmounts. @returns what the channel's pending read was rejected with */
  async destroy(): Promise<string> {
    const told = once(this.worker, 'message');
    fuseUnmount(this.path, { lazy: true });
    try {
      const [code] = await told;
      return code;
    } finally {
      await this.worker.terminate();
      await rm(this.dir, { recursive: true });
    }
  }
}
