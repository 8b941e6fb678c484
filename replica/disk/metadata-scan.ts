/**
 * Reads all metadata of a disk at open: replicas, maps, dirty marks, used extents, and proves that
 * nothing is missing.
 *
 * A replica whose records are damaged, incomplete or contradictory is kept with the reason; it
 * cannot be opened, only deleted. It is never taken for an empty one. Damage of the disk's own
 * records refuses the disk.
 */
import { StorageError } from '../../common/errors.js';
import { EXTENT_SIZE, REGION_SIZE } from '../../common/units.js';
import { ExtentMap } from '../store/extent-map.js';
import { EXTENT_FORMAT, PHYSICAL_AT, RECORD_BYTES } from '../store/extent-record.js';
import {
  DISK_KEY,
  dirtyMarkRange,
  extentRange,
  HEAD_LAYER,
  parseExtentKey,
  parseNumberKey,
  parseRegionKey,
  regionTagRange,
  replicaRange,
  sumRange,
} from '../store/keys.js';
import type { Kv, KvEntry, KvRange } from '../store/kv.js';
import { openTag, RegionTags } from '../store/region-tags.js';
import { checkSeal } from '../store/sealed-value.js';
import { StateSum } from '../store/state-sum.js';
import { ExtentSpace } from './extent-space.js';
import { parseStoredReplica, type StoredReplica } from './stored-replica.js';

export interface ScannedReplica {
  readonly number: number;
  record: StoredReplica;
  /** seal of the stored record */
  recordSeal: number;
  map: ExtentMap;
  dirtyRegions: number[];
  tags: RegionTags;
  /** why it cannot be opened */
  damage: string | undefined;
  /** `map`, `dirtyRegions` and `tags` may differ from the metadata: the replica failed while it was
   *  open */
  outdated: boolean;
  /** how often it was opened or reopened since the disk was mounted (P7) */
  loads: number;
}

export interface ScannedDisk {
  readonly replicas: Map<number, ScannedReplica>;
  /** what is stored, by scope: 0 is the disk */
  readonly sums: Map<number, StateSum>;
  readonly space: ExtentSpace;
  diskRecordSeal: number;
}

/** @param extents  how many the device holds
 *  @throws StorageError CORRUPT_METADATA (of the disk's own records) | IO_ERROR */
export async function scanDisk(kv: Kv, extents: number): Promise<ScannedDisk> {
  const value = await kv.get(DISK_KEY);
  const diskRecordSeal = value === undefined ? undefined : checkSeal(DISK_KEY, value);
  if (diskRecordSeal === undefined) throw corrupt('the disk record is missing or damaged');
  const space = new ExtentSpace(extents);
  const found = new Map<number, StateSum>([[0, new StateSum()]]);
  found.get(0)?.add(diskRecordSeal);
  const replicas = await scanReplicas(kv, found);
  const clashes: Clash[] = [];
  await scanExtents(kv, { range: extentRange(), replicas, found, space, clashes });
  await scanMarks(kv, { range: dirtyMarkRange(), replicas, found });
  await scanTags(kv, { range: regionTagRange(), replicas, found });
  await proveSums(kv, replicas, found);
  judgeClashes(replicas, clashes);
  return { replicas, sums: found, space, diskRecordSeal };
}

/** Reads the extents, marks and tags of one replica again; its physical extents stay as the disk
 *  has them.
 *  @throws StorageError CORRUPT_METADATA | IO_ERROR */
export async function rescanReplica(kv: Kv, replica: ScannedReplica): Promise<void> {
  const fresh: ScannedReplica = {
    ...replica,
    map: new ExtentMap(replica.map.extents),
    dirtyRegions: [],
    tags: new RegionTags(),
    damage: undefined,
  };
  const replicas = new Map([[replica.number, fresh]]);
  const found = new Map<number, StateSum>();
  const context = { replicas, found };
  await scanExtents(kv, { ...context, range: extentRange(replica.number), clashes: [] });
  await scanMarks(kv, { ...context, range: dirtyMarkRange(replica.number) });
  await scanTags(kv, { ...context, range: regionTagRange(replica.number) });
  if (fresh.damage !== undefined) throw corrupt(fresh.damage);
  replica.map = fresh.map;
  replica.dirtyRegions = fresh.dirtyRegions;
  replica.tags = fresh.tags;
  replica.outdated = false;
}

interface ScanTarget {
  readonly range: KvRange;
  readonly replicas: Map<number, ScannedReplica>;
  readonly found: Map<number, StateSum>;
}

/** A physical extent that a second record names. */
interface Clash {
  readonly physical: number;
  readonly number: number;
}

async function scanReplicas(
  kv: Kv,
  found: Map<number, StateSum>,
): Promise<Map<number, ScannedReplica>> {
  const replicas = new Map<number, ScannedReplica>();
  for await (const entries of kv.iterate(replicaRange())) {
    for (const [key, value] of entries) {
      const number = parseNumberKey(key);
      const recordSeal = checkSeal(key, value);
      if (number === undefined || recordSeal === undefined)
        throw corrupt('a replica record is damaged');
      const record = parseStoredReplica(key, value);
      const map = new ExtentMap(Math.ceil(record.sizeBytes / EXTENT_SIZE));
      found.get(0)?.add(recordSeal);
      found.set(number, new StateSum());
      replicas.set(number, {
        number,
        record,
        recordSeal,
        map,
        dirtyRegions: [],
        tags: new RegionTags(),
        damage: undefined,
        outdated: false,
        loads: 0,
      });
    }
  }
  return replicas;
}

