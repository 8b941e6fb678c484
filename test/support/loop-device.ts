/** Real loop devices over sparse files, for tests that want a block device as a replica's disk. */
import { readFile, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { run } from './process.js';

export class LoopDevice {
  private constructor(readonly path: string) {}

  static async create(file: string, sizeBytes: number): Promise<LoopDevice> {
    await writeFile(file, '');
    await truncate(file, sizeBytes);
    const { stdout } = await run('losetup', ['--direct-io=on', '--show', '-f', file]);
    return new LoopDevice(stdout.trim());
  }

  /** Flush requests that the device has completed since it was made (Documentation/block/stat). */
  async flushes(): Promise<number> {
    const stat = await readFile(`/sys/block/${path.basename(this.path)}/stat`, 'utf8');
    return Number(stat.trim().split(/\s+/)[15]);
  }

  async detach(): Promise<void> {
    await run('losetup', ['-d', this.path]);
  }
}
