/** Judges one range from the hashes of all in-sync members: which blocks are bad where, and who is
 *  right. Pure. */
import { BLOCK_SIZE } from '../../common/units.js';
import { HASH_BYTES } from '../../proto/io-codec.js';
import type { RangeHashes } from '../recovery/member-io.js';

export interface MemberHashes {
  readonly replicaId: string;
  readonly found: RangeHashes;
}

/** bad: content is not as its checksum says, and a good copy exists.
 *  divergent: every checksum is right and the contents differ; the majority is taken for right.
 *  undecided: as divergent, without a majority.
 *  lost: bad on every member. */
export type FindingKind = 'bad' | 'divergent' | 'undecided' | 'lost';

export interface Finding {
  readonly kind: FindingKind;
  readonly offsetBytes: number;
  /** members to be mended; for undecided and lost: all that take part */
  readonly members: readonly string[];
}

/** @param offsetBytes of the range. Findings ascend. */
export function judgeRange(offsetBytes: number, members: readonly MemberHashes[]): Finding[] {
  const blocks = (members[0]?.found.hashes.length ?? 0) / HASH_BYTES;
  const findings: Finding[] = [];
  for (let block = 0; block < blocks; block += 1) {
    const finding = judgeBlock(block, members);
    if (finding === undefined) continue;
    findings.push({ ...finding, offsetBytes: offsetBytes + block * BLOCK_SIZE });
  }
  return findings;
}

function judgeBlock(
  block: number,
  members: readonly MemberHashes[],
): Omit<Finding, 'offsetBytes'> | undefined {
  const isBad = ({ found }: MemberHashes): boolean =>
    ((found.bad[block >> 3] ?? 0) & (1 << (block & 7))) !== 0;
  const good = members.filter((member) => !isBad(member));
  const bad = members.filter(isBad).map((member) => member.replicaId);
  if (good.length === 0) return members.length === 0 ? undefined : { kind: 'lost', members: bad };
  const groups = new Map<string, string[]>();
  for (const { replicaId, found } of good) {
    const at = block * HASH_BYTES;
    const hash = found.hashes.toString('latin1', at, at + HASH_BYTES);
    groups.set(hash, [...(groups.get(hash) ?? []), replicaId]);
  }
  if (groups.size === 1) return bad.length === 0 ? undefined : { kind: 'bad', members: bad };
  const bySize = [...groups.values()].sort((a, b) => b.length - a.length);
  const [first, second] = bySize;
  const decided = (first?.length ?? 0) > (second?.length ?? 0);
  if (!decided) return { kind: 'undecided', members: good.map((member) => member.replicaId) };
  return { kind: 'divergent', members: [...bySize.slice(1).flat(), ...bad] };
}
