import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { extentsToVisit, regionsToVisit } from '../../../engine/recovery/catch-up-plan.js';
import type { ExtentInfo, RegionInfo, Tag } from '../../../proto/control.js';

const tag = fc.record({ epoch: fc.nat({ max: 2 }), counter: fc.nat({ max: 2 }) });

const listOf = <T extends { readonly number: number }>(item: fc.Arbitrary<T>) =>
  fc
    .uniqueArray(item, { selector: ({ number }) => number, maxLength: 8 })
    .map((items) => items.sort((a, b) => a.number - b.number));

const regions: fc.Arbitrary<RegionInfo[]> = listOf(
  fc.record({
    number: fc.nat({ max: 7 }),
    dirty: fc.boolean(),
    allocatedExtents: fc.constantFrom(0, 0, 3),
    tag,
  }),
);

const extents: fc.Arbitrary<ExtentInfo[]> = listOf(
  fc.record({ number: fc.nat({ max: 7 }), allocated: fc.boolean(), written: fc.boolean(), tag }),
);

const named = (a: Tag, b: Tag): boolean =>
  a.epoch + a.counter > 0 && a.epoch === b.epoch && a.counter === b.counter;

describe('what a member needs (P2)', () => {
  it('visits every region but those that are proved equal: clean with one tag, or empty', () => {
    fc.assert(
      fc.property(regions, regions, (source, target) => {
        const empty = { dirty: false, allocatedExtents: 0, tag: { epoch: 0, counter: 0 } };
        const want: number[] = [];
        for (let number = 0; number < 8; number += 1) {
          const a = source.find((r) => r.number === number) ?? { ...empty, number };
          const b = target.find((r) => r.number === number) ?? { ...empty, number };
          const nothing = a.allocatedExtents + b.allocatedExtents === 0;
          const proved = !a.dirty && !b.dirty && (nothing || named(a.tag, b.tag));
          if (!proved) want.push(number);
        }
        expect(regionsToVisit(source, target)).toEqual(want);
      }),
      { numRuns: 500 },
    );
  });

  it('visits every extent but those that are proved equal; compares only what both have', () => {
    fc.assert(
      fc.property(extents, extents, (source, target) => {
        const want: Array<[number, string]> = [];
        for (let number = 0; number < 8; number += 1) {
          const a = source.find((e) => e.number === number);
          const b = target.find((e) => e.number === number);
          if (a?.allocated !== true && b?.allocated !== true) continue;
          const both = a?.allocated === true && b?.allocated === true;
          if (both && !a.written && !b.written && named(a.tag, b.tag)) continue;
          want.push([number, both ? 'compare' : 'copy']);
        }
        const got = extentsToVisit(source, target).map(({ extent, kind }) => [extent, kind]);
        expect(got).toEqual(want);
      }),
      { numRuns: 500 },
    );
  });

  it.each([
    { name: 'never cleaned on either: no tag proves nothing', tag: { epoch: 0, counter: 0 }, n: 1 },
    { name: 'one tag on both', tag: { epoch: 3, counter: 1 }, n: 0 },
  ])('an extent that both have, $name', ({ tag: own, n }) => {
    const list = [{ number: 5, allocated: true, written: false, tag: own }];
    expect(extentsToVisit(list, list)).toHaveLength(n);
  });
});
