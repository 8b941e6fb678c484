/**
 * Opening and formatting of a disk: who may, and in which order (docs/on-disk-format.md#opening).
 *
 * The nonce ties the two halves in time. It changes at each open and each close: the metadata
 * durably notes old and new, both superblocks get the new one, the metadata forgets the old one. So
 * whichever half is put back from a copy that was made before the last open or close is found out.
 */
import type { BlockDevice } from '../../common/block-device.js';
import { StorageError } from '../../common/errors.js';
import { EXTENT_SIZE, formatSize, MIB } from '../../common/units.js';
import { DISK_KEY } from '../store/keys.js';
import type { Kv, OpenKv } from '../store/kv.js';
import { BatchBuilder, type MetadataWriter } from '../store/metadata-writer.js';
import type { DiskIdentity } from './disk.js';
import {
  checkPair,
  type DiskRecord,
  diskRecordBody,
  type Nonce,
  parseDiskRecord,
} from './disk-record.js';
import type { DiskNote, MetaHome } from './meta-home.js';
import { type ScannedDisk, scanDisk } from './metadata-scan.js';
import {
  DATA_OFFSET_BYTES,
  FORMAT_VERSION,
  fitsSuperblock,
  SUPERBLOCK_OFFSETS,
  type Superblock,
  type SuperblockCopy,
} from './superblock.js';
import {
  type DeviceAccess,
  findContent,
  readSuperblocks,
  writeSuperblocks,
} from './superblock-pair.js';

/** Less is of no use. */
const EXTENTS_MIN = 8;

export interface MountOptions {
  readonly path: string;
  readonly sizeBytes?: number;
  readonly identity: DiskIdentity;
  readonly home: MetaHome;
  readonly pool: DeviceAccess['pool'];
  readonly openDevice: (path: string) => Promise<BlockDevice>;
  readonly openKv: OpenKv;
  readonly randomBytes: (lengthBytes: number) => Buffer;
  /** `reuse`: it must be formatted; `inspect`: likewise, and nothing is changed. Default `use`:
   *  what is missing is made, what is provably empty is formatted. */
  readonly purpose?: 'use' | 'reuse' | 'inspect';
  /** Any other disk is refused. */
  readonly diskId?: string;
}

/** A disk that was checked and is locked; its nonce is still that of the last close. */
export interface Mount {
  readonly device: BlockDevice;
  readonly kv: Kv;
  readonly lock: { release(): void };
  readonly scanned: ScannedDisk;
  /** as it is stored now */
  note: DiskNote;
  superblock: Superblock;
  record: DiskRecord;
  /** offsets of copies that are torn or older than `superblock` */
  staleCopies: readonly number[];
  /** a change of the nonce began and did not come to its end: another one must wait for the next
   *  open */
  nonceUnsettled: boolean;
}

/** @throws StorageError see openDisk */
export async function mountDisk(options: MountOptions): Promise<Mount> {
  checkIdentity(options.identity);
  const notes = await options.home.notes();
  await makeMissing(options, notes);
  const device = await options.openDevice(options.path);
  try {
    const extents = Math.floor((device.sizeBytes - DATA_OFFSET_BYTES) / EXTENT_SIZE);
    if (extents < EXTENTS_MIN) {
      const least = formatSize(DATA_OFFSET_BYTES + EXTENTS_MIN * EXTENT_SIZE);
      throw refusal(options, 'NO_SPACE', `has ${device.sizeBytes} bytes, less than ${least}`);
    }
    const access = { device, pool: options.pool };
    const copies = await readSuperblocks(access);
    const superblock =
      newest(options, copies) ?? (await format(options, { access, copies, notes }));
    const staleCopies = SUPERBLOCK_OFFSETS.filter((_offset, index) => {
      const copy = copies[index];
      return copy?.kind !== 'good' || copy.superblock.nonce !== superblock.nonce;
    });
    return await openExisting(options, { device, superblock, extents, staleCopies });
  } catch (error) {
    await device.close();
    throw error;
  }
}

/** Changes the nonce in both halves; first makes both copies of the superblock equal, so that a
 *  torn write of one copy always leaves the other with a nonce that the metadata knows. The writer
 *  is the one of the mount's metadata. */
