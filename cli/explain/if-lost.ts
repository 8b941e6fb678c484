/**
 * What would happen if some copies were lost now: told from the membership and the rules alone, so
 * that a person can ask before pulling a disk or restarting a host. Pure.
 */
import { StorageError } from '../../common/errors.js';
import type { EngineReplicaStatus, EngineStatus } from '../../proto/control.js';

export type Verdict =
  /** none of them is in use */
  | 'nothing'
  /** they are excluded, and I/O goes on with the others */
  | 'goes-on'
  /** I/O waits, then fails, until they are back */
  | 'waits'
  /** it does not serve now, and would not either */
  | 'stays-faulted';

export interface Consequence {
  readonly volume: string;
  readonly lost: readonly string[];
  /** in-sync copies that are left; of a faulted volume: of those that it needs */
  readonly left: readonly string[];
  readonly verdict: Verdict;
  /** what a client sees */
  readonly io: string;
  /** what a start of the engine would do while they are away (R4) */
  readonly start: string;
  readonly todo: readonly string[];
}

/** The daemon's silence is noticed after so long; a connection that ends, at once. */
const NOTICE_SECONDS = 8;

/** @param wanted  replica ids, addresses of daemons, or hosts of such addresses
 *  @throws StorageError NOT_FOUND naming what is there */
export function ifLost(status: EngineStatus, wanted: readonly string[]): Consequence {
  const lost = status.replicas.filter((replica) => wanted.some((name) => isNamed(replica, name)));
  for (const name of wanted) {
    if (!status.replicas.some((replica) => isNamed(replica, name))) throw unknown(status, name);
  }
  if (status.state === 'faulted') return whileFaulted(status, lost);
  const inUse = lost.filter((r) => r.state === 'in-sync');
  const left = status.replicas.filter((r) => r.state === 'in-sync' && !lost.includes(r));
  if (inUse.length === 0) return notInUse(status, lost, left);
  return left.length > 0 ? goesOn(status, lost, left) : waits(status, lost);
}

function isNamed({ replicaId, address }: EngineReplicaStatus, name: string): boolean {
  if (replicaId === name || address === name) return true;
  const host = address.startsWith('unix:') ? '' : address.replace(/:[0-9]+$/, '');
  return host !== '' && (host === name || host === `[${name}]`);
}

function unknown({ volume, replicas }: EngineStatus, name: string): StorageError {
  const known = replicas.map((r) => `${r.replicaId} (${r.address})`).join(', ');
  return new StorageError('NOT_FOUND', `volume ${volume} has no copy ${name}`, {
    volume,
    hint: `it has ${known || 'none'}`,
  });
}

const ids = (replicas: readonly EngineReplicaStatus[]): string[] =>
  replicas.map((r) => r.replicaId);

const list = (replicas: readonly EngineReplicaStatus[]): string => ids(replicas).join(', ');

const is = (replicas: readonly unknown[]): string => (replicas.length === 1 ? 'is' : 'are');

const does = (replicas: readonly unknown[]): string => (replicas.length === 1 ? 'does' : 'do');

const them = (replicas: readonly unknown[]): string => (replicas.length === 1 ? 'it' : 'them');

function notInUse(
  status: EngineStatus,
  lost: readonly EngineReplicaStatus[],
  left: readonly EngineReplicaStatus[],
): Consequence {
  const rebuilding = lost.filter((r) => r.state === 'rebuilding');
  const stops =
    rebuilding.length === 0
      ? ''
      : `; the catch-up of ${list(rebuilding)} stops, and goes on where it was later`;
  return {
    ...{ volume: status.volume, lost: ids(lost), left: ids(left), verdict: 'nothing' },
    io:
      `goes on: ${list(lost)} ${is(lost)} not in sync, so nothing is read from ` +
      `${them(lost)}${stops}`,
    start: `works with ${list(left)}: the record names nobody else in sync`,
    todo: [],
  };
}

