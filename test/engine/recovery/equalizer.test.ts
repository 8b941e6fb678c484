import { describe, expect, it } from 'vitest';
import { BLOCK_SIZE, EXTENT_SIZE } from '../../../common/units.js';
import { Equalizer, type SourceFacts } from '../../../engine/recovery/equalizer.js';
import { crc32cVerify } from '../../../native/index.js';
import { IO_OP } from '../../../proto/io-codec.js';
import { EngineBed as Bed, outcome, SIZE, turns } from '../../support/engine-bed.js';

/** `+` nothing wrong, `d` restarted with dirty regions, `l` power was lost. */
function factsOf(kinds: string): SourceFacts[] {
  return [...kinds].map((kind, n) => ({
    replicaId: 'abcd'[n] as string,
    lossy: kind === 'l',
    restartedDirty: kind !== '+',
  }));
}

async function makeBed(kinds: string) {
  const bed = new Bed(kinds.length);
  await turns(3);
  const copied: number[] = [];
  const equalizer = new Equalizer({
    table: bed.table,
    members: factsOf(kinds),
    volumeBytes: () => SIZE,
    verifyBlocks: crc32cVerify,
    onCopied: (bytes) => copied.push(bytes),
  });
  return { bed, equalizer, copied };
}

/** Each member has its own number in the blocks `from` to `to` of the volume. */
function differ(bed: Bed, from: number, to: number): void {
  for (const [n, r] of bed.replicas.entries()) {
    r.bytes.fill(n + 1, from * BLOCK_SIZE, to * BLOCK_SIZE);
  }
}

const gone = (bed: Bed, index: number): void => bed.replicas[index]?.cut();

describe('the source (R1, P10)', () => {
  it.each([
    { name: 'the first of equally good ones', kinds: '+++', source: 'a' },
    { name: 'one whose daemon lived, before one that restarted', kinds: 'd+d', source: 'b' },
    { name: 'one that restarted, before one that lost power', kinds: 'lld', source: 'c' },
    { name: 'one that lost power, when all did', kinds: 'll', source: 'a' },
    { name: 'none but the next best when the best has gone', kinds: '+dl', lost: 0, source: 'b' },
    { name: 'the same one when another has gone', kinds: 'd+d', lost: 0, source: 'b' },
  ])('is $name', async ({ kinds, lost, source }) => {
    const { bed, equalizer } = await makeBed(kinds);
    if (lost !== undefined) gone(bed, lost);
    expect(equalizer.source()?.replicaId).toBe(source);
  });

  it.each([
    { name: 'the only one that kept its power', kinds: '+ll', who: 'a', needed: true },
    { name: 'one of two that kept it', kinds: '++l', who: 'a', needed: false },
    {
      name: 'one that restarted is as good as one that lived',
      kinds: 'dl',
      who: 'a',
      needed: true,
    },
    { name: 'one that lost power itself', kinds: 'll', who: 'a', needed: false },
    { name: 'the last one: without it nobody is left anyway', kinds: '+', who: 'a', needed: false },
    { name: 'one that was no member at the start', kinds: '+l', who: 'x', needed: false },
  ])('P10: needed is $name: $needed', async ({ kinds, who, needed }) => {
    const { equalizer } = await makeBed(kinds);
    expect(equalizer.needs(who)).toBe(needed);
  });

  it('P10: what counts is who is in-sync now', async () => {
    const { bed, equalizer } = await makeBed('++l');
    gone(bed, 1);
    expect(equalizer.needs('a')).toBe(true);
  });
});

