import { describe, expect, it } from 'vitest';
import { mountPointOf, parseMountInfo } from '../../../engine/device/mount-table.js';

const TEXT = [
  '22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw',
  '51 22 0:57 / /run/a/mnt rw,nosuid - fuse aurochs:vol rw,user_id=0',
  '60 22 7:3 / /mnt/with\\040space rw,relatime shared:30 master:2 - ext4 /dev/loop3 rw',
  '61 22 0:60 /sub /mnt/btrfs rw - btrfs /dev/loop4 rw',
  'not a line of this file',
  '',
].join('\n');

describe('mount table', () => {
  const mounts = parseMountInfo(TEXT);

  it('reads mount point, device, type and source, with any number of optional fields', () => {
    expect(mounts.map((mount) => mount.mountPoint)).toEqual([
      '/',
      '/run/a/mnt',
      '/mnt/with space',
      '/mnt/btrfs',
    ]);
    expect(mounts[1]).toMatchObject({ type: 'fuse', source: 'aurochs:vol', deviceNumber: '0:57' });
  });

  it('finds the mount of a device by number, and by source where there is no number', () => {
    const at = (path: string, number: string) => mountPointOf(mounts, { path, number });
    expect(at('/dev/loop3', '7:3')).toBe('/mnt/with space');
    expect(at('/dev/loop4', '7:4')).toBe('/mnt/btrfs');
    expect(at('/dev/loop5', '7:5')).toBeUndefined();
  });
});
