import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { main } from '../../../replica/main.js';

let dir: string;
let stderr = '';
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'aurochs-command-'));
  stderr = '';
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
    stderr += String(text);
    return true;
  });
  vi.spyOn(process.stdout, 'write').mockImplementation(() => true);
});
afterEach(async () => {
  vi.restoreAllMocks();
  await rm(dir, { recursive: true, force: true });
});

const daemon = (change: Record<string, string | undefined> = {}): string[] => {
  const flags = {
    '--listen': '127.0.0.1:0',
    '--data': join(dir, 'data'),
    '--disk': `${join(dir, 'disk.img')},size=1GiB`,
    ...change,
  };
  return Object.entries(flags).flatMap(([flag, value]) =>
    value === undefined ? [] : [flag, value],
  );
};

describe('aurochs replica', () => {
  const usage = [
    { name: 'nothing', argv: [] },
    { name: 'no disk', argv: ['--listen', '127.0.0.1:0', '--data', '/nowhere'] },
    { name: 'a decimal size', argv: ['--disk', '/d,size=1GB'] },
    { name: 'a cluster that is no name', argv: ['--cluster', '../x'] },
    { name: 'an unknown option', argv: ['--sise', '3'] },
  ];
  it.each(usage)('usage errors exit with 2: $name', async ({ argv }) => {
    expect(await main(argv)).toBe(2);
    expect(stderr).toMatch(/error/);
  });

  it('plain TCP beyond loopback is refused, with what to do', async () => {
    expect(await main(daemon({ '--listen': '0.0.0.0:0' }))).toBe(1);
    expect(stderr).toMatch(/^error PERMISSION: .*0\.0\.0\.0/);
    expect(stderr).toMatch(/hint: .*--tls-ca.*--insecure/);
  });

  it('half a certificate is refused', async () => {
    expect(await main(daemon({ '--tls-ca': '/ca.pem' }))).toBe(2);
    expect(stderr).toMatch(/error INVALID_ARGUMENT: .*go together/);
  });

  it('an address that is none is refused', async () => {
    expect(await main(daemon({ '--listen': 'somewhere' }))).toBe(2);
    expect(stderr).toMatch(/error INVALID_ARGUMENT/);
  });

  it('help exits with 0', async () => {
    expect(await main(['--help'])).toBe(0);
    expect(await main(['compare', '--help'])).toBe(0);
  });

  it('compare wants one data directory per disk, or one for all', async () => {
    const disks = ['--disk', '/1', '--disk', '/2', '--disk', '/3'];
    expect(await main(['compare', ...disks, '--data', '/a', '--data', '/b', 'v1'])).toBe(2);
    expect(stderr).toMatch(/error INVALID_ARGUMENT: 3 --disk with 2 --data/);
    expect(await main(['compare', '--disk', '/1', '--data', dir, 'v1'])).toBe(3);
    expect(stderr).toMatch(/error NOT_FOUND: no replica daemon ever ran/);
  });

  it('compare without a volume is a usage error', async () => {
    expect(await main(['compare', '--disk', '/d', '--data', '/x'])).toBe(2);
  });
});
