/**
 * Asks replica daemons what they have of a volume: those that were given, then those that the
 * newest record found names.
 *
 * A member that was added later may be on a daemon that nobody gave. Where the record last saw it
 * is only a hint (R8): what counts is which replica answers there. The exposure rule holds for
 * hints, too.
 */

import { compareRecords, type MemberRecord, type MembershipRecord } from '../core/replica-set.js';
import type { EngineConfig } from '../engine-config.js';
import { mayDial } from '../exposure.js';
import { type Dial, identify } from './open-member.js';
import type { Answer } from './open-plan.js';

type AskConfig = Pick<EngineConfig, 'volume' | 'replicas' | 'tls' | 'insecure'>;

/** One answer per daemon that was given, and one for each other daemon that answered. Never
 *  throws. Bounded: an address is asked once.
 *  @param last  members when this engine had the volume last */
export async function askDaemons(
  config: AskConfig,
  dial: Dial,
  last: readonly MemberRecord[] = [],
): Promise<Answer[]> {
  const ask = (addresses: readonly string[]): Promise<Answer[]> =>
    Promise.all(addresses.map((address) => identify(dial, config.volume, address)));
  const asked = new Set(config.replicas);
  const answers = await ask(config.replicas);
  const before = last.map((m) => m.address).filter((a) => !asked.has(a) && mayDial(a, config));
  // Silence counts here: a member is known to be there.
  for (const answer of await ask(before)) {
    asked.add(answer.address);
    if (!isDouble(answer, answers)) answers.push(answer);
  }
  for (;;) {
    const hints = hintsOf(config, answers).filter((address) => !asked.has(address));
    if (hints.length === 0) return answers;
    for (const hint of hints) asked.add(hint);
    for (const answer of await ask(hints)) {
      if (answer.reply !== undefined && !isDouble(answer, answers)) answers.push(answer);
    }
  }
}

/** The same daemon under a second name. */
function isDouble({ reply }: Answer, answers: readonly Answer[]): boolean {
  if (reply === undefined) return false;
  return answers.some((other) => other.reply?.daemonId === reply.daemonId);
}

/** Where the newest record last saw the members that nobody who answered has. */
function hintsOf(config: AskConfig, answers: readonly Answer[]): string[] {
  const here = answers
    .flatMap(({ reply }) => reply?.replicas ?? [])
    .filter(({ volume }) => volume === config.volume);
  const records = here.map((info): MembershipRecord => info.membership);
  const newest = records.reduce<MembershipRecord | undefined>(
    (best, next) => (best === undefined || compareRecords(next, best) > 0 ? next : best),
    undefined,
  );
  const members = newest?.members ?? [];
  const missing = members.filter((m) => !here.some((r) => r.replicaId === m.replicaId));
  return missing.map((m) => m.address).filter((address) => mayDial(address, config));
}