async function scanExtents(
  kv: Kv,
  target: ScanTarget & { readonly space?: ExtentSpace; readonly clashes: Clash[] },
): Promise<void> {
  const { replicas, found, space, clashes } = target;
  for await (const entries of kv.iterate(target.range)) {
    for (const [key, value] of entries) {
      const parsed = parseExtentKey(key);
      const replica = parsed === undefined ? undefined : replicas.get(parsed.replicaNumber);
      if (parsed === undefined || replica === undefined) {
        throw corrupt('an extent record belongs to no replica');
      }
      const recordSeal = value.length === RECORD_BYTES ? checkSeal(key, value) : undefined;
      if (recordSeal === undefined || value[0] !== EXTENT_FORMAT || parsed.layer !== HEAD_LAYER) {
        replica.damage ??= `the record of extent ${parsed.extent} is damaged`;
        continue;
      }
      sumOf(found, replica.number).add(recordSeal);
      const physical = value.readUInt32LE(PHYSICAL_AT);
      if (
        parsed.extent >= replica.map.extents ||
        (space !== undefined && physical >= space.extents)
      ) {
        replica.damage ??= `extent ${parsed.extent} is at ${physical}, which is outside`;
        continue;
      }
      replica.map.set(parsed.extent, physical);
      if (space?.claim(physical) === false) clashes.push({ physical, number: replica.number });
    }
  }
}

async function scanMarks(kv: Kv, target: ScanTarget): Promise<void> {
  await scanRegions(kv, { ...target, what: 'dirty mark' }, (replica, region, [key, value]) => {
    const recordSeal = checkSeal(key, value);
    if (recordSeal !== undefined) replica.dirtyRegions.push(region);
    return recordSeal;
  });
}

async function scanTags(kv: Kv, target: ScanTarget): Promise<void> {
  await scanRegions(kv, { ...target, what: 'tag' }, (replica, region, [key, value]) => {
    const opened = openTag(key, value);
    if (opened !== undefined) replica.tags.set(region, opened.tag);
    return opened?.crc;
  });
}

/** @param take  keeps what one record says and returns its seal; undefined: it is damaged */
async function scanRegions(
  kv: Kv,
  target: ScanTarget & { readonly what: string },
  take: (replica: ScannedReplica, region: number, entry: KvEntry) => number | undefined,
): Promise<void> {
  const { replicas, found, what } = target;
  for await (const entries of kv.iterate(target.range)) {
    for (const entry of entries) {
      const parsed = parseRegionKey(entry[0]);
      const replica = parsed === undefined ? undefined : replicas.get(parsed.replicaNumber);
      if (parsed === undefined || replica === undefined) {
        throw corrupt(`the ${what} of a region belongs to no replica`);
      }
      const { region } = parsed;
      const inside = region * REGION_SIZE < replica.record.sizeBytes;
      const recordSeal = inside ? take(replica, region, entry) : undefined;
      if (recordSeal !== undefined) sumOf(found, replica.number).add(recordSeal);
      else replica.damage ??= `the ${what} of region ${region} is damaged`;
    }
  }
}

/** Compares what was found with the sums that were stored with the last change. */
async function proveSums(
  kv: Kv,
  replicas: Map<number, ScannedReplica>,
  found: Map<number, StateSum>,
): Promise<void> {
  const stored = new Map<number, StateSum>();
  for await (const entries of kv.iterate(sumRange())) {
    for (const [key, value] of entries) {
      const scope = parseNumberKey(key);
      const sum = StateSum.decode(key, value);
      if (scope !== undefined && sum !== undefined) stored.set(scope, sum);
    }
  }
  const complete = (scope: number): boolean =>
    sumOf(found, scope).equals(stored.get(scope) ?? new StateSum());
  if (!complete(0)) throw corrupt('records of the disk are missing or old');
  for (const replica of replicas.values()) {
    // A deletion that was interrupted leaves a part of the records.
    if (!replica.record.deleting && !complete(replica.number))
      replica.damage ??= 'records are missing or old';
  }
}

/** Two records name one physical extent: whoever is damaged otherwise is wrong; if none is, nobody
 *  can be believed. */
function judgeClashes(replicas: Map<number, ScannedReplica>, clashes: readonly Clash[]): void {
  for (const { physical, number } of clashes) {
    const claimants = [...replicas.values()].filter(
      ({ map, number: other }) => other === number || [...map.physicals()].includes(physical),
    );
    const sound = claimants.filter(({ damage }) => damage === undefined);
    if (sound.length === 1 && claimants.length > 1) continue;
    for (const replica of sound) replica.damage = `physical extent ${physical} is claimed twice`;
  }
}

function sumOf(sums: Map<number, StateSum>, scope: number): StateSum {
  let sum = sums.get(scope);
  if (sum === undefined) {
    sum = new StateSum();
    sums.set(scope, sum);
  }
  return sum;
}

function corrupt(text: string): StorageError {
  return new StorageError('CORRUPT_METADATA', text, { hint: 'replace the replicas of this disk' });
}
