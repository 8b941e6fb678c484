/**
 * Offline comparison of the copies of one volume on stopped disks, block by block.
 *
 * Holds the same locks as a daemon, changes nothing on the disks and not their nonce. Absent blocks
 * are zeroes. Checksums are verified where they must be true: in clean regions, and everywhere on a
 * replica that was closed in order.
 */
import { randomBytes } from 'node:crypto';
import type { BlockDevice, BufferPool } from '../common/block-device.js';
import { StorageError, toStorageError } from '../common/errors.js';
import type { Logger } from '../common/log.js';
import { BLOCK_SIZE, EXTENT_SIZE, EXTENTS_PER_REGION } from '../common/units.js';
import { openBlockDevice } from '../native/index.js';
import type { DiskIdentity } from './disk/disk.js';
import { type InspectedReplica, inspectDisk } from './disk/inspection.js';
import { DirectoryMetaHome, type MetaHome } from './disk/meta-home.js';
import type { StoredRead } from './replica-store.js';
import type { OpenKv } from './store/kv.js';
import { openLevelKv } from './store/level-kv.js';

export interface CompareDisk {
  readonly path: string;
  /** directory of the disk's metadata, as in DiskOptions */
  readonly metaDir: string;
  readonly identity: DiskIdentity;
  readonly home?: MetaHome;
}

export interface CompareOptions {
  readonly volume: string;
  /** at least one; disks without the volume are left out and named in the report */
  readonly disks: readonly CompareDisk[];
  readonly pool: BufferPool;
  readonly log: Logger;
  /** differences and bad blocks that are listed, not only counted; default 20 */
  readonly listMax?: number;
  readonly onProgress?: (progress: { doneBytes: number; totalBytes: number }) => void;
  readonly openDevice?: (path: string) => Promise<BlockDevice>;
  readonly openKv?: OpenKv;
}

export interface ComparedCopy {
  readonly path: string;
  readonly replicaId: string;
  readonly sizeBytes: number;
  readonly allocatedBytes: number;
  readonly dirtyRegions: number;
  readonly epoch: number;
  readonly generation: number;
  /** blocks that are not what their checksum says */
  badBlocks: number;
}

export interface CompareDifference {
  readonly offsetBytes: number;
  /** paths of the copies, grouped by equal content */
  readonly groups: readonly (readonly string[])[];
}

export interface CompareReport {
  readonly volume: string;
  /** every copy equals every other one and no block is bad */
  readonly identical: boolean;
  readonly copies: readonly ComparedCopy[];
  /** disks that hold no copy of the volume */
  readonly without: readonly string[];
  readonly comparedBytes: number;
  readonly differentBlocks: number;
  /** the first ones */
  readonly differences: readonly CompareDifference[];
  readonly badBlocks: ReadonlyArray<{ readonly path: string; readonly offsetBytes: number }>;
}

interface Copy {
  readonly report: ComparedCopy;
  readonly replica: InspectedReplica;
}

interface Findings {
  readonly differences: CompareDifference[];
  readonly badBlocks: Array<{ path: string; offsetBytes: number }>;
  differentBlocks: number;
}

/** @throws StorageError NOT_FOUND (no disk has the volume) | CONFLICT (sizes differ) | any reason
 *    of openDisk | IO_ERROR */
export async function compareReplicas(options: CompareOptions): Promise<CompareReport> {
  const copies: Copy[] = [];
  const without: string[] = [];
  const close: Array<() => Promise<void>> = [];
  try {
    for (const disk of options.disks) {
      const inspection = await inspectDisk({
        path: disk.path,
        identity: disk.identity,
        home: disk.home ?? new DirectoryMetaHome(disk.metaDir),
        pool: options.pool,
        log: options.log,
        openDevice: options.openDevice ?? openForReading,
        openKv: options.openKv ?? openLevelKv,
        randomBytes,
      });
      close.push(() => inspection.close());
      const replica = inspection.open(options.volume);
      if (replica === undefined) without.push(disk.path);
      else copies.push({ replica, report: reportOf(disk.path, replica) });
    }
    return await compareCopies(options, copies, without);
  } finally {
    for (const end of close) await end();
  }
}

function openForReading(path: string): Promise<BlockDevice> {
  return openBlockDevice(path, { exclusive: true, readOnly: true });
}

function reportOf(path: string, replica: InspectedReplica): ComparedCopy {
  const { replicaId, sizeBytes, epoch, membership } = replica.record;
  return {
    ...{ path, replicaId, sizeBytes, epoch, generation: membership.generation },
    allocatedBytes: replica.store.allocatedBytes,
    dirtyRegions: replica.store.dirtyRegions().length,
    badBlocks: 0,
  };
}

