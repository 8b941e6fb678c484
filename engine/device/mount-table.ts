/** What is mounted, as this process sees it, and unmounting. Source: proc(5), mountinfo. */
import { readFile } from 'node:fs/promises';
import { runTool } from './host-tool.js';

export interface MountEntry {
  readonly mountPoint: string;
  /** `major:minor` of the device, 0:n for file systems without one */
  readonly deviceNumber: string;
  readonly type: string;
  readonly source: string;
}

export async function readMounts(): Promise<MountEntry[]> {
  return parseMountInfo(await readFile('/proc/self/mountinfo', 'utf8'));
}

/** Lines that are not understood are skipped. */
export function parseMountInfo(text: string): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of text.split('\n')) {
    const fields = line.split(' ');
    const separator = fields.indexOf('-');
    const [, , deviceNumber, , mountPoint] = fields;
    const [type, source] = fields.slice(separator + 1);
    if (separator < 6 || deviceNumber === undefined || mountPoint === undefined) continue;
    entries.push({
      mountPoint: unescapeOctal(mountPoint),
      deviceNumber,
      type: type ?? '',
      source: unescapeOctal(source ?? ''),
    });
  }
  return entries;
}

/** Where a block device is mounted in this mount namespace; undefined if nowhere. */
export function mountPointOf(
  mounts: readonly MountEntry[],
  device: { readonly path: string; readonly number: string },
): string | undefined {
  // btrfs and others show no device number of a block device: there the source tells.
  return mounts.find((m) => m.deviceNumber === device.number || m.source === device.path)
    ?.mountPoint;
}

/** Unmounts what is mounted exactly at `dir`, several layers too. Works for a FUSE file system
 *  whose process is dead.
 *  @throws StorageError IO_ERROR when it is in use and `lazy` is not set */
export async function unmountAll(dir: string, options: { lazy: boolean }): Promise<void> {
  for (let layers = 0; layers < 16; layers += 1) {
    const mounts = await readMounts();
    if (!mounts.some((mount) => mount.mountPoint === dir)) return;
    // --internal-only: no helper program, --no-canonicalize: no look into a file system that may
    // hang.
    const flags = ['--internal-only', '--no-canonicalize'];
    if (options.lazy) flags.push('--lazy');
    await runTool('umount', [...flags, '--', dir]);
  }
}

function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_all, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}
