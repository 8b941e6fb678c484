/** Whether this host lets us make a block device of a volume, and if not, why. */
import { constants } from 'node:fs';
import { access } from 'node:fs/promises';

/** @returns undefined when it can; else the reason, for people */
export async function noDeviceReason(): Promise<string | undefined> {
  if (process.geteuid?.() !== 0) return 'a block device needs root';
  for (const [file, what] of [
    ['/dev/fuse', 'FUSE'],
    ['/dev/loop-control', 'loop devices'],
  ] as const) {
    const usable = await access(file, constants.R_OK | constants.W_OK).then(
      () => true,
      () => false,
    );
    if (!usable) return `this host gives no access to ${file} (${what})`;
  }
  return undefined;
}