describe('equal, and flushed (P5, R2)', () => {
  it('all get what the source has, only what differs travels, then all are flushed', async () => {
    const { bed, equalizer, copied } = await makeBed('d+d');
    differ(bed, 3, 5);
    differ(bed, 300, 301);
    await equalizer.equalize([0, 1]);
    bed.expectEqualCopies();
    expect(bed.replicas[0]?.bytes[3 * BLOCK_SIZE]).toBe(2);
    expect(copied.reduce((a, b) => a + b)).toBe(2 * 3 * BLOCK_SIZE);
    expect(bed.replicas.map((r) => r.seen.at(-1)?.op)).toEqual(Array(3).fill(IO_OP.FLUSH));
  });

  it('blocks that only one has, or only the source has not, are made equal', async () => {
    const { bed, equalizer } = await makeBed('++');
    bed.replicas[0]?.bytes.fill(7, 0, BLOCK_SIZE);
    bed.replicas[1]?.bytes.fill(8, BLOCK_SIZE, 2 * BLOCK_SIZE);
    await equalizer.equalize([0]);
    bed.expectEqualCopies();
    expect([0, BLOCK_SIZE].map((at) => bed.replicas[1]?.bytes[at])).toEqual([7, 0]);
  });

  it('the last extent ends with the volume; extents past it are nothing', async () => {
    const { bed, equalizer } = await makeBed('++');
    differ(bed, SIZE / BLOCK_SIZE - 1, SIZE / BLOCK_SIZE);
    await equalizer.equalize([SIZE / EXTENT_SIZE - 1, SIZE / EXTENT_SIZE, 9_999]);
    bed.expectEqualCopies();
  });

  it('with one member there is nothing to do', async () => {
    const { bed, equalizer } = await makeBed('l');
    await equalizer.equalize([0]);
    expect(bed.replicas[0]?.seen).toEqual([]);
  });

  it('a member that breaks in between fails the call; without it the rest is equal', async () => {
    const { bed, equalizer } = await makeBed('+++');
    differ(bed, 0, 2);
    bed.replicas[1]?.hold(true);
    const work = outcome(equalizer.equalize([0]));
    await turns(3);
    gone(bed, 1);
    expect(await work).toBe('UNAVAILABLE');
    await equalizer.equalize([0]);
    expect(bed.replicas[2]?.bytes.equals(bed.replicas[0]?.bytes ?? Buffer.alloc(0))).toBe(true);
  });
});

describe('members that cannot do their part', () => {
  it('scenario 43: a block that the source cannot read comes from the next as good', async () => {
    const { bed, equalizer } = await makeBed('+++');
    differ(bed, 0, 2);
    bed.replicas[0]?.copy.unreadable.add(0);
    await equalizer.equalize([0]);
    bed.expectEqualCopies();
    expect(bed.replicas[0]?.bytes[0]).toBe(2);
    expect(bed.replicas[0]?.copy.unreadable.size).toBe(0);
  });

  it('P10: it never comes from one that may lack acknowledged writes', async () => {
    const { bed, equalizer } = await makeBed('+l');
    differ(bed, 0, 2);
    bed.replicas[0]?.copy.unreadable.add(0);
    expect(await outcome(equalizer.equalize([0]))).toBe('CORRUPT_BLOCK');
    expect(bed.replicas[1]?.bytes[0]).toBe(2);
    expect(bed.set.healthy()).toEqual(['a', 'b']);
  });

  it('a block that a target cannot read is written anew', async () => {
    const { bed, equalizer } = await makeBed('++');
    bed.replicas[1]?.copy.unreadable.add(BLOCK_SIZE);
    await equalizer.equalize([0]);
    expect(bed.replicas[1]?.copy.unreadable.size).toBe(0);
  });

  it.each([
    { name: 'has no space for it', op: IO_OP.REPLACE, code: 'NO_SPACE' as const },
    { name: 'cannot write', op: IO_OP.REPLACE, code: 'IO_ERROR' as const },
    { name: 'has failed', op: IO_OP.HASH, code: 'REPLICA_FAILED' as const },
    { name: 'cannot flush', op: IO_OP.FLUSH, code: 'IO_ERROR' as const },
  ])('a target that $name leaves, instead of holding up all others', async ({ op, code }) => {
    const { bed, equalizer } = await makeBed('+++');
    differ(bed, 0, 2);
    bed.replicas[1]?.refuse(op, code);
    expect(await outcome(equalizer.equalize([0]))).toBe(code);
    await bed.keeper.changed();
    expect(bed.set.healthy()).toEqual(['a', 'c']);
    await equalizer.equalize([0]);
    expect(bed.replicas[2]?.bytes.equals(bed.replicas[0]?.bytes ?? Buffer.alloc(0))).toBe(true);
  });

  it('a member that is only overloaded stays', async () => {
    const { bed, equalizer } = await makeBed('++');
    bed.replicas[1]?.refuse(IO_OP.HASH, 'OVERLOADED');
    expect(await outcome(equalizer.equalize([0]))).toBe('OVERLOADED');
    expect(bed.set.healthy()).toEqual(['a', 'b']);
  });
});
