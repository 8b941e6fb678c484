/** Plans: made from a seed, within the volume, the same again from a file. */
import { describe, expect, it } from 'vitest';
import { BLOCK_SIZE } from '../../../common/units.js';
import { MIXES, mixNamed } from '../faults/mixes.js';
import { makePlan, parsePlan, planText } from './plan.js';

const OPERATIONS = 300;

describe.each(MIXES)('a plan of mix $name', (mix) => {
  const plans = Array.from({ length: 40 }, (_, seed) =>
    makePlan(seed, mix, { operations: OPERATIONS }),
  );

  it('is made from its seed alone, and another one from another seed', () => {
    const [plan] = plans;
    expect(makePlan(0, mix, { operations: OPERATIONS })).toEqual(plan);
    expect(new Set(plans.map(planText)).size).toBe(plans.length);
  });

  it('keeps to the cells that are there and to its clients', () => {
    for (const { topology, operations } of plans) {
      expect(operations.length).toBe(OPERATIONS);
      const blocks = topology.windows.reduce((sum, window) => sum + window.blocks, 0);
      const cells = blocks * topology.cuts.length;
      for (const { first, count, client, place } of operations) {
        expect(first).toBeGreaterThanOrEqual(0);
        expect(first + count).toBeLessThanOrEqual(cells);
        expect(client).toBeLessThan(topology.clients);
        expect(operations[place]?.place).toBe(place);
      }
    }
  });

  it('has windows of whole blocks that do not overlap, inside the volume', () => {
    for (const { windows, volumeBytes } of plans.map(({ topology }) => topology)) {
      let end = 0;
      for (const { firstBlock, blocks } of windows) {
        expect(firstBlock).toBeGreaterThanOrEqual(end);
        expect(blocks).toBeGreaterThan(0);
        end = firstBlock + blocks;
      }
      expect(end * BLOCK_SIZE).toBeLessThanOrEqual(volumeBytes);
    }
  });

  it('has as many faults as the mix allows, of its kinds, in order', () => {
    for (const { faults } of plans) {
      expect(faults.length).toBeLessThanOrEqual(mix.faults[1]);
      const places = faults.map(({ afterOperations }) => afterOperations);
      expect(places).toEqual([...places].sort((a, b) => a - b));
      for (const { act } of faults) expect(mix.kinds).toContain(act.kind);
    }
  });

  it('is the same when it was written and read', () => {
    for (const plan of plans) expect(parsePlan(planText(plan))).toEqual(plan);
  });
});

it('every kind of fault of a mix is drawn by some seed', () => {
  for (const mix of MIXES) {
    const drawn = new Set(
      Array.from({ length: 300 }, (_, seed) =>
        makePlan(seed, mix, { operations: 10 }).faults.map(({ act }) => act.kind),
      ).flat(),
    );
    expect([mix.name, drawn]).toEqual([mix.name, new Set(mix.kinds)]);
  }
});

it('a mix that is not there is refused by the names of those that are', () => {
  expect(() => mixNamed('storm')).toThrow('mix storm is none of calm, ');
});