async function compareCopies(
  options: CompareOptions,
  copies: readonly Copy[],
  without: readonly string[],
): Promise<CompareReport> {
  const { volume } = options;
  const sizeBytes = copies[0]?.report.sizeBytes;
  if (sizeBytes === undefined) {
    throw new StorageError('NOT_FOUND', `no disk holds a copy of volume ${volume}`, { volume });
  }
  if (copies.some(({ report }) => report.sizeBytes !== sizeBytes)) {
    const sizes = copies.map(({ report }) => `${report.path}: ${report.sizeBytes}`).join(', ');
    throw new StorageError('CONFLICT', `copies of volume ${volume} differ in size: ${sizes}`);
  }
  const findings: Findings = { differences: [], badBlocks: [], differentBlocks: 0 };
  for (let at = 0; at < sizeBytes; at += EXTENT_SIZE) {
    const lengthBytes = Math.min(EXTENT_SIZE, sizeBytes - at);
    await compareExtent(copies, { at, lengthBytes, listMax: options.listMax ?? 20 }, findings);
    options.onProgress?.({ doneBytes: at + lengthBytes, totalBytes: sizeBytes });
  }
  const bad = copies.reduce((sum, { report }) => sum + report.badBlocks, 0);
  return {
    volume,
    identical: findings.differentBlocks === 0 && bad === 0,
    copies: copies.map(({ report }) => report),
    without,
    comparedBytes: sizeBytes,
    ...findings,
  };
}

async function compareExtent(
  copies: readonly Copy[],
  range: { readonly at: number; readonly lengthBytes: number; readonly listMax: number },
  findings: Findings,
): Promise<void> {
  const reads: StoredRead[] = [];
  try {
    for (const { replica, report } of copies) {
      const read = await replica.store.read(range.at, range.lengthBytes, { raw: true });
      reads.push(read);
      if (read.data === undefined || !mustBeTrue(replica, range.at)) continue;
      for (const block of await badBlocksOf(replica, range)) {
        report.badBlocks += 1;
        if (findings.badBlocks.length >= range.listMax) continue;
        findings.badBlocks.push({ path: report.path, offsetBytes: range.at + block * BLOCK_SIZE });
      }
    }
    if (reads.every(({ data }) => data === undefined)) return;
    for (let block = 0; block * BLOCK_SIZE < range.lengthBytes; block += 1) {
      const groups = groupsOf(copies, reads, block);
      if (groups.length < 2) continue;
      findings.differentBlocks += 1;
      if (findings.differences.length >= range.listMax) continue;
      findings.differences.push({ offsetBytes: range.at + block * BLOCK_SIZE, groups });
    }
  } finally {
    for (const { data } of reads) data?.release();
  }
}

function mustBeTrue(replica: InspectedReplica, offsetBytes: number): boolean {
  const region = Math.floor(offsetBytes / EXTENT_SIZE / EXTENTS_PER_REGION);
  return replica.closedInOrder || !replica.dirtyRegions.has(region);
}

async function badBlocksOf(
  replica: InspectedReplica,
  range: { readonly at: number; readonly lengthBytes: number },
): Promise<number[]> {
  const bad: number[] = [];
  for (let from = 0; from < range.lengthBytes; ) {
    try {
      const read = await replica.store.read(range.at + from, range.lengthBytes - from);
      read.data?.release();
      return bad;
    } catch (error) {
      const failure = toStorageError(error, 'verify');
      const { badBlock } = failure.details;
      if (failure.code !== 'CORRUPT_BLOCK' || typeof badBlock !== 'number') throw failure;
      bad.push(from / BLOCK_SIZE + badBlock);
      from += (badBlock + 1) * BLOCK_SIZE;
    }
  }
  return bad;
}

/** Paths by equal content of one block. */
function groupsOf(
  copies: readonly Copy[],
  reads: readonly StoredRead[],
  block: number,
): string[][] {
  const groups: Array<{ content: Buffer | undefined; paths: string[] }> = [];
  for (const [index, { report }] of copies.entries()) {
    const content = reads[index]?.data?.bytes.subarray(
      block * BLOCK_SIZE,
      (block + 1) * BLOCK_SIZE,
    );
    const same = groups.find((group) => (group.content ?? ZEROES).equals(content ?? ZEROES));
    if (same === undefined) groups.push({ content, paths: [report.path] });
    else same.paths.push(report.path);
  }
  return groups.map(({ paths }) => paths);
}

const ZEROES = Buffer.alloc(BLOCK_SIZE);
