import { describe, expect, it } from 'vitest';
import { BLOCK_SIZE } from '../../../common/units.js';
import { LinkTable } from '../../../engine/core/link-table.js';
import type { MissedWrites } from '../../../engine/core/missed-writes.js';
import type { ReplicaLink } from '../../../engine/core/replica-link.js';

const link = (replicaId: string): ReplicaLink => ({ replicaId }) as ReplicaLink;
const blocks = (missed: MissedWrites | undefined): string | undefined =>
  missed?.overflowed
    ? 'unknown'
    : missed
        ?.runs(0)
        .map((r) => `${r.first}+${r.count}`)
        .join();

describe('link table', () => {
  it('a link is in both lists, in `all` alone, or its member is away', () => {
    const table = new LinkTable();
    const [a, b] = [link('a'), link('b')];
    table.addAway('b');
    expect(table.add(a, true)).toBeUndefined();
    expect(blocks(table.add(b, false))).toBe('unknown');
    expect([table.isInSync(a), table.isInSync(b)]).toEqual([true, false]);
    expect(table.find('b')).toBe(b);
    table.promote(b);
    expect(table.inSync).toEqual([a, b]);
    expect(table.remove(a)).toBe(true);
    expect(table.remove(a)).toBe(false);
    expect([table.all, table.inSync, [...table.away.keys()]]).toEqual([[b], [b], ['a']]);
  });

  it('F2: a member misses what happens from the step on in which its link leaves', () => {
    const table = new LinkTable();
    const [a, b] = [link('a'), link('b')];
    table.add(a, true);
    table.add(b, true);
    table.noteMissed(0, BLOCK_SIZE);
    table.remove(b);
    table.noteMissed(BLOCK_SIZE, BLOCK_SIZE);
    table.noteMissedBy(b, 4 * BLOCK_SIZE, BLOCK_SIZE);
    expect(blocks(table.add(link('b'), false))).toBe('1+1,4+1');
    expect(table.away.size).toBe(0);
  });

  it('what it refused while it was here is the beginning of what it misses', () => {
    const table = new LinkTable();
    const b = link('b');
    table.add(b, true);
    table.noteMissedBy(b, 2 * BLOCK_SIZE, BLOCK_SIZE);
    expect(table.away.size).toBe(0);
    table.remove(b);
    table.noteMissedBy(b, 3 * BLOCK_SIZE, BLOCK_SIZE);
    const again = link('b');
    expect(blocks(table.add(again, false))).toBe('2+2');
    table.remove(again);
    expect(blocks(table.away.get('b'))).toBe('');
  });

  it('a late note for a link that was replaced finds nobody, for it was told at once', () => {
    const table = new LinkTable();
    const old = link('b');
    table.add(old, true);
    table.remove(old);
    const now = link('b');
    table.add(now, false);
    table.noteMissedBy(old, 0, BLOCK_SIZE);
    table.remove(now);
    expect(blocks(table.away.get('b'))).toBe('');
  });

  it('forgets everything at the end of a tenure', () => {
    const table = new LinkTable();
    const a = link('a');
    table.add(a, true);
    table.noteMissedBy(a, 0, BLOCK_SIZE);
    table.clear();
    expect([table.all, table.inSync, table.away.size]).toEqual([[], [], 0]);
    table.add(a, true);
    table.remove(a);
    expect(blocks(table.away.get('a'))).toBe('');
  });
});
