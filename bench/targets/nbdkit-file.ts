/** nbdkit's file plugin: a simple single copy behind NBD, through the page cache. */
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { allocateFiles } from './raw.js';
import type { RunningTarget, Target, TargetContext } from './target.js';

export function nbdkitTarget(): Target {
  return {
    name: 'nbdkit-file',
    copies: 1,
    commands: ['nbdkit'],
    note:
      'nbdkit file, as it comes: buffered I/O. A write is acknowledged when it is in the page ' +
      'cache, reads come from there; only flush (fdatasync) reaches the disk. All others: direct',
    fioCopies: 1,
    measures: () => true,
    start: startNbdkit,
  };
}

async function startNbdkit(context: TargetContext): Promise<RunningTarget> {
  const { directory, sizeBytes, children } = context;
  const paths = await allocateFiles(directory, { count: 1, sizeBytes });
  const socket = join(directory, 'nbd.sock');
  const child = await children.start({
    name: 'nbdkit-file',
    command: 'nbdkit',
    args: ['--foreground', '--unix', socket, 'file', ...paths],
    ready: { socket },
  });
  return {
    endpoint: { kind: 'nbd', uri: `nbd+unix:///?socket=${socket}` },
    processes: [{ role: 'engine', pid: child.pid }],
    // Its writes linger in the page cache and would be written back under the next target's run.
    async settle(): Promise<void> {
      for (const path of paths) {
        const file = await open(path, 'r');
        await file.datasync();
        await file.close();
      }
    },
  };
}
