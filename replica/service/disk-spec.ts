/** The text form of a disk on the command line: `PATH` or `PATH,size=10GiB`. */
import { resolve } from 'node:path';
import { StorageError } from '../../common/errors.js';
import { parseSize } from '../../common/units.js';

export interface DiskSpec {
  /** absolute */
  readonly path: string;
  /** size of the file to make if it is missing; undefined: the path must exist */
  readonly sizeBytes: number | undefined;
}

/** @throws StorageError INVALID_ARGUMENT naming the text and the accepted forms */
export function parseDiskSpec(text: string): DiskSpec {
  const [path, ...options] = text.split(',');
  let sizeBytes: number | undefined;
  for (const option of options) {
    const match = /^size=(.+)$/.exec(option);
    if (match?.[1] === undefined || sizeBytes !== undefined) throw notADisk(text);
    sizeBytes = parseSize(match[1]);
  }
  if (path === undefined || path === '' || path.includes('\0')) throw notADisk(text);
  return { path: resolve(path), sizeBytes };
}

function notADisk(text: string): StorageError {
  const shown = JSON.stringify(text.slice(0, 120));
  return new StorageError('INVALID_ARGUMENT', `disk ${shown} is not PATH[,size=SIZE]`, {
    hint: 'for example /dev/nvme1n1, or /var/lib/aurochs/disk.img,size=10GiB',
  });
}
