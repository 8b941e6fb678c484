/** What to do, per situation: one table for everybody who explains. Pure. */
import type { EngineReplicaStatus } from '../../proto/control.js';
import { codeOfReason, type ReplicaSituation } from './situation.js';

export interface HintFacts {
  readonly volume: string;
  /** `--engine unix:PATH` as it was given, so that commands can be pasted */
  readonly engine: string;
  readonly replica: EngineReplicaStatus;
}

type Hint = (facts: HintFacts) => string;

const command = ({ volume, engine, replica }: HintFacts, words: string, rest = ''): string =>
  `aurochs ${words} ${volume} ${replica.replicaId}${rest} --engine ${engine}`;

const replace = (facts: HintFacts): string =>
  `put a copy elsewhere: ${command(facts, 'replica replace', ' ADDRESS')}`;

/** '': nothing is to be done. */
const HINTS: Readonly<Record<ReplicaSituation, Hint>> = {
  'in-sync': () => '',
  rebuilding: () => 'nothing: it is used again when it has everything',
  new: ({ replica }) =>
    `nothing: it is filled by itself, as long as the daemon at ${replica.address} runs`,
  excluding: () =>
    'if this lasts, the membership cannot be recorded: look at the other copies and the log of ' +
    'the engine; writes that it missed are not acknowledged meanwhile',
  needed: ({ replica }) =>
    `make sure that the replica daemon at ${replica.address} runs and can be reached: the volume ` +
    'goes on by itself when all copies that it needs answer',
  unreachable: (facts) =>
    `start the replica daemon at ${facts.replica.address}, or the network to it: it catches up ` +
    `by itself; if the host is lost for good, ${replace(facts)}`,
  gone: (facts) =>
    'if its disk was changed, make a new copy on the new one: ' +
    `${command(facts, 'replica replace', ` ${facts.replica.address}`)}; ` +
    'if not, start the daemon with the folder and the disk that it had',
  disk: (facts) =>
    `look at the disk of the daemon at ${facts.replica.address} (dmesg, smartctl); the daemon ` +
    `tries it again by itself; if it is worn out, ${replace(facts)}`,
  full: (facts) =>
    `free space on the disk of the daemon at ${facts.replica.address}, or ${replace(facts)}`,
  slow: (facts) =>
    'nothing at once: it is tried again after a while; if it is set aside often, look at its ' +
    `disk and network, or ${replace(facts)}`,
  fenced: () =>
    'another engine has opened this copy with a higher epoch: look for a second engine of this ' +
    'volume and stop the one that is not wanted',
  foreign: ({ replica }) =>
    `what answers at ${replica.address} is not this copy: correct the address, or start the ` +
    'right daemon there',
  out: ({ replica }) =>
    replica.reason === ''
      ? 'nothing: it is tried again by itself'
      : `see docs/errors.md for ${codeOfReason(replica.reason) || 'the reason'}; it is tried ` +
        'again by itself',
};

export function hintFor(situation: ReplicaSituation, facts: HintFacts): string {
  return HINTS[situation](facts);
}