export async function renewNonce(
  mount: Mount,
  tools: {
    readonly writer: MetadataWriter;
    readonly pool: DeviceAccess['pool'];
    readonly randomBytes: (lengthBytes: number) => Buffer;
    /** a larger one is taken over */
    readonly sizeBytes: number;
  },
): Promise<void> {
  const access = { device: mount.device, pool: tools.pool };
  mount.nonceUnsettled = true;
  await writeSuperblocks(access, mount.superblock, mount.staleCopies);
  mount.staleCopies = [];
  const next: Nonce = {
    value: tools.randomBytes(16).toString('hex'),
    count: mount.superblock.nonceCount + 1,
  };
  // After an interrupted change the superblock may hold the intent: it is what counts now.
  const { nonce, nonceCount } = mount.superblock;
  const held: Nonce = { value: nonce, count: nonceCount };
  await putDiskRecord(mount, tools.writer, { ...mount.record, nonce: held, intent: next });
  const changed = { nonce: next.value, nonceCount: next.count, sizeBytes: tools.sizeBytes };
  const superblock = { ...mount.superblock, ...changed };
  await writeSuperblocks(access, superblock);
  mount.superblock = superblock;
  await putDiskRecord(mount, tools.writer, { ...mount.record, nonce: next, intent: undefined });
  mount.nonceUnsettled = false;
}

async function putDiskRecord(
  mount: Mount,
  writer: MetadataWriter,
  record: DiskRecord,
): Promise<void> {
  await writer.submit((batch) => fillDiskRecord(mount, batch, record), { sync: true });
}

/** Adds a changed disk record to a batch. */
export function fillDiskRecord(mount: Mount, batch: BatchBuilder, record: DiskRecord): void {
  const { scanned } = mount;
  scanned.diskRecordSeal = batch.put(0, DISK_KEY, diskRecordBody(record), scanned.diskRecordSeal);
  mount.record = record;
}

function checkIdentity(identity: DiskIdentity): void {
  for (const text of [identity.clusterId, identity.daemonId]) {
    if (fitsSuperblock(text)) continue;
    const shown = JSON.stringify(text.slice(0, 80));
    throw new StorageError('INVALID_ARGUMENT', `identity ${shown} must have 1 to 64 bytes`);
  }
}

/** Makes the disk's file where that is wanted, and never where a formatted disk was (scenario
 *  54). */
async function makeMissing(options: MountOptions, notes: readonly DiskNote[]): Promise<void> {
  const { path, sizeBytes } = options;
  const state = await options.home.diskState(path);
  if (state === 'present') return;
  const was = notes.find((note) => note.path === path && note.state === 'ready');
  if (was !== undefined) throw gone(options, was, state);
  if (sizeBytes === undefined || mayNotFormat(options)) {
    if (state === 'empty') throw refusal(options, 'NO_SPACE', 'is an empty file');
    const hint = 'give its size to make a file';
    throw new StorageError('NOT_FOUND', `disk ${path} does not exist`, { hint });
  }
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < DATA_OFFSET_BYTES + EXTENTS_MIN * MIB) {
    const least = formatSize(DATA_OFFSET_BYTES + EXTENTS_MIN * MIB);
    throw new StorageError(
      'INVALID_ARGUMENT',
      `disk ${path} of ${sizeBytes} bytes: at least ${least}`,
    );
  }
  await options.home.makeDisk(path, sizeBytes - (sizeBytes % EXTENT_SIZE));
}

/** The valid superblock that counts; undefined if there is none. One torn copy is mended by the
 *  next change of the nonce. */
function newest(options: MountOptions, copies: readonly SuperblockCopy[]): Superblock | undefined {
  let best: Superblock | undefined;
  for (const copy of copies) {
    if (copy.kind === 'newer') {
      const text = `has format version ${copy.version}, this program knows ${FORMAT_VERSION}`;
      throw refusal(options, 'VERSION_UNSUPPORTED', text);
    }
    if (copy.kind !== 'good') continue;
    const { superblock } = copy;
    const clash =
      best !== undefined &&
      (best.diskId !== superblock.diskId ||
        best.pairId !== superblock.pairId ||
        (best.nonceCount === superblock.nonceCount && best.nonce !== superblock.nonce));
    if (clash) throw refusal(options, 'CORRUPT_METADATA', 'has superblocks that contradict');
    if (best === undefined || superblock.nonceCount > best.nonceCount) best = superblock;
  }
  return best;
}