function goesOn(
  status: EngineStatus,
  lost: readonly EngineReplicaStatus[],
  left: readonly EngineReplicaStatus[],
): Consequence {
  const inUse = lost.filter((r) => r.state === 'in-sync');
  const { generation, unequalExtents } = status;
  const todo = [`bring ${them(inUse)} back: what was missed is caught up`];
  if (left.length === 1) {
    const fill = status.replicas.some((r) => r.state === 'rebuilding' && !lost.includes(r));
    const wait = fill ? 'wait until the one that catches up is in sync' : 'add a copy';
    todo.unshift(
      `before you take it away on purpose: ${wait}, for only ${list(left)} would be left`,
    );
  }
  if (unequalExtents > 0) {
    todo.unshift(
      'wait until the copies are equal: if only copies that lost power are left meanwhile, I/O ' +
        'waits for the one that did not (P10)',
    );
  }
  return {
    ...{ volume: status.volume, lost: ids(lost), left: ids(left), verdict: 'goes-on' },
    io:
      `goes on with ${list(left)} after a pause of at most about ${NOTICE_SECONDS} s, as soon as ` +
      `the exclusion (generation ${generation} -> ${generation + 1}) is stored on the rest; ` +
      'nothing acknowledged is lost',
    start:
      `works with ${list(left)} once the exclusion is stored; if the engine ends before it could ` +
      `store it, or is not running when they are lost, a start is refused (MEMBERSHIP_UNPROVEN) ` +
      `until ${list(inUse)} ${is(inUse)} back, for the record names ${them(inUse)} in sync (R4)`,
    todo,
  };
}

function waits(status: EngineStatus, lost: readonly EngineReplicaStatus[]): Consequence {
  const inUse = lost.filter((r) => r.state === 'in-sync');
  const others = status.replicas.filter((r) => !lost.includes(r));
  const seconds = Math.round(status.ioTimeoutMs / 1000);
  const stale =
    others.length === 0
      ? ''
      : `; ${list(others)} ${does(others)} not have every acknowledged write and cannot ` +
        'stand in (R6)';
  const all = inUse.length > 1 ? ' (if they go one after the other: the last one)' : '';
  return {
    ...{ volume: status.volume, lost: ids(lost), left: [], verdict: 'waits' },
    io:
      `waits, after ${seconds} s it fails with EIO; it goes on by itself, with nothing that was ` +
      `acknowledged lost, when ${list(inUse)} ${is(inUse)} back${all}${stale}`,
    start: `is refused (MEMBERSHIP_UNPROVEN) until ${list(inUse)} ${is(inUse)} back${all} (R4)`,
    todo: [
      `do not take ${list(inUse)} away: first make another copy in sync (aurochs replica add)`,
      `if ${list(inUse)} ${is(inUse)} lost for good, no copy is left to salvage: restore a backup`,
    ],
  };
}

function whileFaulted(status: EngineStatus, lost: readonly EngineReplicaStatus[]): Consequence {
  const needed = status.replicas.filter((r) => r.recordedState === 'in-sync');
  const hit = needed.filter((r) => lost.includes(r));
  const left = needed.filter((r) => !lost.includes(r));
  const still = `the volume does not serve now and needs ${list(needed)}`;
  const without =
    hit.length === 0 ? `${list(lost)} ${is(lost)} not among them` : `${list(hit)} among them`;
  const salvage =
    left.length === 0
      ? 'no copy would be left to salvage: restore a backup'
      : `--salvage would open ${list(left)}, and may lose acknowledged writes`;
  return {
    ...{ volume: status.volume, lost: ids(lost), left: ids(left), verdict: 'stays-faulted' },
    io: `${still}; ${without}`,
    start:
      hit.length === 0
        ? `is possible when ${list(needed)} ${is(needed)} there`
        : `is refused (MEMBERSHIP_UNPROVEN) until ${list(hit)} ${is(hit)} back (R4)`,
    todo: hit.length === 0 ? [] : [`bring ${list(hit)} back`, salvage],
  };
}

export function consequenceText(consequence: Consequence): string {
  const { volume, lost, left, io, start, todo, verdict } = consequence;
  const what = verdict === 'stays-faulted' ? 'of those it needs' : 'in sync';
  const rows = [
    `If ${volume} lost ${lost.join(', ')}:`,
    `  left   ${left.length === 0 ? 'no copy' : left.join(', ')} ${what}`,
    `  I/O    ${io}`,
    `  start  ${start}`,
  ];
  for (const [index, text] of todo.entries())
    rows.push(`${index === 0 ? '  do     ' : '         '}${text}`);
  return rows.join('\n');
}
