import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { diagnose, type Finding } from '../../cli/diagnosis.js';
import { renderFindings } from '../../cli/doctor-command.js';
import { type HostFacts, readHostFacts } from '../../cli/host-facts.js';
import { GIB, MIB } from '../../common/units.js';

const good: HostFacts = {
  kernel: '6.1.0-50-amd64',
  arch: 'x64',
  node: '20.20.2',
  root: true,
  native: { loaded: true, capabilities: { ioUring: true, crc32c: 'sse4.2' } },
  ioUringDisabled: '0',
  ublk: 'missing',
  nbd: 'module',
  fuse: 'available',
  loop: 'available',
  disks: [],
  memoryBytes: 8 * GIB,
  memoryAvailableBytes: 4 * GIB,
  openFilesMax: 65_536,
  missingTools: [],
};
const disk = {
  name: 'nvme0n1',
  sizeBytes: 1000 * GIB,
  rotational: false,
  writeCache: 'write back',
  fua: true,
  sectorBytes: 512,
  readOnly: false,
};

function about(subject: string, facts: Partial<HostFacts>): Finding | undefined {
  return diagnose({ ...good, ...facts }).find((finding) => finding.subject === subject);
}

describe('diagnose', () => {
  it('finds nothing bad on a good host', () => {
    const bad = diagnose(good).filter(({ level }) => level === 'warn' || level === 'fail');
    expect(bad).toEqual([]);
  });

  it.each<[string, string, Partial<HostFacts>, Finding['level'], RegExp]>([
    ['old Node', 'node', { node: '20.18.9' }, 'fail', /install Node/],
    ['newer major Node', 'node', { node: '22.0.0' }, 'ok', /^$/],
    ['old kernel', 'kernel', { kernel: '5.4.0-1' }, 'warn', /upgrade/],
    ['strange processor', 'kernel', { arch: 'riscv64' }, 'warn', /x64 and arm64/],
    [
      'native module not built',
      'native module',
      { native: { loaded: false, error: 'Cannot find module' } },
      'fail',
      /npm run setup/,
    ],
    [
      'io_uring switched off',
      'io_uring',
      { ioUringDisabled: '2', native: withoutRing() },
      'warn',
      /sysctl kernel\.io_uring_disabled=0/,
    ],
    ['io_uring forbidden in a container', 'io_uring', { native: withoutRing() }, 'warn', /seccomp/],
    ['not root', 'block device', { root: false }, 'warn', /be root/],
    ['fuse not loaded', 'block device', { fuse: 'module' }, 'warn', /modprobe fuse/],
    ['loop denied', 'block device', { loop: 'denied' }, 'warn', /loop-control/],
    ['no fuse at all', 'block device', { fuse: 'missing' }, 'warn', /NBD socket/],
    ['volatile cache', 'disk nvme0n1', { disks: [disk] }, 'ok', /volatile cache/],
    [
      'rotating disk',
      'disk nvme0n1',
      { disks: [{ ...disk, rotational: true }] },
      'warn',
      /rotating/,
    ],
    ['little memory', 'memory', { memoryAvailableBytes: 100 * MIB }, 'warn', /512MiB/],
    ['few files', 'open files', { openFilesMax: 1024 }, 'warn', /ulimit -n/],
    ['tools missing', 'tools', { missingTools: ['fio'] }, 'info', /setup\.sh/],
  ])('%s', (_name, subject, facts, level, advice) => {
    const found = about(subject, facts);
    expect(found?.level).toBe(level);
    expect(found?.advice ?? '').toMatch(advice);
  });

  it('says what to do about everything that is not fine', () => {
    const facts: HostFacts = {
      ...good,
      root: false,
      node: '18.0.0',
      kernel: '4.19.0',
      native: { loaded: false },
      disks: [{ ...disk, rotational: true }],
      memoryAvailableBytes: 0,
      openFilesMax: 10,
      fuse: 'missing',
    };
    const mute = diagnose(facts).filter(
      ({ level, advice }) => (level === 'warn' || level === 'fail') && advice === undefined,
    );
    expect(mute).toEqual([]);
  });

  it('is shown with the advice under each finding', () => {
    const text = renderFindings([
      { subject: 'node', level: 'fail', found: '18', advice: 'install' },
      { subject: 'io_uring', level: 'ok', found: 'allowed' },
    ]);
    expect(text).toBe(
      ['FAIL  node      18', '                -> install', 'OK    io_uring  allowed'].join('\n'),
    );
  });
});

function withoutRing(): HostFacts['native'] {
  const capabilities = { ioUring: false, ioUringReason: 'EPERM', crc32c: 'sse4.2' };
  return { loaded: true, capabilities };
}

describe('readHostFacts', () => {
  let rootDir: string;
  beforeEach(async () => {
    rootDir = await mkdtemp(path.join(tmpdir(), 'aurochs-host-'));
  });
  afterEach(() => rm(rootDir, { recursive: true }));

  async function put(file: string, text: string): Promise<void> {
    const full = path.join(rootDir, file);
    await mkdir(path.dirname(full), { recursive: true });
    await writeFile(full, text);
  }

  const probe = [
    process.execPath,
    '-e',
    'console.log(JSON.stringify({loaded: false, error: "x"}))',
  ];

  it('reads kernel, memory, limits, modules and disks', async () => {
    await put('proc/sys/kernel/osrelease', '6.12.0-1\n');
    await put('proc/sys/kernel/io_uring_disabled', '1\n');
    await put('proc/meminfo', 'MemTotal:   1024 kB\nMemFree: 9 kB\nMemAvailable:  512 kB\n');
    await put('proc/self/limits', 'Limit  Soft  Hard\nMax open files   1024   4096   files\n');
    await put('lib/modules/6.12.0-1/modules.dep', 'kernel/drivers/block/nbd.ko.xz:\n');
    await put('dev/fuse', '');
    for (const [file, text] of [
      ['size', '2048'],
      ['ro', '0'],
      ['queue/rotational', '0'],
      ['queue/write_cache', 'write through'],
      ['queue/fua', '1'],
      ['queue/logical_block_size', '4096'],
    ] as const) {
      await put(`sys/block/sda/${file}`, `${text}\n`);
    }
    await put('sys/block/loop0/size', '2048\n');
    await put('sys/block/sdb/size', '0\n');
    const facts = await readHostFacts({ rootDir, probe, toolPath: '/nowhere' });
    expect(facts).toMatchObject({
      kernel: '6.12.0-1',
      ioUringDisabled: '1',
      memoryBytes: MIB,
      memoryAvailableBytes: MIB / 2,
      openFilesMax: 1024,
      nbd: 'module',
      ublk: 'missing',
      fuse: 'available',
      native: { loaded: false, error: 'x' },
    });
    expect(facts.missingTools).toContain('fio');
    expect(facts.disks).toEqual([
      {
        name: 'sda',
        sizeBytes: MIB,
        rotational: false,
        writeCache: 'write through',
        fua: true,
        sectorBytes: 4096,
        readOnly: false,
      },
    ]);
  });

  it.each([
    ['crashes', ['-e', 'process.abort()']],
    ['prints garbage', ['-e', 'console.log("hello")']],
    ['prints nothing', ['-e', '']],
    ['is not there', ['/nonexistent/probe.js']],
  ])('goes on when the probe %s, on a host that tells nothing', async (_name, args) => {
    const facts = await readHostFacts({ rootDir, probe: [process.execPath, ...args] });
    expect(facts.native.loaded).toBe(false);
    expect(facts.disks).toEqual([]);
    expect(diagnose(facts).some(({ level }) => level === 'fail')).toBe(true);
  });
});
