/** The control messages about regions and extents, between wire and domain. */
import { StorageError } from '../../common/errors.js';
import { checkName } from '../../common/names.js';
import { EXTENT_SIZE, EXTENTS_PER_REGION, VOLUME_SIZE_MAX } from '../../common/units.js';
import { aurochs } from '../generated/messages.js';
import { boundedList, inRange, safeNumber } from './checks.js';
import { codec, type Wire } from './codec.js';
import type * as m from './messages.js';

import v1 = aurochs.v1;

const EXTENTS_MAX = VOLUME_SIZE_MAX / EXTENT_SIZE;
const REGIONS_MAX = EXTENTS_MAX / EXTENTS_PER_REGION;
/** Regions in one answer. */
const REGIONS_LISTED_MAX = 4096;
const EXTENTS_LISTED = { max: EXTENTS_PER_REGION, what: 'extents' };

type Long = Wire<number | { low: number; high: number }>;

function subjectOf(wire: { volume?: Wire<string>; replicaId?: Wire<string>; epoch?: Long }) {
  return {
    volume: checkName(wire.volume ?? '', 'volume'),
    replicaId: checkName(wire.replicaId ?? '', 'replica id'),
    epoch: inRange(safeNumber(wire.epoch, 'epoch'), [1, Number.MAX_SAFE_INTEGER], 'epoch'),
  };
}

function regionOf(wire: Wire<number>): number {
  return inRange(wire ?? 0, [0, REGIONS_MAX - 1], 'region');
}

function tagOf(wire: Wire<v1.Tag.$Properties>): m.Tag {
  return {
    epoch: safeNumber(wire?.epoch, 'epoch of a tag'),
    counter: safeNumber(wire?.counter, 'counter of a tag'),
  };
}

function isNone({ epoch, counter }: m.Tag): boolean {
  return epoch === 0 && counter === 0;
}

function regionInfoOf(wire: v1.RegionInfo.$Properties): m.RegionInfo {
  return {
    number: regionOf(wire.number),
    dirty: wire.dirty ?? false,
    allocatedExtents: inRange(wire.allocatedExtents ?? 0, [0, EXTENTS_PER_REGION], 'extents'),
    tag: tagOf(wire.tag),
  };
}

function extentInfoOf(wire: v1.ExtentInfo.$Properties): m.ExtentInfo {
  return {
    number: inRange(wire.number ?? 0, [0, EXTENTS_MAX - 1], 'extent'),
    allocated: wire.allocated ?? false,
    written: wire.written ?? false,
    tag: tagOf(wire.tag),
  };
}

function cleanRegionOf(wire: v1.CleanRegionRequest.$Properties): m.CleanRegionRequest {
  const region = regionOf(wire.region);
  const tag = tagOf(wire.tag);
  const first = region * EXTENTS_PER_REGION;
  const extentTags = boundedList(wire.extentTags, EXTENTS_LISTED, (item): m.ExtentTag => {
    const extent = inRange(item.extent ?? 0, [first, first + EXTENTS_PER_REGION - 1], 'extent');
    const own = tagOf(item.tag);
    if (!isNone(own)) return { extent, tag: own };
    throw new StorageError('INVALID_ARGUMENT', `extent ${extent} has no tag`);
  });
  if (new Set(extentTags.map(({ extent }) => extent)).size < extentTags.length) {
    throw new StorageError('INVALID_ARGUMENT', `an extent of region ${region} is named twice`);
  }
  if (isNone(tag) && extentTags.length > 0) {
    throw new StorageError('INVALID_ARGUMENT', `region ${region} has extents and no tag`);
  }
  return { ...subjectOf(wire), region, tag, extentTags };
}

/** One codec per message type that is a request or a reply. */
export const REGION_CODECS = {
  listRegionsRequest: codec(
    v1.ListRegionsRequest,
    (wire): m.ListRegionsRequest => ({
      ...subjectOf(wire),
      firstRegion: regionOf(wire.firstRegion),
      count: inRange(wire.count ?? 0, [1, REGIONS_LISTED_MAX], 'count of regions'),
    }),
  ),
  listRegionsReply: codec(
    v1.ListRegionsReply,
    (wire): m.ListRegionsReply => ({
      regions: boundedList(
        wire.regions,
        { max: REGIONS_LISTED_MAX, what: 'regions' },
        regionInfoOf,
      ),
    }),
  ),
  listExtentsRequest: codec(
    v1.ListExtentsRequest,
    (wire): m.ListExtentsRequest => ({ ...subjectOf(wire), region: regionOf(wire.region) }),
  ),
  listExtentsReply: codec(
    v1.ListExtentsReply,
    (wire): m.ListExtentsReply => ({
      extents: boundedList(wire.extents, EXTENTS_LISTED, extentInfoOf),
    }),
  ),
  cleanRegionRequest: codec(v1.CleanRegionRequest, cleanRegionOf),
  cleanRegionReply: codec(v1.CleanRegionReply, (): m.CleanRegionReply => ({})),
};
