/** What the facts of a host mean for Aurochs, and what to do about each. Pure: facts in, findings
 *  out. */
import { formatSize, GIB, MIB } from '../common/units.js';
import type { DiskFacts, HostFacts, Offer } from './host-facts.js';

export interface Finding {
  readonly subject: string;
  /** fail: Aurochs does not work here; warn: works, but read the advice; ok; info: neither good nor
   *  bad */
  readonly level: 'ok' | 'info' | 'warn' | 'fail';
  readonly found: string;
  readonly advice?: string;
}

/** Idle daemons and engine, and the block device process. See docs/operating.md for what grows with
 *  size. */
const MEMORY_BYTES_MIN = 512 * MIB;
const OPEN_FILES_MIN = 4096;

export function diagnose(facts: HostFacts): Finding[] {
  return [
    kernelFinding(facts),
    nodeFinding(facts),
    ...nativeFindings(facts),
    ...deviceFindings(facts),
    ...facts.disks.map(diskFinding),
    memoryFinding(facts),
    filesFinding(facts),
    toolsFinding(facts),
  ];
}

function kernelFinding({ kernel, arch }: HostFacts): Finding {
  const found = `Linux ${kernel}, ${arch}`;
  const known = arch === 'x64' || arch === 'arm64';
  if (!known) {
    return finding('kernel', 'warn', found, 'only x64 and arm64 are tested');
  }
  if (atLeast(kernel, 5, 10)) return finding('kernel', 'ok', found);
  return finding('kernel', 'warn', found, 'older than 5.10: I/O goes through threads; upgrade');
}

function nodeFinding({ node }: HostFacts): Finding {
  if (atLeast(node, 20, 19)) return finding('node', 'ok', node);
  return finding('node', 'fail', node, 'install Node 20.19 or newer');
}

function nativeFindings({ native, ioUringDisabled }: HostFacts): Finding[] {
  if (!native.loaded || native.capabilities === undefined) {
    const found = `does not load: ${native.error ?? 'no answer'}`;
    return [finding('native module', 'fail', found, 'build it: npm run setup')];
  }
  const { ioUring, ioUringReason, crc32c } = native.capabilities;
  const findings = [finding('native module', 'ok', 'loads')];
  if (ioUring) findings.push(finding('io_uring', 'ok', 'allowed'));
  else {
    const advice =
      ioUringDisabled !== undefined && ioUringDisabled !== '0'
        ? 'set sysctl kernel.io_uring_disabled=0 for fewer CPU cycles per I/O'
        : 'I/O goes through threads; allow io_uring in the seccomp profile for fewer CPU cycles';
    findings.push(finding('io_uring', 'warn', ioUringReason ?? 'not allowed', advice));
  }
  if (crc32c === 'table') {
    findings.push(finding('crc32c', 'warn', 'by table', 'no crc32c instruction: writes cost more'));
  } else findings.push(finding('crc32c', 'ok', crc32c));
  return findings;
}

const OFFERED: Record<Offer, string> = {
  available: 'available',
  module: 'kernel module not loaded',
  missing: 'not in this kernel',
  denied: 'there, but not for this user',
};

/** Only FUSE with a loop device carries the block device today; ublk and kernel NBD are named for
 *  what comes. */
function deviceFindings({ ublk, nbd, fuse, loop, root }: HostFacts): Finding[] {
  const usable = fuse === 'available' && loop === 'available' && root;
  const advice = usable
    ? undefined
    : [
        root ? '' : 'be root',
        fuse === 'module' ? 'modprobe fuse' : '',
        loop === 'module' ? 'modprobe loop' : '',
        fuse === 'denied' || loop === 'denied' ? 'allow /dev/fuse and /dev/loop-control' : '',
      ]
        .filter((step) => step !== '')
        .join(', ') || 'use the NBD socket directly';
  return [
    finding('block device', usable ? 'ok' : 'warn', usable ? 'by FUSE and loop' : 'none', advice),
    finding('fuse', fuse === 'available' ? 'ok' : 'info', OFFERED[fuse]),
    finding('loop', loop === 'available' ? 'ok' : 'info', OFFERED[loop]),
    finding('ublk', 'info', OFFERED[ublk], 'not used yet'),
    finding('kernel nbd', 'info', OFFERED[nbd], 'not used yet; any NBD client can use the socket'),
  ];
}

function diskFinding(disk: DiskFacts): Finding {
  const subject = `disk ${disk.name}`;
  const kind = disk.rotational ? 'rotating or virtual' : 'solid state';
  const found = `${formatSize(disk.sizeBytes)}, ${kind}, ${disk.writeCache || 'cache unknown'}`;
  if (disk.readOnly) return finding(subject, 'info', `${found}, read-only`);
  if (disk.rotational) {
    return finding(
      subject,
      'warn',
      found,
      'a rotating disk takes milliseconds per flush; a virtual one may only say it rotates',
    );
  }
  if (disk.writeCache === 'write back') {
    const advice =
      'volatile cache: every FLUSH reaches the disk; power-loss protection makes it fast';
    return finding(subject, 'ok', found, advice);
  }
  return finding(subject, 'ok', found);
}

function memoryFinding({ memoryBytes, memoryAvailableBytes }: HostFacts): Finding {
  const found = `${formatSize(memoryAvailableBytes)} of ${formatSize(memoryBytes)} available`;
  if (memoryAvailableBytes >= MEMORY_BYTES_MIN) return finding('memory', 'ok', found);
  return finding(
    'memory',
    'warn',
    found,
    `have ${formatSize(GIB / 2)} for three copies on one host`,
  );
}

function filesFinding({ openFilesMax }: HostFacts): Finding {
  if (openFilesMax === undefined) return finding('open files', 'info', 'no limit known');
  if (openFilesMax >= OPEN_FILES_MIN) return finding('open files', 'ok', `${openFilesMax}`);
  return finding('open files', 'warn', `${openFilesMax}`, `ulimit -n ${OPEN_FILES_MIN}`);
}

function toolsFinding({ missingTools }: HostFacts): Finding {
  if (missingTools.length === 0) return finding('tools', 'ok', 'all there');
  const advice = 'scripts/setup.sh test installs them on Debian';
  return finding('tools', 'info', `without ${missingTools.join(', ')}`, advice);
}

function finding(
  subject: string,
  level: Finding['level'],
  ...[found, advice]: [string, string?]
): Finding {
  return advice === undefined ? { subject, level, found } : { subject, level, found, advice };
}

/** Compares the first two numbers of a version such as `6.1.0-50-amd64`. */
function atLeast(version: string, major: number, minor: number): boolean {
  const [a = 0, b = 0] = version.split(/[^0-9]+/).map(Number);
  return a > major || (a === major && b >= minor);
}
