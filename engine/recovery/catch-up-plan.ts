/**
 * What a member that was away needs, from what it and an in-sync member say of their regions and
 * extents (P2, P6). Pure.
 *
 * Proofs of equality, and there are no others: two regions that are clean and carry one tag; two
 * extents that are clean and carry one tag; both absent. A tag is given once, by a clean in which
 * every member that carries it took part, or that adopted it after it was made equal.
 */
import type { ExtentInfo, RegionInfo, Tag } from '../../proto/control.js';

/** copy: one of the two has nothing there. compare: both have something. What is there now is
 *  looked at again under the lock: the extents of two members are never listed at the same time. */
export interface ExtentWork {
  readonly extent: number;
  readonly kind: 'copy' | 'compare';
}

const NEVER: Tag = { epoch: 0, counter: 0 };

const sameTag = (a: Tag, b: Tag): boolean => a.epoch === b.epoch && a.counter === b.counter;
const isTag = (tag: Tag): boolean => !sameTag(tag, NEVER);

/** Regions, ascending, that are not proved equal. Regions that a member leaves out are clean, were
 *  never cleaned and hold nothing. */
export function regionsToVisit(
  source: readonly RegionInfo[],
  target: readonly RegionInfo[],
): number[] {
  const theirs = new Map(target.map((region) => [region.number, region]));
  const numbers = new Set([...source, ...target].map((region) => region.number));
  const ours = new Map(source.map((region) => [region.number, region]));
  return [...numbers]
    .filter((number) => !regionsEqual(ours.get(number), theirs.get(number)))
    .sort((a, b) => a - b);
}

function regionsEqual(a: RegionInfo | undefined, b: RegionInfo | undefined): boolean {
  if (a?.dirty === true || b?.dirty === true) return false;
  if ((a?.allocatedExtents ?? 0) === 0 && (b?.allocatedExtents ?? 0) === 0) return true;
  return a !== undefined && b !== undefined && isTag(a.tag) && sameTag(a.tag, b.tag);
}

/** Extents of one region that are not proved equal, ascending. */
export function extentsToVisit(
  source: readonly ExtentInfo[],
  target: readonly ExtentInfo[],
): ExtentWork[] {
  const ours = new Map(source.map((extent) => [extent.number, extent]));
  const theirs = new Map(target.map((extent) => [extent.number, extent]));
  const numbers = [...new Set([...ours.keys(), ...theirs.keys()])].sort((a, b) => a - b);
  return numbers.flatMap((extent) => {
    const kind = workOf(ours.get(extent), theirs.get(extent));
    return kind === undefined ? [] : [{ extent, kind }];
  });
}

function workOf(
  a: ExtentInfo | undefined,
  b: ExtentInfo | undefined,
): ExtentWork['kind'] | undefined {
  const [inSource, inTarget] = [a?.allocated === true, b?.allocated === true];
  if (!inSource && !inTarget) return undefined;
  if (!inSource || !inTarget) return 'copy';
  if (a === undefined || b === undefined) return 'compare';
  const proved = !a.written && !b.written && isTag(a.tag) && sameTag(a.tag, b.tag);
  return proved ? undefined : 'compare';
}
