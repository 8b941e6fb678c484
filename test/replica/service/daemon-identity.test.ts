import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { StorageError } from '../../../common/errors.js';
import { GIB } from '../../../common/units.js';
import { loadDaemonIdentity } from '../../../replica/service/daemon-identity.js';
import { parseDiskSpec } from '../../../replica/service/disk-spec.js';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'aurochs-identity-'));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return 'OK';
  } catch (error) {
    return error instanceof StorageError ? error.code : String(error);
  }
}

describe('identity of a daemon', () => {
  it('P7: the daemon id stays, the incarnation is new at each start', async () => {
    const first = await loadDaemonIdentity(dir, 'c1');
    const second = await loadDaemonIdentity(dir, 'c1');
    expect(second.daemonId).toBe(first.daemonId);
    expect(second.incarnation).not.toBe(first.incarnation);
    const bootId = await readFile('/proc/sys/kernel/random/boot_id', 'utf8');
    expect(second.bootId).toBe(bootId.trim());
    expect(await readdir(dir)).toEqual(['daemon.json']);
  });

  it('draws its ids from where it is told to', async () => {
    const ids = ['daemon-a', 'start-1', 'start-2'];
    const draw = (): string => ids.shift() ?? 'none left';
    const first = await loadDaemonIdentity(dir, 'c1', draw);
    expect(first).toMatchObject({ daemonId: 'daemon-a', incarnation: 'start-1' });
    const second = await loadDaemonIdentity(dir, 'c1', draw);
    expect(second).toMatchObject({ daemonId: 'daemon-a', incarnation: 'start-2' });
  });

  it('another cluster’s directory is refused', async () => {
    await loadDaemonIdentity(dir, 'c1');
    expect(await codeOf(loadDaemonIdentity(dir, 'c2'))).toBe('IDENTITY_MISMATCH');
    expect(await codeOf(loadDaemonIdentity(dir, '../c2'))).toBe('INVALID_ARGUMENT');
  });

  it('R7: a crash before the rename leaves no half identity', async () => {
    await writeFile(join(dir, 'daemon.json.new'), '{"daem');
    const identity = await loadDaemonIdentity(dir, 'c1');
    const stored = JSON.parse(await readFile(join(dir, 'daemon.json'), 'utf8'));
    expect(stored.daemonId).toBe(identity.daemonId);
  });

  const broken = [
    { name: 'empty', text: '', want: 'CORRUPT_METADATA' },
    { name: 'cut', text: '{"formatVersion": 1, "daemonId"', want: 'CORRUPT_METADATA' },
    { name: 'a number', text: '7', want: 'CORRUPT_METADATA' },
    { name: 'null', text: 'null', want: 'CORRUPT_METADATA' },
    { name: 'without fields', text: '{"formatVersion": 1}', want: 'CORRUPT_METADATA' },
    {
      name: 'a path as id',
      text: '{"formatVersion": 1, "daemonId": "../x", "clusterId": "c1"}',
      want: 'CORRUPT_METADATA',
    },
    { name: 'huge', text: ' '.repeat(100_000), want: 'CORRUPT_METADATA' },
    {
      name: 'of a later version',
      text: '{"formatVersion": 2, "daemonId": "n", "clusterId": "c1"}',
      want: 'VERSION_UNSUPPORTED',
    },
  ];
  it.each(broken)('scenario 52: $name is refused, not made anew', async ({ text, want }) => {
    await writeFile(join(dir, 'daemon.json'), text);
    expect(await codeOf(loadDaemonIdentity(dir, 'c1'))).toBe(want);
    expect(await readFile(join(dir, 'daemon.json'), 'utf8')).toBe(text);
  });

  it('a directory or a dangling link in its place is refused', async () => {
    await mkdir(join(dir, 'daemon.json'));
    expect(await codeOf(loadDaemonIdentity(dir, 'c1'))).toBe('IO_ERROR');
    await rm(join(dir, 'daemon.json'), { recursive: true });
    await symlink('/proc/self/mem', join(dir, 'daemon.json'));
    expect(await codeOf(loadDaemonIdentity(dir, 'c1'))).not.toBe('OK');
  });
});

describe('--disk', () => {
  it('is a path with an optional size', () => {
    expect(parseDiskSpec('/dev/nvme1n1')).toEqual({ path: '/dev/nvme1n1', sizeBytes: undefined });
    expect(parseDiskSpec('/d.img,size=10GiB')).toEqual({ path: '/d.img', sizeBytes: 10 * GIB });
    expect(parseDiskSpec('d.img').path).toBe(join(process.cwd(), 'd.img'));
  });

  it.each([
    '',
    ',size=1GiB',
    '/d,size=',
    '/d,size=1GB',
    '/d,size=-1',
    '/d,color=red',
    '/d,size=1GiB,size=2GiB',
    '/d\0x',
  ])('refuses %j', (text) => {
    expect(() => parseDiskSpec(text)).toThrow(StorageError);
  });
});
