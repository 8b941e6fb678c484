/** Opening of files and block devices: flags, facts, locks, and the choice of the backend. */
import { close, constants, open, stat, statfs } from 'node:fs';
import { promisify } from 'node:util';
import { BUFFER_ALIGNMENT } from '../common/block-device.js';
import { SystemClock, sleep } from '../common/clock.js';
import { StorageError } from '../common/errors.js';
import { roundDown, SECTOR_SIZE } from '../common/units.js';
import { addon, type FdFacts } from './addon.js';
import { DirectDevice, type IoBackend } from './direct-device.js';
import { errnoName, errnoOf, openError } from './errno.js';
import { ringRefusal } from './io-channel.js';

const openFd = promisify(open);
const closeFd = promisify(close);
const statPath = promisify(stat);
const statFileSystem = promisify(statfs);

/** linux/magic.h */
const FUSE_SUPER_MAGIC = 0x65735546;

// udev holds a shared lock on a block device for the moment in which it looks at it.
const BLOCK_LOCK_TRIES = 5;
const BLOCK_LOCK_PAUSE_MS = 40;

export interface OpenOptions {
  readonly readOnly?: boolean;
  /** A second exclusive holder gets DISK_LOCKED: flock on the file, O_EXCL as well on a block
   *  device. */
  readonly exclusive?: boolean;
  /** default auto: AUROCHS_IO_BACKEND if set, else threads on FUSE, else io_uring, else threads */
  readonly backend?: 'auto' | IoBackend;
}

interface OpenFile {
  readonly fd: number;
  readonly facts: FdFacts;
  readonly directIo: boolean;
}

/** @see openBlockDevice in index.ts */
export async function openDirectDevice(path: string, options: OpenOptions): Promise<DirectDevice> {
  const backend = await chooseBackend(path, options.backend ?? 'auto');
  const file = await openFile(path, options);
  try {
    if (options.exclusive === true) await lockDevice(path, file);
    const { facts } = file;
    const sectorSize = file.directIo ? Math.max(facts.sectorSize, SECTOR_SIZE) : SECTOR_SIZE;
    if (sectorSize > BUFFER_ALIGNMENT || facts.memoryAlign > BUFFER_ALIGNMENT) {
      const unit = Math.max(sectorSize, facts.memoryAlign);
      throw new StorageError('UNSUPPORTED', `${path} needs I/O in units of ${unit} bytes`);
    }
    return new DirectDevice({
      path,
      fd: file.fd,
      kind: facts.block ? 'block' : 'file',
      sizeBytes: roundDown(facts.sizeBytes, sectorSize),
      sectorSize,
      readOnly: options.readOnly === true,
      directIo: file.directIo,
      backend,
    });
  } catch (error) {
    await closeFd(file.fd).catch(() => undefined);
    throw error;
  }
}

async function chooseBackend(path: string, asked: 'auto' | IoBackend): Promise<IoBackend> {
  const wanted = asked === 'auto' ? (process.env['AUROCHS_IO_BACKEND'] ?? 'auto') : asked;
  if (wanted !== 'auto' && wanted !== 'io_uring' && wanted !== 'threads') {
    throw new StorageError(
      'INVALID_ARGUMENT',
      `AUROCHS_IO_BACKEND is ${JSON.stringify(wanted.slice(0, 40))}, not auto, io_uring or threads`,
    );
  }
  if (wanted === 'threads') return 'threads';
  // After a short transfer on FUSE the kernel's io_uring continues at the offset where it began
  // (ADR-0001).
  if (wanted === 'auto' && (await isOnFuse(path))) return 'threads';
  const refusal = ringRefusal();
  if (refusal === undefined) return 'io_uring';
  if (wanted === 'auto') return 'threads';
  throw new StorageError('UNSUPPORTED', `io_uring is not available: ${refusal}`);
}

async function isOnFuse(path: string): Promise<boolean> {
  try {
    return (await statFileSystem(path)).type === FUSE_SUPER_MAGIC;
  } catch (error) {
    // Only FUSE servers do not know statfs; of everything else the open tells.
    return errnoOf(error) === 'ENOSYS';
  }
}

async function openFile(path: string, options: OpenOptions): Promise<OpenFile> {
  let flags = options.readOnly === true ? constants.O_RDONLY : constants.O_RDWR;
  try {
    const before = await statPath(path);
    if (!before.isFile() && !before.isBlockDevice()) {
      throw new StorageError('INVALID_ARGUMENT', `${path} is neither a file nor a block device`);
    }
    if (options.exclusive === true && before.isBlockDevice()) flags |= constants.O_EXCL;
    const direct = await openDirect(path, flags);
    if (direct !== undefined) return direct;
    const fd = await openFd(path, flags);
    return { fd, facts: await factsOf(path, fd), directIo: false };
  } catch (error) {
    const errno = errnoOf(error);
    if (error instanceof StorageError || errno === undefined) throw error;
    throw openError(errno, `open of ${path}`, { disk: path });
  }
}

/** @returns undefined where the file system does no direct I/O */
async function openDirect(path: string, flags: number): Promise<OpenFile | undefined> {
  let fd: number;
  try {
    fd = await openFd(path, flags | constants.O_DIRECT);
  } catch (error) {
    if (errnoOf(error) === 'EINVAL') return undefined;
    throw error;
  }
  const facts = await factsOf(path, fd);
  if (facts.sectorSize > 0) return { fd, facts, directIo: true };
  await closeFd(fd);
  return undefined;
}

async function factsOf(path: string, fd: number): Promise<FdFacts> {
  const facts = addon.inspectFd(fd);
  if (typeof facts !== 'number') return facts;
  await closeFd(fd).catch(() => undefined);
  throw openError(errnoName(facts), `inspection of ${path}`, { disk: path });
}

async function lockDevice(path: string, file: OpenFile): Promise<void> {
  const clock = new SystemClock();
  const tries = file.facts.block ? BLOCK_LOCK_TRIES : 1;
  for (let tried = 1; ; tried++) {
    const status = addon.lockFd(file.fd);
    if (status === 0) return;
    if (tried >= tries) throw lockError(path, status);
    await sleep(clock, BLOCK_LOCK_PAUSE_MS);
  }
}

/** DISK_LOCKED, or what else the lock failed with. */
export function lockError(path: string, status: number): StorageError {
  return openError(errnoName(status), `lock of ${path}`, {
    disk: path,
    hint: 'another process has it open exclusively',
  });
}
