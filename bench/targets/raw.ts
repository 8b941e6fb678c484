/** The disk itself: fio on files with io_uring and direct I/O. The bound of everything else. */
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import type { RunningTarget, Target, TargetContext } from './target.js';

/** @param copies 3 writes three files side by side; the rate is then a third of fio's */
export function rawTarget(copies: 1 | 3): Target {
  return {
    name: copies === 1 ? 'raw' : 'raw-x3',
    copies,
    commands: ['fio'],
    note:
      copies === 1
        ? 'fio io_uring, O_DIRECT, one file; flush is fdatasync'
        : 'as raw, but three files at once, one job each; IOPS are a third of the sum. Writes only',
    fioCopies: copies,
    measures: (benchCase) => copies === 1 || benchCase.direction === 'write',
    async start({ directory, sizeBytes }: TargetContext): Promise<RunningTarget> {
      const paths = await allocateFiles(directory, { count: copies, sizeBytes });
      return { endpoint: { kind: 'files', paths }, processes: [] };
    },
  };
}

/** Files of that size in `directory`, named copy1 …; filled later by the preconditioning. */
export async function allocateFiles(
  directory: string,
  options: { count: number; sizeBytes: number },
): Promise<string[]> {
  const paths: string[] = [];
  for (let index = 1; index <= options.count; index += 1) {
    const path = join(directory, `copy${index}`);
    const file = await open(path, 'wx');
    await file.truncate(options.sizeBytes);
    await file.close();
    paths.push(path);
  }
  return paths;
}