async function openExisting(
  options: MountOptions,
  found: Pick<Mount, 'device' | 'superblock' | 'staleCopies'> & { readonly extents: number },
): Promise<Mount> {
  const { identity, home } = options;
  const { device, superblock, extents, staleCopies } = found;
  const { diskId } = superblock;
  if (superblock.clusterId !== identity.clusterId || superblock.daemonId !== identity.daemonId) {
    const owner = `daemon ${superblock.daemonId} of cluster ${superblock.clusterId}`;
    throw refusal(options, 'DISK_FOREIGN', `(${diskId}) belongs to ${owner}`);
  }
  if (device.sizeBytes < superblock.sizeBytes) {
    const text = `(${diskId}) has ${device.sizeBytes} bytes and had ${superblock.sizeBytes}`;
    throw refusal(options, 'DISK_TRUNCATED', text);
  }
  if (options.diskId !== undefined && options.diskId !== diskId) {
    throw refusal(options, 'DISK_MISMATCH', `is disk ${diskId}, not ${options.diskId}`);
  }
  let note = (await home.notes()).find((candidate) => candidate.diskId === diskId);
  if (note === undefined) {
    throw refusal(options, 'DISK_MISMATCH', `(${diskId}) has no metadata in this data directory`);
  }
  const lock = await home.lock(diskId);
  let kv: Kv | undefined;
  try {
    kv = await options.openKv(home.kvDirectory(diskId), { create: false });
    const record = parseDiskRecord(await kv.get(DISK_KEY));
    checkPair(record, superblock);
    const scanned = await scanDisk(kv, extents);
    const stale = note.path !== options.path || note.state !== 'ready';
    if (stale && options.purpose !== 'inspect') {
      note = { ...note, path: options.path, state: 'ready' };
      await home.put(note);
    }
    const mount = { device, kv, lock, scanned, note, superblock, record, staleCopies };
    return { ...mount, nonceUnsettled: false };
  } catch (error) {
    await kv?.close();
    lock.release();
    throw error;
  }
}

/** Order: note "formatting", metadata, superblocks, and at last (by the caller) note "ready". */
async function format(
  options: MountOptions,
  found: {
    readonly access: DeviceAccess;
    readonly copies: readonly SuperblockCopy[];
    readonly notes: readonly DiskNote[];
  },
): Promise<Superblock> {
  const { access, copies, notes } = found;
  const { home, path } = options;
  const leftOvers = notes.filter((note) => note.path === path);
  const was = leftOvers.find((note) => note.state === 'ready');
  if (copies.some((copy) => copy.kind === 'damaged') && leftOvers.length === 0) {
    throw refusal(options, 'CORRUPT_METADATA', 'has no superblock that is whole');
  }
  if (was !== undefined) {
    const damaged = copies.some((copy) => copy.kind !== 'blank');
    if (damaged)
      throw refusal(options, 'CORRUPT_METADATA', `(${was.diskId}) has lost its superblocks`);
    throw gone(options, was, 'blank');
  }
  const ignoreSuperblocks = leftOvers.length > 0 && copies.every(({ kind }) => kind !== 'foreign');
  const at = await findContent(access, { ignoreSuperblocks });
  if (at !== undefined) {
    throw refusal(options, 'DISK_NOT_EMPTY', `holds something at byte ${at}`, {
      hint: `if it is not needed: blkdiscard or dd zeroes over it, then try again`,
    });
  }
  if (mayNotFormat(options)) throw refusal(options, 'DISK_MISMATCH', 'is not formatted');
  for (const note of leftOvers) await home.remove(note.diskId);
  return await formatBlank(options, access);
}

async function formatBlank(options: MountOptions, access: DeviceAccess): Promise<Superblock> {
  const { home, path, randomBytes } = options;
  const diskId = `disk-${randomBytes(8).toString('hex')}`;
  const pairId = randomBytes(16).toString('hex');
  const nonce: Nonce = { value: randomBytes(16).toString('hex'), count: 1 };
  await home.put({ diskId, path, state: 'formatting' });
  const kv = await options.openKv(home.kvDirectory(diskId), { create: true });
  try {
    const batch = new BatchBuilder(new Map());
    const record: DiskRecord = { diskId, pairId, nonce, intent: undefined, nextReplicaNumber: 1 };
    batch.put(0, DISK_KEY, diskRecordBody(record), undefined);
    batch.finish(undefined);
    await kv.batch(batch.ops, { sync: true });
  } finally {
    await kv.close();
  }
  // The directory of the new database, before anything relies on it (R7).
  await home.put({ diskId, path, state: 'formatting' });
  const superblock: Superblock = {
    version: FORMAT_VERSION,
    ...{ clusterId: options.identity.clusterId, daemonId: options.identity.daemonId },
    ...{ diskId, pairId, nonce: nonce.value, nonceCount: nonce.count },
    sizeBytes: access.device.sizeBytes,
  };
  await writeSuperblocks(access, superblock);
  return superblock;
}

function mayNotFormat({ purpose }: MountOptions): boolean {
  return purpose === 'reuse' || purpose === 'inspect';
}

function gone(options: MountOptions, was: DiskNote, now: string): StorageError {
  return refusal(options, 'DISK_MISMATCH', `was disk ${was.diskId} and is ${now} now`, {
    disk: was.diskId,
    hint: `bring the disk back; if it is lost for good, remove the metadata folder ${was.diskId}`,
  });
}

function refusal(
  options: MountOptions,
  code: StorageError['code'],
  text: string,
  details: { disk?: string; hint?: string } = {},
): StorageError {
  return new StorageError(code, `disk ${options.path} ${text}`, { path: options.path, ...details });
}
